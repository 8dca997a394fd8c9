"""How a process ends: what it still serves, what it waits for, and what it hands over."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.e2e.conftest import BODY, about, environment
from tests.e2e.processes import Held, ask, fleet, started, waiting
from tests.running import GatewayProcess

LONG = "60"  # seconds that no test waits for
PASSED = "match: {operations: ['*']}\n"


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    one = Held()
    async with one.upstream:
        yield one


async def is_draining(process: GatewayProcess, number: signal.Signals = signal.SIGTERM) -> None:
    process.popen.send_signal(number)
    await asyncio.to_thread(process.wait_for, '"draining"')


async def code_of(process: GatewayProcess) -> int:
    return await asyncio.to_thread(process.popen.wait, 30)


def last_word(process: GatewayProcess) -> dict[str, object]:
    said: dict[str, object] = json.loads([line for line in process.output() if '"stopped"' in line][-1])
    return said


async def test_whoever_comes_within_the_grace_is_served_and_told_to_come_elsewhere_next(
    redis_url: str, held: Held
) -> None:
    held.release.set()
    async with started(environment(held.upstream.url, redis_url, drain_grace_s=LONG)) as process:
        await is_draining(process)
        async with aiohttp.ClientSession() as newcomer:
            async with newcomer.get(f"{process.admin_url}/readyz") as response:
                assert response.status == 503
            async with newcomer.post(f"{process.url}/rcm/eligibility/v1", json=BODY) as response:
                assert (response.status, response.headers["Connection"]) == (200, "close")
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert await code_of(process) == 0  # nothing was in flight that the second signal could have cut


async def test_after_the_grace_nobody_new_is_let_in(redis_url: str, held: Held) -> None:
    async with started(environment(held.upstream.url, redis_url, drain_grace_s="0.2")) as process:
        async with aiohttp.ClientSession() as session:
            under_way = asyncio.create_task(ask(session, process.url, "under-way", BODY))
            await held.upstream.is_asked()
            await is_draining(process)

            async with asyncio.timeout(20), aiohttp.ClientSession() as newcomer:
                while True:
                    try:
                        async with newcomer.get(f"{process.url}/unknown"):
                            pass
                    except aiohttp.ClientConnectorError:
                        break
            held.release.set()
            assert (await under_way)[0] == 200
        assert await code_of(process) == 0


async def test_at_a_terminal_there_is_no_grace(redis_url: str, held: Held) -> None:
    async with started(environment(held.upstream.url, redis_url, drain_grace_s=LONG)) as process:
        await is_draining(process, signal.SIGINT)
        assert await code_of(process) == 0


async def test_a_flight_that_nobody_awaits_any_more_ends_before_the_process(redis_url: str, held: Held) -> None:
    async with started(environment(held.upstream.url, redis_url)) as process:
        async with aiohttp.ClientSession() as session:
            left = asyncio.create_task(ask(session, process.url, "left", BODY))
            await held.upstream.is_asked()
            left.cancel()
        await is_draining(process)
        held.release.set()
        assert await code_of(process) == 0
    async with started(environment(held.upstream.url, redis_url)) as successor, aiohttp.ClientSession() as session:
        _, document = await ask(session, successor.url, "again", BODY)

    assert (document["sourceType"], held.calls) == ("duplicate", 1)


async def test_what_does_not_end_in_time_is_handed_over_and_every_caller_is_told(
    redis_url: str, held: Held, session: aiohttp.ClientSession
) -> None:
    async with fleet(held.upstream.url, redis_url, drain_timeout_s="1") as (leader, other, _):
        led = asyncio.create_task(ask(session, leader.url, "led", BODY))
        await held.upstream.is_asked()
        follows_here = asyncio.create_task(ask(session, leader.url, "follows-here", BODY))
        follows_there = asyncio.create_task(ask(session, other.url, "follows-there", BODY))
        await waiting(session, [leader, other], 3)
        await is_draining(leader)
        told = [await led, await follows_here]
        await held.upstream.is_asked(2)  # long before the lease has run out
        held.release.set()
        status, answered = await follows_there
        assert await code_of(leader) == 1

    assert [(code, problem["code"]) for code, problem in told] == [(503, "stopped")] * 2
    assert (status, answered["id"]) == (200, "t-2")
    assert last_word(leader) | {"in_flight": 2, "flights": 1, "drained": False} == last_word(leader)


async def test_who_asked_without_deduplication_is_told_as_well(
    redis_url: str, held: Held, session: aiohttp.ClientSession, policies: Callable[..., str]
) -> None:
    directory = policies(callers="callers: {anonymous: {}}\n", passed=PASSED)
    async with started(environment(held.upstream.url, redis_url, policies=directory)) as process:
        asked = [asyncio.create_task(ask(session, process.url, f"c{one}", about(one))) for one in range(3)]
        await held.upstream.is_asked(3)
        await is_draining(process)
        process.popen.send_signal(signal.SIGTERM)
        assert [(status, problem["code"]) for status, problem in [await one for one in asked]] == [(503, "stopped")] * 3
        assert await code_of(process) == 1
