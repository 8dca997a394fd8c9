"""One question, one call: what callers see of it, with a real upstream, a real Valkey and real sockets."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.simulator import Options, Simulator
from tests.e2e.conftest import BODY, Running, about, environment, run_gateway, stored_under
from tests.running import eventually
from tests.scripted import Request, ScriptedUpstream, reply

FACT = {"id": "t-1", "sourceType": "new", "correlationId": "leader", "status": {"value": "eligible"}, "n": 1.50}


def policy(**dedup: str) -> str:
    fields = {"mode": "enforce", "window": "1h", "exclude_prior_month": "false"} | dedup
    clause = ", ".join(f"{name}: {value}" for name, value in fields.items())
    return f"match: {{operations: ['*']}}\ndedup: {{{clause}}}\n"


NORTH, SOUTH = ({"x_optum_subtenant_id": name} for name in ("north", "south"))
ANYBODY = "callers: {anonymous: {subtenant_choices: [north, south]}}\n"


def held(release: asyncio.Event, raw: bytes | None = None) -> Callable[..., Any]:
    """An upstream's answer that waits."""

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(raw if raw is not None else reply(body=json.dumps(FACT).encode()))

    return answer


async def followers(gateway: Running, count: int) -> None:
    wanted = f"eligibility_gateway_dedup_followers_waiting {count}.0"

    async def are_waiting() -> bool:
        return wanted in await gateway.metrics()

    await eventually(are_waiting)


async def test_whoever_asks_at_the_same_time_gets_the_leaders_answer_under_an_own_id(redis_url: str) -> None:
    release = asyncio.Event()
    async with (
        ScriptedUpstream(answer=held(release)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        asked = [
            asyncio.create_task(gateway.submit(BODY | {"controlNumber": f"{i:09d}"}, x_optum_correlation_id=f"c{i}"))
            for i in range(20)
        ]
        await followers(gateway, 19)
        release.set()
        replies = [await one for one in asked]
        documents = [await one.json() for one in replies]

    assert len(upstream.requests) == 1
    assert [document["correlationId"] for document in documents[1:]] == [f"c{i}" for i in range(1, 20)]
    assert [one.headers["x-optum-correlation-id"] for one in replies] == [f"c{i}" for i in range(20)]
    first, *others = (one.headers["Cache-Status"] for one in replies)
    assert first.startswith("eligibility-gateway; fwd=miss; stored; ttl=")
    assert set(others) == {"eligibility-gateway; fwd=miss; collapsed"}
    assert {(document["sourceType"], document["sourceId"]) for document in documents[1:]} == {("duplicate", "t-1")}


async def test_a_replay_is_the_answer_byte_for_byte_but_for_what_it_says_of_itself(redis_url: str) -> None:
    body = (
        b'{ "n": 1.50, "id" : "t-1","status":{"value":"eligible"}, "sourceType":"new",\n'
        b' "correlationId":"x", "e":"\\u00e9"}'
    )
    headers = (
        "Content-Type: application/json",
        'link: </coverage-discovery/7>; rel="related"',
        "x-optum-trace-id: tr-1",
    )
    async with (
        ScriptedUpstream(raw=reply(body=body, headers=(*headers, "x-private: leader-only"))) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        first = await gateway.submit(x_optum_correlation_id="one")
        again = await gateway.submit(x_optum_correlation_id="two")
        text = await again.read()

    assert await first.read() == body
    assert text == (
        b'{"sourceId":"t-1", "n": 1.50, "id" : "t-1","status":{"value":"eligible"}, "sourceType":"duplicate",\n'
        b' "correlationId":"two", "e":"\\u00e9"}'
    )
    assert again.headers["Cache-Status"].startswith("eligibility-gateway; hit; ttl=")
    assert again.headers["Age"] == "0"
    assert again.headers["link"] == '</coverage-discovery/7>; rel="related"'
    assert again.headers["x-optum-trace-id"] == "tr-1"
    assert again.headers["x-optum-correlation-id"] == "two"
    assert "x-private" not in again.headers
    assert len(upstream.requests) == 1


NO_FACTS = [
    reply(body=json.dumps(FACT | {"status": {"value": "payer_unavailable"}}).encode()),
    reply(body=json.dumps(FACT | {"status": {"value": "processing_error"}}).encode()),
    reply(body=json.dumps(FACT | {"status": {}}).encode()),
    reply(body=b'{"status": {"value": "eligible"}}'),
    reply(body=b'{"id": "t", "status": {"value": "eligible"}, "id": "u"}'),
    reply(body=b"not json"),
    reply("422 Unprocessable Content", b'["no"]'),
    reply("500 Internal Server Error", b"[]"),
    reply("204 No Content", b""),
    reply("201 Created", json.dumps(FACT).encode()),
    reply(body=json.dumps(FACT).encode(), headers=("Content-Type: text/plain",)),
    reply(
        body=gzip.compress(json.dumps(FACT).encode()),
        headers=("Content-Type: application/json", "Content-Encoding: gzip"),
    ),
]


@pytest.mark.parametrize("raw", NO_FACTS, ids=range(len(NO_FACTS)))
async def test_what_is_no_fact_is_shared_with_those_who_wait_and_with_nobody_later(raw: bytes, redis_url: str) -> None:
    release = asyncio.Event()
    async with (
        ScriptedUpstream(answer=held(release, raw)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        asked = [asyncio.create_task(gateway.submit(x_optum_correlation_id="same")) for _ in range(3)]
        await followers(gateway, 2)
        release.set()
        replies = [await one for one in asked]
        later = await gateway.submit()
        bodies = [await one.read() for one in replies]

    assert bodies[1] == bodies[2]
    assert {one.status for one in (*replies, later)} == {int(raw[9:12])}
    assert later.headers["Cache-Status"] == "eligibility-gateway; fwd=miss"
    assert len(upstream.requests) == 2


async def test_an_upstream_that_breaks_is_not_asked_by_all_who_wait(redis_url: str, lookless: str) -> None:
    release = asyncio.Event()

    async def broken(_: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.transport.abort()

    async with (
        ScriptedUpstream(answer=broken) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=lookless)) as gateway,
    ):
        asked = [asyncio.create_task(gateway.submit(x_optum_correlation_id=f"c{i}")) for i in range(5)]
        await followers(gateway, 4)
        release.set()
        replies = [await one for one in asked]
        problems = [await one.json() for one in replies]

    assert len(upstream.requests) == 1
    assert [(one.status, problem["code"]) for one, problem in zip(replies, problems, strict=True)] == [
        (502, "upstream_broken")
    ] * 5
    assert [problem["correlation_id"] for problem in problems] == [f"c{i}" for i in range(5)]
    assert [problem.get("upstream_correlation_id") for problem in problems] == [None, *["c0"] * 4]


async def test_the_leaders_caller_leaves_and_the_answer_stays(redis_url: str) -> None:
    release = asyncio.Event()
    async with (
        ScriptedUpstream(answer=held(release)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        leader = asyncio.create_task(gateway.submit())

        await upstream.is_asked()
        follower = asyncio.create_task(gateway.submit())
        await followers(gateway, 1)
        leader.cancel()
        release.set()
        assert (await follower).status == 200
        assert (await gateway.submit()).headers["Cache-Status"].startswith("eligibility-gateway; hit;")

    assert len(upstream.requests) == 1


async def test_a_followers_time_ends_and_the_flight_goes_on(redis_url: str, policies: Callable[..., str]) -> None:
    release = asyncio.Event()
    directory = policies(callers=ANYBODY, p=policy())
    async with (
        ScriptedUpstream(answer=held(release)) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as one,
    ):
        leader = asyncio.create_task(one.submit())

        await upstream.is_asked()
        policies(p=policy() + "timeout: {connect: 100ms, answer: 200ms}\n")
        async with run_gateway(environment(upstream.url, redis_url, policies=directory)) as other:
            late = await other.submit()
            assert (late.status, (await late.json())["code"]) == (504, "answer_pending")
            release.set()
            assert (await leader).status == 200
            again = await other.submit()
            assert (again.status, (await again.json())["sourceId"]) == (200, "t-1")

    assert len(upstream.requests) == 1


async def test_subtenants_share_nothing(redis_url: str, policies: Callable[..., str]) -> None:
    directory = policies(callers=ANYBODY, p=policy())
    raw = reply(body=json.dumps(FACT).encode())
    async with (
        ScriptedUpstream(raw=raw) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        statuses = [
            (await gateway.submit(**on_behalf)).headers["Cache-Status"].split(";")[1].strip()
            for on_behalf in (NORTH, SOUTH, NORTH, {}, SOUTH)
        ]

    assert statuses == ["fwd=miss", "fwd=miss", "hit", "fwd=miss", "hit"]
    assert len(upstream.requests) == 3


async def test_an_answer_is_never_compressed_for_one_and_unreadable_for_the_rest(redis_url: str) -> None:
    raw = reply(body=json.dumps(FACT).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit(accept_encoding="gzip, br")

    assert upstream.requests[0].values("accept-encoding") == ["identity"]


async def test_shadow_forwards_all_and_counts_what_a_replay_would_have_got_wrong(
    redis_url: str, policies: Callable[..., str]
) -> None:
    answers = iter(
        [
            FACT,
            FACT | {"id": "t-2", "processedDate": "later"},
            FACT | {"n": 2},
            FACT | {"status": {"value": "ineligible"}},
            FACT | {"status": {}},
        ]
    )

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=json.dumps(next(answers)).encode()))

    directory = policies(callers=ANYBODY, p=policy(mode="shadow"))
    async with (
        ScriptedUpstream(answer=answer) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        replies = [await gateway.submit() for _ in range(5)]
        metrics = await gateway.metrics()

    assert len(upstream.requests) == 5
    assert [(await one.json())["id"] for one in replies] == ["t-1", "t-2", "t-1", "t-1", "t-1"]
    for difference in ("none", "details", "outcome", "no_answer"):
        labels = f'{{difference="{difference}",outcome="eligible"}}'
        assert f"eligibility_gateway_dedup_shadow_replays_total{labels} 1.0" in metrics
    assert "eligibility_gateway_dedup_calls_avoided_total{" not in metrics


async def test_a_zero_window_shares_in_flight_and_replays_nothing(redis_url: str, policies: Callable[..., str]) -> None:
    release = asyncio.Event()
    directory = policies(callers=ANYBODY, p=policy(window="0s"))
    async with (
        ScriptedUpstream(answer=held(release)) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        asked = [asyncio.create_task(gateway.submit()) for _ in range(3)]
        await followers(gateway, 2)
        release.set()
        for one in asked:
            assert (await one).status == 200
        await gateway.submit()

    assert len(upstream.requests) == 2


async def test_an_answer_that_is_too_large_is_each_ones_own(redis_url: str) -> None:
    release = asyncio.Event()
    raw = reply(body=json.dumps(FACT | {"x": "y" * 5_000_000}).encode())
    async with (
        ScriptedUpstream(answer=held(release, raw)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        asked = [asyncio.create_task(gateway.submit()) for _ in range(3)]
        await followers(gateway, 2)
        release.set()
        replies = [await one for one in asked]
        sizes = {len(await one.read()) for one in replies}

    assert sizes == {len(raw.partition(b"\r\n\r\n")[2])}
    assert [one.headers["Cache-Status"] for one in replies[1:]] == [
        "eligibility-gateway; fwd=bypass; detail=too_large"
    ] * 2
    assert len(upstream.requests) == 3


async def test_the_metrics_tell_the_two_layers_apart(redis: Redis, redis_url: str) -> None:
    async with (
        Simulator(Options(speed=60.0, deduplicate=True)) as simulator,
        run_gateway(environment(simulator.url, redis_url)) as gateway,
    ):
        for _ in range(3):
            await gateway.submit()
        await gateway.submit(x_optum_correlation_id="other")
        await redis.flushall()  # what we forget, the upstream still knows
        assert (await (await gateway.submit()).json())["sourceType"] == "duplicate"
        metrics = await gateway.metrics()

    operation = 'operation="submit_eligibility"'
    assert f'eligibility_gateway_dedup_calls_avoided_total{{{operation},by="replay"}} 3.0' in metrics
    assert f'eligibility_gateway_dedup_calls_avoided_total{{{operation},by="upstream"}} 1.0' in metrics
    assert "eligibility_gateway_dedup_stored_answers_total 2.0" in metrics
    assert "eligibility_gateway_dedup_replay_age_seconds_count 3.0" in metrics
    records = gateway.records()
    assert [record["dedup"] for record in records] == ["lead", "replay", "replay", "replay", "lead"]


async def test_nothing_in_redis_can_be_read_and_every_key_expires(redis: Redis, redis_url: str) -> None:
    raw = reply(body=json.dumps(FACT | {"name": "CANARYNAME"}).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit(about("CANARYMEMBER"))
        keys = [key async for key in redis.scan_iter()]
        for key in keys:
            assert await redis.pttl(key) > 0
            content = await stored_under(redis, key)
            assert b"CANARY" not in key + content
            assert b"eligible" not in content
    assert len(keys) == 3  # the token, the flight, and that its correlation id was used


async def test_a_large_answer_is_replayed_whole_and_framed_by_its_length(redis_url: str) -> None:
    text = "271~" * 75_000
    raw = reply(body=json.dumps(FACT | {"x12-271": text}).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for status in ("fwd=miss", "hit"):
            got = await gateway.submit()
            assert got.headers["Cache-Status"].startswith(f"eligibility-gateway; {status}")
            assert int(got.headers["Content-Length"]) == len(await got.read())
            assert (await got.json())["x12-271"] == text
    assert len(upstream.requests) == 1
