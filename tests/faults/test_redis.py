"""What happens to Redis under a gateway that serves: callers get the upstream's answer, and never another's."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import Running, about, run_gateway
from tests.faults.conftest import environment
from tests.running import eventually
from tests.scripted import Request, ScriptedUpstream

MEMBERS = 5


async def by_member(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer each with its own member's id, so that a mix-up is seen."""
    member = json.loads(request.body)["subscriber"]["memberId"]
    fact = {"id": f"t-{member}", "status": {"value": "eligible"}, "member": member}
    body = json.dumps(fact).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
async def hurt(own_valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(answer=by_member) as one:
        yield one


@pytest.fixture
async def gateway(own_valkey: EmbeddedValkey, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    async with run_gateway(environment(upstream.url, own_valkey.url), drain_s=0) as one:
        yield one


async def everybody_is_served(gateway: Running) -> list[str]:
    """Ask for each member several times at once; return what became of the requests."""
    members = [number % MEMBERS for number in range(4 * MEMBERS)]
    replies = await asyncio.gather(*(gateway.submit(about(member)) for member in members))
    assert [reply.status for reply in replies] == [200] * len(members)
    documents: list[dict[str, Any]] = [await reply.json() for reply in replies]
    assert [document["member"] for document in documents] == [f"TESTMEMBER-{member}" for member in members]
    return [reply.headers["Cache-Status"] for reply in replies]


async def forget_all(client: Redis) -> None:
    await client.flushall()


async def forget_scripts(client: Redis) -> None:
    await client.script_flush()


async def fill(client: Redis) -> None:
    await client.config_set("maxmemory", 1)


async def make_read_only(client: Redis) -> None:
    await client.replicaof("127.0.0.1", 1)


async def forbid(client: Any) -> None:  # noqa: ANN401 - redis-py types a part
    await client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")


async def forbid_messages(client: Any) -> None:  # noqa: ANN401 - the same
    await client.execute_command("ACL", "SETUSER", "default", "-publish")


async def end_messages(client: Redis) -> None:
    await client.client_kill_filter(_type="pubsub")


async def end_connections(client: Redis) -> None:
    await client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize(
    "harm",
    [forget_all, forget_scripts, fill, make_read_only, forbid, forbid_messages, end_messages, end_connections],
)
async def test_whatever_redis_refuses_everybody_is_served(
    harm: Callable[[Redis], Awaitable[None]], gateway: Running, hurt: Redis, upstream: ScriptedUpstream
) -> None:
    await everybody_is_served(gateway)
    before = len(upstream.requests)
    assert before == MEMBERS
    await harm(hurt)
    for _ in range(2):
        await everybody_is_served(gateway)
    # Within the process calls are shared all the same: in each round one for each question at most.
    assert len(upstream.requests) - before <= 2 * MEMBERS


async def test_a_server_that_is_killed_costs_one_call_for_each_question_and_round(
    gateway: Running, own_valkey: EmbeddedValkey, upstream: ScriptedUpstream
) -> None:
    await everybody_is_served(gateway)
    os.kill(own_valkey.pid, signal.SIGKILL)
    for _ in range(3):
        statuses = await everybody_is_served(gateway)
    assert "eligibility-gateway; fwd=bypass; detail=store_unavailable" in statuses
    assert len(upstream.requests) <= 4 * MEMBERS


async def test_a_frozen_server_is_left_alone_until_it_answers_again(
    gateway: Running, own_valkey: EmbeddedValkey
) -> None:
    await everybody_is_served(gateway)
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:

        async def is_left_alone() -> bool:
            before = gateway.records()
            await gateway.submit(about("TESTMEMBER-frozen"))
            (record,) = gateway.records()[len(before) :]
            return bool(record["dedup_reason"] == "store_unavailable" and record["duration_s"] < 0.2)

        await eventually(is_left_alone)
        metrics = await gateway.metrics()
        assert 'redis_errors_total{reason="timeout"}' in metrics
        assert "eligibility_gateway_redis_breakers_open 0.0" not in metrics
        assert events(gateway)[0] == "redis is left alone"
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)

    async def is_used_again() -> bool:
        return "hit" in (await gateway.submit(about("TESTMEMBER-later"))).headers["Cache-Status"]

    await eventually(is_used_again, 30)

    async def is_all_well() -> bool:  # the other line finds out with the next answer that is stored
        await gateway.submit(about(f"TESTMEMBER-{len(gateway.records())}"))
        return "eligibility_gateway_redis_breakers_open 0.0" in await gateway.metrics()

    await eventually(is_all_well, 30)
    assert events(gateway)[-1] == "redis is back"


def events(gateway: Running) -> list[str]:
    """What the log says of Redis."""
    lines = [json.loads(line) for line in gateway.output.getvalue().splitlines()]
    return [line["event"] for line in lines if line["event"].startswith("redis")]


async def test_an_answer_that_redis_would_not_take_is_kept_when_it_does(
    gateway: Running, hurt: Redis, upstream: ScriptedUpstream
) -> None:
    await everybody_is_served(gateway)
    await hurt.config_set("maxmemory", 1)
    await gateway.submit(about("kept"))
    await hurt.config_set("maxmemory", 0)

    async def is_kept() -> bool:
        async with gateway.session.get(f"{gateway.admin_url}/metrics") as response:
            return f"eligibility_gateway_dedup_stored_answers_total {MEMBERS + 1}.0" in await response.text()

    await eventually(is_kept, 30)
    before = len(upstream.requests)
    assert "hit" in (await gateway.submit(about("kept"))).headers["Cache-Status"]
    assert len(upstream.requests) == before


async def test_values_that_were_swapped_or_spoiled_are_never_anybodys_answer(gateway: Running, hurt: Redis) -> None:
    await everybody_is_served(gateway)
    keys = [key async for key in hurt.scan_iter("eg:flight:*")]
    values: list[Any] = [await hurt.hget(key, "val") for key in keys]
    for key, value in zip(keys, values[1:] + values[:1], strict=True):
        await hurt.hset(key, "val", value)
    statuses = await everybody_is_served(gateway)
    assert sum("stored" in status for status in statuses) == MEMBERS
    assert f"eligibility_gateway_dedup_unusable_values_total {MEMBERS}.0" in await gateway.metrics()


async def test_a_policy_may_refuse_instead(
    own_valkey: EmbeddedValkey, upstream: ScriptedUpstream, policies: Callable[..., str]
) -> None:
    directory = policies(
        callers="callers: {anonymous: {}}\n",
        p="match: {operations: ['*']}\ndedup: {mode: enforce, window: 1h, store_unavailable: reject}\n",
    )
    async with run_gateway(environment(upstream.url, own_valkey.url, policies=directory)) as gateway:
        await gateway.submit()
        os.kill(own_valkey.pid, signal.SIGKILL)
        reply = await gateway.submit()
        assert (reply.status, (await reply.json())["code"]) == (503, "dedup_unavailable")
        assert reply.headers["Retry-After"] == "1"
    assert len(upstream.requests) == 1


async def test_followers_elsewhere_are_served_though_no_message_arrives(
    own_valkey: EmbeddedValkey, hurt: Redis
) -> None:
    release = asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await by_member(request, writer)

    async with (
        ScriptedUpstream(answer=slowly) as upstream,
        run_gateway(environment(upstream.url, own_valkey.url)) as one,
        run_gateway(environment(upstream.url, own_valkey.url)) as two,
    ):
        led = asyncio.create_task(one.submit(about(1)))

        await upstream.is_asked()
        follows = asyncio.create_task(two.submit(about(1)))
        await forbid_messages(hurt)
        release.set()
        assert (await led).status == 200
        assert (await follows).headers["Cache-Status"] == "eligibility-gateway; fwd=miss; collapsed"
    assert len(upstream.requests) == 1
