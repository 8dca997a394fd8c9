"""A real Prometheus loads the pack, scrapes a gateway, and says that something is wrong when it is."""

import asyncio
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.embedded import die_with_parent
from gateway.simulator import Options, Simulator
from tests.e2e.conftest import about, environment, run_gateway
from tests.running import eventually
from tests.slo.pack import FILES, rules

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed")
CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [{rule_files}]
scrape_configs:
  - job_name: eligibility-gateway
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def is_ready(self) -> bool:
        try:
            async with self._session.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def value(self, query: str) -> float | None:
        """The value of the one series that an expression comes to, if there is one."""
        found = (await self.get("query", query=query))["result"]
        return float(found[0]["value"][1]) if found else None

    async def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire, or will if it goes on."""
        found: list[dict[str, Any]] = (await self.get("alerts"))["alerts"]
        return found

    async def fired(self, name: str) -> dict[str, Any] | None:
        """The alert of this name, if it fires."""
        firing = (one for one in await self.alerts() if one["state"] == "firing")
        return next((one for one in firing if one["labels"]["alertname"] == name), None)


@asynccontextmanager
async def run_prometheus(
    directory: Path,
    target: str,
    files: Iterable[Path] = FILES,
) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes the target and has loaded the pack, as it is shipped or from other files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = "127.0.0.1:{1}".format(*probe.getsockname())
    configuration = directory / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rule_files=", ".join(map(str, files)), target=target))
    process = await asyncio.create_subprocess_exec(
        str(PROMETHEUS),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={listen}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )
    try:
        async with aiohttp.ClientSession() as session:
            prometheus = Prometheus(f"http://{listen}", session)
            await eventually(prometheus.is_ready)
            yield prometheus
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_an_upstream_that_fails_burns_the_budget_and_a_page_says_so(redis_url: str, tmp_path: Path) -> None:
    """Nothing in the rules is changed for the test: what burns fast needs windows, and no time to pass."""
    fault = {"kind": "status", "operation": "submit_eligibility", "status": 503, "times": -1}
    async with (
        Simulator(Options(speed=60.0)) as simulator,
        run_gateway(environment(simulator.url, redis_url)) as gateway,
        run_prometheus(tmp_path, urlsplit(gateway.admin_url).netloc) as prometheus,
    ):
        assert (await gateway.submit()).status == 200
        await eventually(lambda: prometheus.value("count(job:eligibility_gateway_requests_valid:rate5m)"))
        assert await prometheus.alerts() == []  # not even pending

        async with gateway.session.post(f"{simulator.url}/_simulator/faults", json=[fault]) as response:
            assert response.ok
        assert (await gateway.submit(about("first"))).status == 503
        # A status makes its series by its first event: only the next ones are an increase.
        await eventually(lambda: prometheus.value('count(eligibility_gateway_requests_total{status="503"})'))
        await asyncio.gather(*(gateway.submit(about(member)) for member in range(30)))
        told = await eventually(lambda: prometheus.fired("EligibilityGatewayAvailabilityBurnsFast"))
        ratio = await prometheus.value("job:eligibility_gateway_requests_failed:ratio_rate1h")
        loaded = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]

    assert told["labels"]["severity"] == "page"
    assert re.fullmatch(r"[\d.]+% of an hour's requests were answered with a 5xx\.", told["annotations"]["summary"])
    assert ratio is not None
    assert ratio > 0.5
    assert {rule["name"] for rule in loaded} == {rule.name for rule in rules()}
    assert [rule for rule in loaded if rule["health"] == "err"] == []  # what has its turn every two minutes is unknown


async def test_a_payer_that_drifts_shows_in_age_bands_then_in_the_histogram_then_in_an_alert(
    redis_url: str, tmp_path: Path
) -> None:
    """From 2 s to 130 s, twenty of which pass in one: nothing waits for its `for:`, which is minutes of real time."""
    speed = 20.0
    now = tuple(tmp_path / file.name for file in FILES)
    for copy, file in zip(now, FILES, strict=True):
        copy.write_text(re.sub(r"^ +for: .*\n", "", file.read_text(), flags=re.MULTILINE))
    (directory := tmp_path / "policies").mkdir()
    (directory / "callers.yaml").write_text("callers: {anonymous: {}}\n")
    (directory / "all.yaml").write_text("match: {operations: ['*']}\nmetrics: {payers: [SIM-INSTANT]}\n")
    bands = 'sum(eligibility_gateway_requests_in_flight{payer="SIM-INSTANT",age=~"60-90|90-110|110-120|120[+]"})'
    ended = "sum(eligibility_gateway_upstream_duration_seconds_count) - sum("
    ended += 'eligibility_gateway_upstream_duration_seconds_bucket{le="60.0"})'
    async with (
        Simulator(Options(speed=speed)) as simulator,
        run_gateway(environment(simulator.url, redis_url, policies=str(directory)), speed=speed) as gateway,
        run_prometheus(tmp_path, urlsplit(gateway.admin_url).netloc, now) as prometheus,
    ):

        async def ask(seconds: float, *members: object) -> None:
            fault = {"kind": "hang", "operation": "submit_eligibility", "times": len(members), "seconds": seconds}
            async with gateway.session.post(f"{simulator.url}/_simulator/faults", json=[fault]) as response:
                assert response.ok
            answers = await asyncio.gather(*(gateway.submit(about(member)) for member in members))
            assert {answer.status for answer in answers} == {200}

        await ask(2, *range(5))
        await eventually(lambda: prometheus.value("count(job_payer:eligibility_gateway_upstream_calls:rate30m)"))
        drifting = asyncio.create_task(ask(130, *range(100, 130)))
        await eventually(lambda: prometheus.value(f"{bands} == 30"))
        assert await prometheus.value(ended) == 0
        await eventually(lambda: prometheus.fired("EligibilityGatewayPayerSlowInFlight"))
        assert await prometheus.fired("EligibilityGatewayPayerSlow") is None
        assert not drifting.done()

        await drifting
        await eventually(lambda: prometheus.value(f"{ended} == 30"))
        told = await eventually(lambda: prometheus.fired("EligibilityGatewayPayerSlow"))

    assert told["labels"]["payer"] == "SIM-INSTANT"
