"""Three gateway processes around one Valkey: what holds when many ask at once, and when whoever leads is lost."""

import asyncio
import signal

import aiohttp
import pytest

from tests.e2e.conftest import BODY, about
from tests.e2e.processes import REPLICAS, Asked, Held, ask, fleet, text, waiting
from tests.running import GatewayProcess
from tests.scripted import ScriptedUpstream

LEASE_S = 15.0


async def test_two_hundred_at_once_over_three_replicas_cost_one_call(
    redis_url: str, session: aiohttp.ClientSession
) -> None:
    held = Held()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        asked = [
            asyncio.create_task(
                ask(session, processes[i % REPLICAS].url, f"c{i}", BODY | {"controlNumber": f"{i:09d}"})
            )
            for i in range(200)
        ]
        await waiting(session, processes, 200)
        held.release.set()
        answers = [await one for one in asked]

    assert held.calls == 1
    assert [status for status, _ in answers] == [200] * 200
    own = [document["correlationId"] == f"c{i}" for i, (_, document) in enumerate(answers)]
    assert own.count(False) == 1  # the leader's is the upstream's own, and this upstream says "x" to everybody
    assert {document["id"] for _, document in answers} == {"t-1"}


async def test_a_leader_that_is_killed_has_one_successor(redis_url: str, session: aiohttp.ClientSession) -> None:
    held = Held()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        leader, *others = processes
        lost = asyncio.create_task(ask(session, leader.url, "leader", BODY))
        await upstream.is_asked()
        asked = [asyncio.create_task(ask(session, others[i % 2].url, f"c{i}", BODY)) for i in range(40)]
        await waiting(session, others, 40)
        loop = asyncio.get_running_loop()
        leader.end(signal.SIGKILL)
        killed_at = loop.time()
        with pytest.raises(aiohttp.ClientError):
            await lost
        await upstream.is_asked(2)
        took_s = loop.time() - killed_at
        held.release.set()
        answers = [await one for one in asked]
        metrics = [await text(session, f"{process.admin_url}/metrics") for process in others]

    assert held.calls == 2
    assert [status for status, _ in answers] == [200] * 40
    assert {document["id"] for _, document in answers} == {"t-2"}
    assert sum("eligibility_gateway_dedup_takeovers_total 1.0" in one for one in metrics) == 1
    # The promise is lease + 2.5 s; a machine that stalls gets as long again.
    assert took_s < 2 * (LEASE_S + 2.5)


async def test_a_leader_that_was_frozen_overwrites_nothing(redis_url: str, session: aiohttp.ClientSession) -> None:
    held = Held()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        frozen, other, _ = processes
        late = asyncio.create_task(ask(session, frozen.url, "late", BODY))
        await upstream.is_asked()
        frozen.popen.send_signal(signal.SIGSTOP)
        waits = asyncio.create_task(ask(session, other.url, "waits", BODY))
        await upstream.is_asked(2)
        held.release.set()
        _, answered = await waits
        frozen.popen.send_signal(signal.SIGCONT)
        status, own = await late
        _, replayed = await ask(session, frozen.url, "again", BODY)
        metrics = await text(session, f"{frozen.admin_url}/metrics")

    assert (status, own["id"]) == (200, "t-1")  # its own caller gets what was paid for
    assert answered["id"] == "t-2"
    assert replayed["sourceId"] == "t-2"
    assert "eligibility_gateway_dedup_lost_leases_total 1.0" in metrics


async def asked_over(
    session: aiohttp.ClientSession, leader: GatewayProcess, other: GatewayProcess, upstream: ScriptedUpstream
) -> tuple[asyncio.Task[Asked], asyncio.Task[Asked]]:
    """Ask one replica, and the same of another once the first leads; return both, under way."""
    led = asyncio.create_task(ask(session, leader.url, "leader", BODY))
    await upstream.is_asked()
    follows = asyncio.create_task(ask(session, other.url, "follows", BODY))
    await waiting(session, [other], 1)
    return led, follows


async def test_a_leader_that_is_stopped_ends_its_flight_first(redis_url: str, session: aiohttp.ClientSession) -> None:
    held = Held()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        leader, other, _ = processes
        led, follows = await asked_over(session, leader, other, upstream)
        leader.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(leader.wait_for, '"draining"')
        held.release.set()
        assert (await led)[0] == 200
        assert (await follows)[1]["sourceId"] == "t-1"
        assert await asyncio.to_thread(leader.popen.wait, 30) == 0

    assert held.calls == 1


async def test_a_leader_that_is_hurried_hands_over_at_once(redis_url: str, session: aiohttp.ClientSession) -> None:
    held = Held()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        leader, other, _ = processes
        led, follows = await asked_over(session, leader, other, upstream)
        leader.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(leader.wait_for, '"draining"')
        loop = asyncio.get_running_loop()
        hurried_at = loop.time()
        leader.popen.send_signal(signal.SIGTERM)
        await upstream.is_asked(2)
        took_s = loop.time() - hurried_at
        held.release.set()
        assert (await follows)[1]["id"] == "t-2"
        status, problem = await led
        assert (status, problem["code"]) == (503, "stopped")
        assert await asyncio.to_thread(leader.popen.wait, 30) == 1

    assert took_s < LEASE_S  # not by the end of the lease


async def test_different_questions_over_three_replicas_cost_one_call_each(
    redis_url: str, session: aiohttp.ClientSession
) -> None:
    held = Held()
    held.release.set()
    async with held.upstream as upstream, fleet(upstream.url, redis_url) as processes:
        answers = await asyncio.gather(
            *(ask(session, processes[i % REPLICAS].url, f"c{i}", about(i // 10)) for i in range(300))
        )

    assert [status for status, _ in answers] == [200] * 300
    assert held.calls == 30
