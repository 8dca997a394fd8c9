"""The same fixtures as end to end, and what several files of faults need."""

import asyncio
import json
from collections import Counter
from functools import partial

from gateway.dedup.store import _CLAIM, _FINISH, _RENEW
from tests.e2e.conftest import Running, policies
from tests.e2e.conftest import environment as patient
from tests.running import eventually, total
from tests.scripted import Request, ScriptedUpstream, reply

__all__ = ["CLAIM", "FINISH", "RENEW", "Answering", "environment", "metric", "policies", "settled"]

environment = partial(patient, redis_timeout_s="0.25")

CLAIM, FINISH, RENEW = _CLAIM, _FINISH, _RENEW


class Answering:
    """An upstream whose answer names the member that was asked about, so that a mix-up is seen; it may be held."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.upstream = ScriptedUpstream(answer=self._answer)
        self.release = asyncio.Event()
        self.raw = b""  # instead of the answer
        self.calls: Counter[str] = Counter()
        if not is_held:
            self.release.set()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        member = json.loads(request.body)["subscriber"]["memberId"]
        self.calls[member] += 1
        await self.release.wait()
        fact = {"id": f"t-{member}", "correlationId": "upstream", "status": {"value": "eligible"}, "member": member}
        writer.write(self.raw or reply(body=json.dumps(fact).encode()))


async def metric(gateway: Running, name: str) -> float:
    """The sum of a metric's samples; `name` may go on with a label: `redis_errors_total{reason="timeout"`."""
    return total(await gateway.metrics(), name)


async def settled(*gateways: Running) -> None:
    """Return when nothing is under way in them: no request, no flight, nobody who waits."""

    async def are_idle() -> bool:
        names = ("requests_in_flight", "dedup_followers_waiting", "dedup_flights")
        return not sum([await metric(one, name) for one in gateways for name in names])

    await eventually(are_idle)
