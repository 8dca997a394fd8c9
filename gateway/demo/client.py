"""The story's callers: they ask the gateways, and read the simulator's and the gateways' own books."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.demo.stage import Stage
from gateway.operations import BASE_PATH

_PATIENTS: Final = ("Ada", "Bao", "Chidi", "Dana", "Emil", "Fatou", "Goro", "Hana", "Ines", "Jorge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back to a caller, and after how many real seconds."""

    caller: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    document: Any = field(repr=False)
    duration_s: float


class Callers:
    """Asks on behalf of the demo's callers, spread over the gateways."""

    def __init__(self, stage: Stage, session: aiohttp.ClientSession) -> None:
        self._stage = stage
        self._session = session
        self._asked = 0

    async def submit(self, caller: str, payer: str, patient: int = 0, **headers: str) -> Answer:
        """Check one synthetic patient's eligibility with a payer."""
        return await self.ask(caller, "POST", "", inquiry(payer, patient), headers)

    async def ask(
        self,
        caller: str,
        method: str,
        path: str,
        document: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request to the next gateway in turn."""
        url = self._stage.gateway_urls[self._asked % len(self._stage.gateway_urls)] + BASE_PATH + path
        self._asked += 1
        named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        sent = {"authorization": f"Bearer {self._stage.secrets.get(caller, 'of-nobody')}", **named}
        began_at = time.monotonic()
        async with self._session.request(method, url, json=document, headers=sent) as response:
            body = await response.read()
            return Answer(
                caller=caller,
                status=response.status,
                headers=response.headers.copy(),
                document=json.loads(body) if body else None,
                duration_s=time.monotonic() - began_at,
            )

    async def counters(self) -> dict[str, Any]:
        """What the simulated upstream has counted."""
        return dict(await self._control("GET", "/counters"))

    async def last_request(self) -> dict[str, Any]:
        """The last API request that reached the simulated upstream, as it stood on the wire."""
        return dict((await self._control("GET", "/requests?limit=1"))[0])

    async def revoke_tokens(self) -> None:
        """Let the simulated upstream forget every token it issued."""
        await self._control("POST", "/tokens/revoke")

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples over all gateways."""
        total = 0.0
        for url in self._stage.admin_urls:
            async with self._session.get(f"{url}/metrics") as response:
                families = text_string_to_metric_families(await response.text())
                total += sum(sample.value for family in families for sample in family.samples if sample.name == name)
        return total

    async def _control(self, method: str, path: str) -> Any:  # noqa: ANN401 - the simulator's own JSON
        async with self._session.request(method, f"{self._stage.simulator_url}/_simulator{path}") as response:
            return await response.json()


def inquiry(payer: str, patient: int) -> dict[str, object]:
    """A real-time check of one of the story's patients; none of them exists."""
    return {
        "controlNumber": f"{100_000_000 + patient}",
        "tradingPartnerServiceId": payer,
        "provider": {"organizationName": "Harbour Clinic", "npi": "1999999984"},
        "subscriber": {
            "memberId": f"DEMO{patient:06d}",
            "firstName": _PATIENTS[patient % len(_PATIENTS)],
            "lastName": "Sample",
            "dateOfBirth": "19700101",
        },
        "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30"]},
    }
