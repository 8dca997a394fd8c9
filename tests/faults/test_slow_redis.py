"""A Redis that is far away, in bytes one by one, or too slow to wait for."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.breaker import FAILURES
from tests.e2e.conftest import about, run_gateway
from tests.faults.conftest import Answering, environment, metric, settled
from tests.faults.proxy import Proxy
from tests.running import eventually

MEMBERS = 6


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(redis_url) as one:
        yield one


@pytest.mark.parametrize(
    ("latency_s", "jitter_s", "passes"),
    # A new connection asks four times before it has its first answer, five on a server that lacks the script.
    [(0.002, 0.002, "whole"), (0.01, 0.01, "whole"), (0.0, 0.0, "sliced"), (0.002, 0.005, "sliced")],
    ids=["near", "far", "sliced", "sliced-and-far"],
)
async def test_as_long_as_redis_answers_in_time_one_question_costs_one_call(
    latency_s: float, jitter_s: float, passes: str, proxy: Proxy, redis_url: str
) -> None:
    answering = Answering()
    proxy.latency_s, proxy.jitter_s, proxy.is_slicing = latency_s, jitter_s, passes == "sliced"
    async with (
        answering.upstream as upstream,
        run_gateway(environment(upstream.url, proxy.url)) as far,
        run_gateway(environment(upstream.url, redis_url)) as near,
    ):
        for _ in range(2):
            members = [number % MEMBERS for number in range(8 * MEMBERS)]
            replies = await asyncio.gather(
                *((far, near)[number % 2].submit(about(member)) for number, member in enumerate(members))
            )
            documents = [await one.json() for one in replies]
            assert [document["member"] for document in documents] == [f"TESTMEMBER-{member}" for member in members]
        await settled(far, near)
        assert [await metric(one, "dedup_lost_leases_total") for one in (far, near)] == [0, 0]
        assert [await metric(one, "redis_errors_total") for one in (far, near)] == [0, 0]
    assert set(answering.calls.values()) == {1}


async def test_a_connection_may_take_longer_than_an_answer(proxy: Proxy) -> None:
    answering = Answering()
    proxy.latency_s = 0.05
    async with (
        answering.upstream as upstream,
        run_gateway(environment(upstream.url, proxy.url)) as gateway,
    ):

        async def is_replayed() -> bool:
            return (await gateway.submit(about(1))).headers["Cache-Status"].startswith("eligibility-gateway; hit;")

        await eventually(is_replayed)
        await settled(gateway)


async def test_a_redis_that_is_too_slow_is_left_alone(proxy: Proxy) -> None:
    answering = Answering()
    async with (
        answering.upstream as upstream,
        run_gateway(environment(upstream.url, proxy.url), drain_s=0) as gateway,
    ):
        await gateway.submit(about("before"))
        proxy.latency_s = 0.5
        for number in range(FAILURES):
            reply = await gateway.submit(about(number))
            assert reply.headers["Cache-Status"] == "eligibility-gateway; fwd=bypass; detail=store_unavailable"
        assert await metric(gateway, 'redis_errors_total{reason="timeout"') >= FAILURES
        # The breaker is open: of as many again at most its one attempt reaches Redis.
        before = await metric(gateway, "redis_errors_total")
        for number in range(4 * FAILURES):
            reply = await gateway.submit(about(f"again-{number}"))
            assert (await reply.json())["member"] == f"TESTMEMBER-again-{number}"
            assert reply.headers["Cache-Status"].endswith("detail=store_unavailable")
        assert await metric(gateway, "redis_errors_total") - before < FAILURES
    assert set(answering.calls.values()) == {1}
