"""Replies of Redis that are lost after the command was carried out: never two answers, and nobody waits for himself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from gateway.dedup.store import Times
from gateway.store import Script
from tests.e2e.conftest import Running, about, run_gateway
from tests.faults.conftest import CLAIM, FINISH, RENEW, Answering, environment, metric, settled
from tests.faults.proxy import CUT, SILENT, UNSENT, Proxy
from tests.running import ROOT, eventually
from tests.scripted import reply

MISS = "eligibility-gateway; fwd=miss"
KEPT = "eligibility-gateway; fwd=miss; stored; ttl=86400"
BYPASSED = "eligibility-gateway; fwd=bypass; detail=store_unavailable"
COLLAPSED = "eligibility-gateway; fwd=miss; collapsed"
LEASE_S = Times().lease_s
ways = pytest.mark.parametrize("how", [CUT, SILENT])


@dataclass(slots=True)
class Pair:
    """Two replicas of which one has a wire that may be hurt."""

    hurt: Running
    healthy: Running
    proxy: Proxy
    held: Answering

    async def follows(self, gateway: Running, member: str, status: int = 200) -> "asyncio.Task[str]":
        """Ask a replica, and return when it waits for the other's answer."""
        task = asyncio.create_task(self.ask(gateway, member, status))

        async def waits() -> bool:
            return await metric(gateway, "dedup_flights") == 1

        await eventually(waits)
        return task

    async def ask(self, gateway: Running, member: str, status: int = 200) -> str:
        """Ask about a member; return what the reply says of itself."""
        reply = await gateway.submit(about(member), x_optum_correlation_id=f"c-{member}")
        assert reply.status == status, await reply.text()
        assert reply.headers["x-optum-correlation-id"] == f"c-{member}"
        document = await reply.json()
        if status == 200:
            assert document["member"] == f"TESTMEMBER-{member}"
        return reply.headers.get("Cache-Status", "")

    async def is_kept(self, member: str) -> bool:
        return (await self.ask(self.healthy, member)).startswith("eligibility-gateway; hit;")


@pytest.fixture
async def pair(redis: Redis, redis_url: str) -> AsyncIterator[Pair]:
    for script in (CLAIM, FINISH, RENEW):  # so that a command is known by its digest
        await redis.script_load(script.source)
    held = Answering(is_held=True)
    async with (
        held.upstream as upstream,
        Proxy(redis_url) as proxy,
        run_gateway(environment(upstream.url, proxy.url)) as hurt,
        run_gateway(environment(upstream.url, redis_url)) as healthy,
    ):
        yield Pair(hurt, healthy, proxy, held)
        await settled(hurt, healthy)
        assert await metric(hurt, "dedup_lost_leases_total") == 0
        assert await metric(healthy, "dedup_lost_leases_total") == 0


@ways
async def test_a_claim_whose_reply_is_lost_leads_all_the_same(pair: Pair, how: str) -> None:
    lost = pair.proxy.lose(CLAIM.sha1, how)
    led = asyncio.create_task(pair.ask(pair.hurt, "a"))
    await pair.held.upstream.is_asked()
    assert lost.is_set()
    joins = asyncio.create_task(pair.ask(pair.hurt, "a"))
    follows = await pair.follows(pair.healthy, "a")
    pair.held.release.set()
    assert await led == (KEPT if how == CUT else BYPASSED)  # what was cut is asked again on the next connection
    assert await joins == COLLAPSED
    assert await follows == COLLAPSED
    assert await pair.is_kept("a")
    assert pair.held.calls == {"TESTMEMBER-a": 1}


async def test_a_claim_that_was_refused_unheard_holds_up_nobody(
    redis: Redis, redis_url: str, policies: Callable[..., str]
) -> None:
    await redis.script_load(CLAIM.source)
    held = Answering()
    strict = (ROOT / "policies" / "eligibility.yaml").read_text().replace("bypass", "reject")
    directory = policies(eligibility=strict, callers="callers: {anonymous: {}}")
    async with (
        held.upstream as upstream,
        Proxy(redis_url) as proxy,
        run_gateway(environment(upstream.url, proxy.url, policies=directory)) as gateway,
    ):
        lost = proxy.lose(CLAIM.sha1, SILENT)
        assert (await gateway.submit(about("a"))).status == 503
        assert lost.is_set()
        async with asyncio.timeout(LEASE_S / 2):
            assert (await gateway.submit(about("a"))).status == 200
        assert await metric(gateway, "dedup_takeovers_total") == 0
        await settled(gateway)


@ways
async def test_a_finish_whose_reply_is_lost_has_kept_the_answer(pair: Pair, how: str) -> None:
    led = asyncio.create_task(pair.ask(pair.hurt, "a"))
    await pair.held.upstream.is_asked()
    follows = await pair.follows(pair.healthy, "a")
    lost = pair.proxy.lose(FINISH.sha1, how)
    pair.held.release.set()
    assert await led == (KEPT if how == CUT else MISS)
    assert lost.is_set()
    assert await follows == COLLAPSED
    assert await pair.is_kept("a")
    assert await metric(pair.hurt, "dedup_stored_answers_total") <= 1
    assert pair.held.calls == {"TESTMEMBER-a": 1}


@pytest.mark.parametrize("mark", [CLAIM, FINISH], ids=["claim", "finish"])
@pytest.mark.parametrize("how", [CUT, SILENT, UNSENT])
async def test_an_error_reaches_those_who_wait_elsewhere_before_a_lease_ends(
    pair: Pair, how: str, mark: Script
) -> None:
    pair.held.raw = reply("500 Internal Server Error", b"[]")
    lost = pair.proxy.lose(mark.sha1, how)
    led = asyncio.create_task(pair.ask(pair.hurt, "a", 500))
    await pair.held.upstream.is_asked()
    follows = await pair.follows(pair.healthy, "a", 500)
    pair.held.release.set()
    await led
    assert lost.is_set()
    async with asyncio.timeout(LEASE_S / 2):
        await follows
        await pair.ask(pair.hurt, "a", 500)


async def test_a_renewal_whose_reply_is_lost_loses_no_lease(pair: Pair) -> None:
    lost = pair.proxy.lose(RENEW.sha1, SILENT)  # of both: they travel together
    led = [asyncio.create_task(pair.ask(pair.hurt, member)) for member in ("a", "b")]
    await pair.held.upstream.is_asked(2)
    follows = asyncio.create_task(pair.ask(pair.healthy, "a"))
    await lost.wait()
    pair.held.release.set()
    assert {status.removesuffix("; stored; ttl=86400") for status in await asyncio.gather(*led)} == {MISS}
    assert await follows == COLLAPSED
    assert await pair.is_kept("a")
    assert await pair.is_kept("b")
    assert pair.held.calls == {"TESTMEMBER-a": 1, "TESTMEMBER-b": 1}


@ways
async def test_who_waits_elsewhere_asks_again_when_the_answer_to_his_look_is_lost(pair: Pair, how: str) -> None:
    led = asyncio.create_task(pair.ask(pair.healthy, "a"))
    await pair.held.upstream.is_asked()
    follows = await pair.follows(pair.hurt, "a")
    looked = pair.proxy.lose(CLAIM.sha1, how)  # his next one, by a message or by the clock
    pair.held.release.set()
    assert (await led).startswith(MISS)
    await looked.wait()
    assert await follows == COLLAPSED
    assert pair.held.calls == {"TESTMEMBER-a": 1}


@ways
async def test_a_replay_that_is_lost_costs_one_call_at_most_and_leaves_the_answer(pair: Pair, how: str) -> None:
    pair.held.release.set()
    await pair.ask(pair.healthy, "a")
    lost = pair.proxy.lose(CLAIM.sha1, how)
    status = await pair.ask(pair.hurt, "a")
    assert status.startswith("eligibility-gateway; hit;") if how == CUT else status == BYPASSED
    assert lost.is_set()
    assert await pair.is_kept("a")
    assert pair.held.calls == {"TESTMEMBER-a": 1 if how == CUT else 2}
