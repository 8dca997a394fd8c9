"""Play a bad quarter of an hour, scraped by a real Prometheus, and draw the dashboard of it into docs/dashboard.svg.

`python -m tools.record_dashboard` needs Debian's package prometheus.

A clinic's services ask about patients of a few payers, often the same; one payer goes from 2 s to 130 s, another one's
answers are cut at 110 s. Everything is real but the upstream, and takes as long as it says.
"""

import argparse
import asyncio
import base64
import json
import random
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from gateway.app import open_gateway
from gateway.embedded import EmbeddedValkey
from gateway.settings import read_settings
from gateway.simulator import Options, Simulator
from gateway.telemetry.log import open_log
from tools.draw_dashboard import DASHBOARD, ROOT, Window, draw

CALLERS: Final = "callers: {anonymous: {}}\n"
POLICY: Final = """\
match: {operations: ["*"]}
dedup: {mode: enforce, window: 24h}
recover: {within: 20s}
metrics: {payers: [SIM-FAST, SIM-TYPICAL, SIM-HMO, SIM-CUT110]}
"""
SCRAPE: Final = """\
global: {{scrape_interval: 2s}}
scrape_configs:
  - job_name: eligibility-gateway
    static_configs: [{{targets: ["{target}"]}}]
"""
STEPS: Final = ((0.2, 2.0), (0.3, 10.0), (0.36, 30.0), (0.42, 60.0), (0.48, 90.0), (0.54, 130.0), (0.85, 2.0))
_PER_S: Final = 3.0
_KNOWN_SHARE: Final = 0.45  # of what is asked was asked before
_PAYERS: Final = (("SIM-FAST", 0.5), ("SIM-HMO", 0.2), ("SIM-TYPICAL", 0.24), ("SIM-CUT110", 0.06))


def main() -> None:
    """Record, and draw."""
    parser = argparse.ArgumentParser(description="Record docs/dashboard.svg.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "dashboard.svg")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("found no prometheus, expected Debian's package of this name")
    options.out.write_text(asyncio.run(record(options.minutes)), encoding="utf-8")


async def record(minutes: float) -> str:
    """Play for so many minutes, and return the picture of it."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-")))
        policies = directory / "policies"
        policies.mkdir()
        (policies / "callers.yaml").write_text(CALLERS)
        (policies / "checks.yaml").write_text(POLICY)
        valkey = stack.enter_context(EmbeddedValkey())
        simulator = await stack.enter_async_context(Simulator(Options(seed=270)))
        log = (directory / "log").open("w+b")
        settings = read_settings(
            {
                "GATEWAY_LISTEN": "127.0.0.1:0",
                "GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
                "GATEWAY_POLICIES": str(policies),
                "GATEWAY_REDIS_URL": valkey.url,
                "GATEWAY_UPSTREAM_URL": simulator.url,
                "GATEWAY_UPSTREAM_CLIENT_ID": "simulator",
                "GATEWAY_UPSTREAM_CLIENT_SECRET": "simulator-secret",
                "GATEWAY_KEYS": f"record:{base64.b64encode(bytes(32)).decode()}",
            }
        )
        await stack.enter_async_context(open_gateway(settings, open_log("info", log)))
        await asyncio.sleep(0)  # the log writes once a tick
        listening = json.loads((directory / "log").read_text().splitlines()[-1])
        prometheus = await _prometheus(stack, directory, listening["admin_listen"])
        began_at = asyncio.get_running_loop().time()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await _play(session, simulator.url, f"http://{listening['listen']}", minutes * 60)
        elapsed_s = asyncio.get_running_loop().time() - began_at
        now = await _last_scrape(prometheus)
        dashboard = json.loads(DASHBOARD.read_text())
        return await asyncio.to_thread(draw, dashboard, prometheus, Window(now - elapsed_s, now, "1m"))


async def _prometheus(stack: AsyncExitStack, directory: Path, target: str) -> str:
    (directory / "prometheus.yaml").write_text(SCRAPE.format(target=target))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={directory}/prometheus.yaml",
        f"--storage.tsdb.path={directory}/data",
        "--web.listen-address=127.0.0.1:9199",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def end() -> None:
        process.terminate()
        await process.wait()

    stack.push_async_callback(end)
    return "http://127.0.0.1:9199"


async def _last_scrape(prometheus: str) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{prometheus}/api/v1/query", params={"query": "timestamp(up)"}) as response,
    ):
        return float((await response.json())["data"]["result"][0]["value"][1])


async def _play(session: aiohttp.ClientSession, simulator: str, gateway: str, seconds: float) -> None:
    chance = random.Random(270)  # noqa: S311 - made-up patients
    loop = asyncio.get_running_loop()
    began_at, steps, asking = loop.time(), list(STEPS), set[asyncio.Task[None]]()
    number = 0
    while (elapsed_s := loop.time() - began_at) < seconds:
        if steps and elapsed_s / seconds >= steps[0][0]:
            fault = {"kind": "hang", "payer": "SIM-TYPICAL", "times": -1, "seconds": steps.pop(0)[1]}
            await (await session.delete(f"{simulator}/_simulator/faults")).read()
            await (await session.post(f"{simulator}/_simulator/faults", json=[fault])).read()
        number += 1
        known = chance.random() < _KNOWN_SHARE
        member = chance.randrange(max(number - 60, 1), number + 1) if known else number
        payer = _payer(random.Random(member))  # noqa: S311 - the same patient has the same payer
        task = asyncio.create_task(_ask(session, gateway, payer, member, chance.random()))
        asking.add(task)
        task.add_done_callback(asking.discard)
        await asyncio.sleep(chance.expovariate(_PER_S))
    for task in asking:
        task.cancel()


def _payer(chance: random.Random) -> str:
    return chance.choices([name for name, _ in _PAYERS], [weight for _, weight in _PAYERS])[0]


async def _ask(session: aiohttp.ClientSession, gateway: str, payer: str, member: int, patience: float) -> None:
    person = {"memberId": f"MADEUP{member}", "firstName": "Ada", "lastName": "Sample", "dateOfBirth": "19700101"}
    body: dict[str, Any] = {
        "controlNumber": f"{member:09}",
        "tradingPartnerServiceId": payer,
        "provider": {"organizationName": "Harbour Clinic", "npi": "1999999984"},
        "subscriber": person,
        "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30"]},
    }
    limit = aiohttp.ClientTimeout(total=45 if patience < 0.1 else 150)  # noqa: PLR2004 - one in ten gives up
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.post(f"{gateway}/rcm/eligibility/v1", json=body, timeout=limit) as response:
            await response.read()


if __name__ == "__main__":
    main()
