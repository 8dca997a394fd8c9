"""Who timed out, told by what was seen on the wire and when; and what a caller gets who does not wait so long."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from gateway.simulator import Options, Simulator
from tests.e2e.conftest import BODY, about, environment, run_gateway
from tests.running import eventually, total
from tests.scripted import Request, ScriptedUpstream, once, reply

SPEED = 40.0
SUBMIT = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 24h}\n"
CALLERS = "callers: {anonymous: {}}\n"
ELIGIBLE = reply(body=b'{"id": "t-1", "correlationId": "c", "status": {"value": "eligible"}}')
Write = Callable[..., str]


def one(by: str) -> str:
    return f'timeouts_total{{operation="submit_eligibility",by="{by}"'


async def test_the_marks_of_the_upstream_are_told_apart(redis_url: str, lookless: str) -> None:
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(environment(simulator.url, redis_url, policies=lookless), speed=SPEED) as gateway,
    ):
        expected = {
            "SIM-TIMEOUT": (504, "enterprise_gateway", "other"),
            "SIM-TIMEOUT-UNCUT": (200, "clearinghouse", "payer_unavailable"),
            "SIM-UNCUT": (200, "", "eligible"),
            "SIM-DOWN": (200, "", "payer_unavailable"),
        }
        replies = await asyncio.gather(
            *(
                gateway.submit(BODY | {"tradingPartnerServiceId": payer}, x_optum_correlation_id=payer)
                for payer in expected
            )
        )
        told = {line["correlation_id"]: line["timed_out_by"] for line in gateway.records()}
        metrics = await gateway.metrics()

    assert {payer: r.status for payer, r in zip(expected, replies, strict=True)} == {
        p: e[0] for p, e in expected.items()
    }
    assert told == {payer: by for payer, (_, by, _) in expected.items()}
    assert total(metrics, one("enterprise_gateway")) == total(metrics, one("clearinghouse")) == 1
    assert total(metrics, "timeouts_total") == 2
    late = 'upstream_duration_seconds_bucket{operation="submit_eligibility",payer="other",outcome="payer_unavailable",'
    assert total(metrics, late + 'status_class="2xx",le="118.0"') == 1
    assert total(metrics, late + 'status_class="2xx",le="+Inf"') == 2


async def test_our_own_limit_is_ours(redis_url: str, policies: Write) -> None:
    files = {"callers": CALLERS, "all": SUBMIT + "timeout: {connect: 5s, answer: 200ms}\n"}

    async def silent(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        ScriptedUpstream(answer=silent) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=policies(**files))) as gateway,
    ):
        response = await gateway.submit()
        metrics = await gateway.metrics()

    assert (response.status, (await response.json())["code"]) == (504, "upstream_timeout")
    assert gateway.records()[-1]["timed_out_by"] == "gateway"
    assert total(metrics, one("gateway")) == 1
    assert total(metrics, 'upstream_timeouts_total{operation="submit_eligibility",payer="other",by="gateway"') == 1


async def test_no_connection_in_time_is_named_so(redis_url: str, policies: Write) -> None:
    files = {
        "callers": CALLERS,
        "all": "match: {operations: ['*']}\ntoken: {inject: false}\ntimeout: {connect: 150ms, answer: 5s}\n",
    }
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]  # what is not accepted fills the queue, and SYNs are dropped
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        url = "http://{}:{}".format(*full.getsockname())
        async with run_gateway(environment(url, redis_url, policies=policies(**files))) as gateway:
            response = await gateway.submit()
            metrics = await gateway.metrics()
        for filler in fillers:
            filler.close()

    assert (response.status, (await response.json())["code"]) == (504, "upstream_connect_timeout")
    assert gateway.records()[-1]["timed_out_by"] == "connect"
    assert total(metrics, one("connect")) == 1


async def test_a_caller_that_leaves_is_named_with_the_time_at_which_it_left(redis_url: str) -> None:
    release = asyncio.Event()

    async with (
        ScriptedUpstream(answer=once(release, ELIGIBLE)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        leaving = asyncio.create_task(gateway.submit())
        await upstream.is_asked()
        leaving.cancel()

        async def is_detached() -> bool:
            return total(await gateway.metrics(), 'requests_in_flight{role="detached"') == 1

        await eventually(is_detached)
        assert total(await gateway.metrics(), 'requests_in_flight{role="lead"') == 0
        release.set()
        await eventually(lambda: asyncio.sleep(0, bool(gateway.records())))
        again = await gateway.submit()
        metrics = await gateway.metrics()

    (left, _) = gateway.records()
    assert (left["timed_out_by"], left["is_complete"], left["dedup"]) == ("caller", False, "lead")
    assert 0 < left["left_s"] < left["duration_s"]
    assert total(metrics, one("caller")) == 1
    assert again.headers["Cache-Status"].startswith("eligibility-gateway; hit")


@pytest.mark.parametrize(
    ("marks", "by"),
    [
        ("enterprise_gateway: 300ms, clearinghouse: 60s", "enterprise_gateway"),
        ("enterprise_gateway: 1ms, clearinghouse: 300ms", "clearinghouse"),
    ],
)
async def test_a_connection_that_is_cut_belongs_to_the_mark_it_is_near(
    marks: str, by: str, redis_url: str, policies: Write
) -> None:
    files = {"callers": CALLERS, "all": SUBMIT + f"timeout: {{connect: 5s, answer: 20s, {marks}}}\n"}

    async def cut(_: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.35)  # the cut is what is played here, at its time
        writer.transport.abort()

    async with (
        ScriptedUpstream(answer=cut) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=policies(**files))) as gateway,
    ):
        response = await gateway.submit()

    assert (response.status, gateway.records()[-1]["timed_out_by"]) == (502, by)


async def test_a_cut_that_is_near_no_mark_is_an_accident(redis_url: str, lookless: str) -> None:
    async def cut(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with (
        ScriptedUpstream(answer=cut) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=lookless)) as gateway,
    ):
        response = await gateway.submit()

    assert (response.status, gateway.records()[-1]["timed_out_by"]) == (502, "")


async def test_a_caller_is_answered_in_its_time_and_the_answer_is_kept_for_its_retry(
    redis_url: str, policies: Write
) -> None:
    release = asyncio.Event()

    files = {"callers": CALLERS, "all": SUBMIT + "timeout: {connect: 5s, answer: 60s, caller: 200ms}\n"}
    async with (
        ScriptedUpstream(answer=once(release, ELIGIBLE)) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=policies(**files))) as gateway,
    ):
        early = await gateway.submit()
        problem = await early.json()
        metrics = await gateway.metrics()
        release.set()
        await eventually(lambda: asyncio.sleep(0, bool(gateway.calls())))
        again = await gateway.submit()

    assert (early.status, problem["code"], problem["retry_safe"]) == (504, "answer_pending", True)
    assert early.headers["Retry-After"] == "1"
    assert total(metrics, 'requests_in_flight{role="detached"') == 1
    assert (again.status, again.headers["Cache-Status"].split(";")[1]) == (200, " hit")
    assert len(upstream.requests) == 1
    line, call = gateway.records()[0], gateway.calls()[0]
    assert (line["timed_out_by"], line["code"], line["budget_s"]) == ("gateway", "answer_pending", 0.2)
    assert (call["outcome"], call["timed_out_by"], call["correlation_id"]) == ("eligible", "", line["correlation_id"])


async def test_what_is_no_fact_is_handed_to_whoever_was_told_to_come_back_on_any_replica_and_replayed_to_nobody(
    redis_url: str, policies: Write
) -> None:
    release = asyncio.Event()
    down = reply(body=b'{"id": "t-1", "correlationId": "c", "status": {"value": "payer_unavailable"}}')
    directory = policies(callers=CALLERS, all=SUBMIT + "timeout: {connect: 5s, answer: 60s, caller: 200ms}\n")
    async with (
        ScriptedUpstream(answer=once(release, down)) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as one,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as other,
    ):
        early = await one.submit()
        release.set()
        await eventually(lambda: asyncio.sleep(0, bool(one.calls())))
        again = await other.submit()
        asked = len(upstream.requests)
        for _ in range(2):  # the first may still be owed to the one, where the other was just in time to follow
            await other.submit()

    assert (early.status, again.status, asked) == (504, 200, 1)
    assert (await again.json())["status"]["value"] == "payer_unavailable"
    assert again.headers["Cache-Status"] == "eligibility-gateway; fwd=miss; collapsed"
    assert len(upstream.requests) >= 2


async def test_a_caller_may_prefer_to_wait_for_less_and_never_for_more(redis_url: str, policies: Write) -> None:
    async def silent(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    files = {"callers": CALLERS, "all": SUBMIT + "timeout: {connect: 5s, answer: 60s, caller: 2s}\n"}
    async with (
        ScriptedUpstream(answer=silent) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=policies(**files)), drain_s=0) as gateway,
    ):
        await asyncio.gather(
            gateway.submit(about(1), prefer="respond-async, wait=1"),
            gateway.submit(about(2), prefer="wait=3600"),
            gateway.submit(about(3), prefer="wait=soon"),
        )

    assert sorted(line["budget_s"] for line in gateway.records()) == [1.0, 2.0, 2.0]
    assert {line["code"] for line in gateway.records()} == {"answer_pending"}


async def test_where_nothing_is_kept_the_caller_is_told_that_the_transaction_may_exist(
    redis_url: str, policies: Write
) -> None:
    async def silent(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    files = {"callers": CALLERS, "all": "match: {operations: ['*']}\n"}
    async with (
        ScriptedUpstream(answer=silent) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=policies(**files))) as gateway,
    ):
        response = await gateway.submit(prefer="wait=1")

    problem = await response.json()
    assert (problem["code"], problem["retry_safe"]) == ("deadline_exceeded", False)
    assert gateway.records()[0]["timed_out_by"] == "gateway"


async def test_a_follower_that_waits_is_seen_and_its_wait_is_not_our_own_time(redis_url: str) -> None:
    release = asyncio.Event()

    async with (
        ScriptedUpstream(answer=once(release, ELIGIBLE)) as upstream,
        run_gateway(environment(upstream.url, redis_url), speed=1000.0) as gateway,
    ):
        asking = [asyncio.create_task(gateway.submit()) for _ in range(3)]

        async def follow() -> bool:
            text = await gateway.metrics()
            return (
                total(text, 'requests_in_flight{role="follow"') == 2
                and total(text, 'requests_in_flight{role="lead"') == 1
            )

        await eventually(follow)
        release.set()
        await asyncio.gather(*asking)
        metrics = await gateway.metrics()

    followed = [line for line in gateway.records() if line["dedup"] == "follow"]
    assert len(followed) == 2
    assert all(0 < line["follow_s"] <= line["duration_s"] for line in followed)
    assert all(line["own_s"] < line["duration_s"] for line in gateway.records())
    assert total(metrics, "dedup_follow_duration_seconds_count") == 2
    assert total(metrics, "requests_in_flight") == 0
