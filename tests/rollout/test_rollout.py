"""A rollout as the chart has Kubernetes do it: its probes, its pauses, its signals, and processes that hold requests.

Minutes pass `SPEED` times as fast, for the chart's times and for the program's alike; `make rollout` takes them as they
are.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from gateway.settings import Settings
from tests.chart.engine import minimal, only, render
from tests.e2e.conftest import about, environment
from tests.rollout.cluster import Deployment, Service, times_of
from tests.running import GatewayProcess
from tests.scripted import Request, ScriptedUpstream, reply

SPEED = float(os.environ.get("ROLLOUT_SPEED", "10"))
HOLD_MAX_S = 120 / SPEED  # the clearinghouse gives up then
HEARS_LATE_S = 8.0  # a busy cluster's nodes; the chart's pauses are to cover it
CALLERS, SHARED = 45, 6
pytestmark = pytest.mark.timeout(1200 if SPEED < 5 else 120)


class Slow:
    """An upstream whose answers take up to two minutes, and name who was asked about."""

    def __init__(self, hold_max_s: float) -> None:
        self.upstream = ScriptedUpstream(answer=self._answer)
        self.calls: Counter[str] = Counter()
        self._hold_max_s = hold_max_s
        self._chance = random.Random(7)  # noqa: S311 - the same rollout each time

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        member = json.loads(request.body)["subscriber"]["memberId"]
        self.calls[member] += 1
        await asyncio.sleep(self._chance.uniform(0, self._hold_max_s))
        fact = {"id": f"t-{member}", "correlationId": "x", "status": {"value": "eligible"}, "member": member}
        writer.write(reply(body=json.dumps(fact).encode()))


@dataclass(slots=True)
class Crowd:
    """Callers that ask one question after the other: on connections that they keep, on new ones, alone or together."""

    url: str
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self) -> None:
        """Ask until it is over, and then wait for the last answers."""
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._caller(number))

    async def _caller(self, number: int) -> None:
        connector = aiohttp.TCPConnector(force_close=number % 2 == 0)
        limit = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
            turn = 0
            while not self.is_over.is_set():
                turn += 1
                member = f"shared-{number % SHARED}-{turn}" if number % 3 == 0 else f"{number}-{turn}"
                try:
                    async with session.post(f"{self.url}/rcm/eligibility/v1", json=about(member)) as response:
                        text = await response.text()
                        if response.status != 200 or json.loads(text)["member"] != f"TESTMEMBER-{member}":
                            self.lost.append(f"{response.status} {text}")
                        else:
                            self.answered += 1
                except aiohttp.ClientError as error:
                    self.lost.append(repr(error))
                with suppress(TimeoutError):  # people think before they ask again
                    async with asyncio.timeout(0.05):
                        await self.is_over.wait()


@dataclass(slots=True)
class World:
    """What there was, after a rollout."""

    deployment: Deployment
    service: Service
    crowd: Crowd
    calls: Counter[str]


@asynccontextmanager
async def rolled_out(redis_url: str, values: dict[str, Any], hold_max_s: float = HOLD_MAX_S) -> AsyncIterator[World]:
    """Roll out three replicas by the chart's values, while callers ask."""
    chart = only(render(values), "Deployment")["spec"]
    pod = chart["template"]["spec"]
    times = times_of(pod, min_ready_s=chart["minReadySeconds"], hears_late_s=HEARS_LATE_S, speed=SPEED)
    stated = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    drain = {
        name: str(float(stated.get(f"GATEWAY_{name.upper()}", Settings.model_fields[name].default)) / SPEED)
        for name in ("drain_grace_s", "drain_timeout_s")
    }
    slow = Slow(hold_max_s)
    async with slow.upstream as upstream, aiohttp.ClientSession() as session, Service(times.hears_late_s) as service:
        variables = environment(upstream.url, redis_url, **drain)
        deployment = Deployment(lambda: asyncio.to_thread(GatewayProcess, variables), times, service, session)
        try:
            await deployment.scale(chart["replicas"])
            crowd = Crowd(service.url)
            asking = asyncio.create_task(crowd.ask())
            await upstream.is_asked(CALLERS // 2)
            await deployment.roll_out()
            crowd.is_over.set()
            await asking
            yield World(deployment, service, crowd, slow.calls)
        finally:
            await deployment.close()


async def test_a_rollout_loses_no_request_and_pays_for_none_twice(redis_url: str) -> None:
    async with rolled_out(redis_url, minimal()) as world:
        pass

    assert world.crowd.lost == []
    assert world.service.unserved == 0
    assert [(pod.code, pod.was_killed) for pod in world.deployment.gone] == [(0, False)] * 3
    assert world.crowd.answered >= CALLERS
    assert set(world.calls.values()) == {1}


@pytest.mark.long
@pytest.mark.parametrize(
    ("values", "hold_max_s"),
    [
        ({"preStopSleepSeconds": 0, "settings": {"drain_grace_s": 0}}, 0.05),
        ({"settings": {"drain_timeout_s": 5}}, HOLD_MAX_S),
    ],
    ids=["no pause before the end", "no time to end"],
)
async def test_without_what_the_chart_sets_requests_are_lost_and_this_rollout_sees_it(
    redis_url: str, values: dict[str, Any], hold_max_s: float
) -> None:
    async with rolled_out(redis_url, minimal(**values), hold_max_s) as world:
        pass

    assert world.crowd.lost
