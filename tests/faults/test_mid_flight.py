"""What happens to Redis while a flight is under way and another replica waits for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.dedup.store import CHANNEL
from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import Running, about, run_gateway
from tests.faults.conftest import Answering, environment, metric, settled
from tests.faults.proxy import Proxy
from tests.running import eventually
from tests.scripted import reply

FOLLOWERS = 5


@pytest.fixture
async def hurt(own_valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_valkey.url) as client:
        yield client


async def the_flight(client: Redis) -> Any:  # noqa: ANN401 - redis-py types a part
    (key,) = [key async for key in client.scan_iter("eg:flight:*")]
    return key


async def forget_scripts(client: Redis) -> None:
    await client.script_flush()


async def end_connections(client: Redis) -> None:
    await client.client_kill_filter(_type="normal", skipme=True)
    await client.client_kill_filter(_type="pubsub")


async def end_messages(client: Redis) -> None:
    await client.client_kill_filter(_type="pubsub")


async def forget_all(client: Redis) -> None:
    await client.flushall()


async def spoil_the_flight(client: Redis) -> None:
    await client.hset(await the_flight(client), mapping={"try": "no", "dl": "no"})


async def ask(gateway: Running, member: object, status: int = 200) -> str:
    answered = await gateway.submit(about(member))
    assert answered.status == status
    if status == 200:
        assert (await answered.json())["member"] == f"TESTMEMBER-{member}"
    return answered.headers["Cache-Status"]


async def follows(gateway: Running, member: object, status: int = 200) -> "list[asyncio.Task[str]]":
    """Ask a replica several times; return when all wait for an answer from elsewhere."""
    tasks = [asyncio.create_task(ask(gateway, member, status)) for _ in range(FOLLOWERS)]

    async def wait() -> bool:
        waiting = await metric(gateway, "dedup_followers_waiting")
        return (waiting, await metric(gateway, "dedup_flights")) == (FOLLOWERS - 1, 1)

    await eventually(wait)
    return tasks


@pytest.mark.parametrize(
    ("harm", "calls"),
    [
        (forget_scripts, 1),
        (end_connections, 1),
        (end_messages, 1),
        (forget_all, 2),
        (spoil_the_flight, 2),
    ],
)
async def test_whatever_happens_meanwhile_those_who_wait_elsewhere_are_served(
    harm: Callable[[Redis], Awaitable[None]], calls: int, own_valkey: EmbeddedValkey, hurt: Redis
) -> None:
    held = Answering(is_held=True)
    async with (
        held.upstream as upstream,
        run_gateway(environment(upstream.url, own_valkey.url)) as one,
        run_gateway(environment(upstream.url, own_valkey.url)) as two,
    ):
        led = asyncio.create_task(ask(one, 1))
        await upstream.is_asked()
        waiting = await follows(two, 1)
        await harm(hurt)
        held.release.set()
        assert (await led).startswith("eligibility-gateway; fwd=miss")
        await asyncio.gather(*waiting)
        await settled(one, two)
        assert held.calls["TESTMEMBER-1"] <= calls


async def test_a_message_that_never_arrives_is_missed_by_nobody(own_valkey: EmbeddedValkey) -> None:
    """The subscription stays open and says nothing more: whoever waits looks for himself."""
    held = Answering(is_held=True)
    async with Proxy(own_valkey.url) as proxy:
        silenced = proxy.lose(CHANNEL, "silent")  # named first by the subscription, before any flight ends
        async with (
            held.upstream as upstream,
            run_gateway(environment(upstream.url, proxy.url)) as deaf,
            run_gateway(environment(upstream.url, own_valkey.url)) as one,
        ):
            await silenced.wait()
            led = asyncio.create_task(ask(one, 1))
            await upstream.is_asked()
            waiting = await follows(deaf, 1)
            held.release.set()
            assert (await led).startswith("eligibility-gateway; fwd=miss; stored")
            assert set(await asyncio.gather(*waiting)) == {"eligibility-gateway; fwd=miss; collapsed"}
    assert held.calls == {"TESTMEMBER-1": 1}


async def spoil_a_bit(client: Redis, key: Any, field: str) -> None:  # noqa: ANN401 - redis-py types a part
    value: Any = await client.hget(key, field)
    await client.hset(key, field, value[:-1] + bytes([value[-1] ^ 1]))


async def cut_short(client: Redis, key: Any, field: str) -> None:  # noqa: ANN401 - the same
    value: Any = await client.hget(key, field)
    await client.hset(key, field, value[: len(value) // 2])


async def empty(client: Redis, key: Any, field: str) -> None:  # noqa: ANN401 - the same
    await client.hset(key, field, "")


async def scribble(client: Redis, key: Any, field: str) -> None:  # noqa: ANN401 - the same
    await client.hset(key, field, "{}")


Tamper = Callable[[Redis, Any, str], Awaitable[None]]
tampers = pytest.mark.parametrize("tamper", [spoil_a_bit, cut_short, empty, scribble])


@tampers
async def test_an_answer_that_was_tampered_with_is_a_miss(
    tamper: Tamper, own_valkey: EmbeddedValkey, hurt: Redis
) -> None:
    answering = Answering()
    async with (
        answering.upstream as upstream,
        run_gateway(environment(upstream.url, own_valkey.url)) as gateway,
    ):
        await ask(gateway, 1)
        await tamper(hurt, await the_flight(hurt), "val")
        assert (await ask(gateway, 1)).startswith("eligibility-gateway; fwd=miss; stored")
        assert (await ask(gateway, 1)).startswith("eligibility-gateway; hit;")
        assert await metric(gateway, "dedup_unusable_values_total") == 1


@tampers
async def test_a_landing_that_was_tampered_with_is_asked_for_again(
    tamper: Tamper, own_valkey: EmbeddedValkey, hurt: Redis
) -> None:
    """Whoever waits elsewhere is kept from looking until it is spoiled."""
    held = Answering(is_held=True)
    held.raw = reply("500 Internal Server Error", b"[]")
    async with (
        held.upstream as upstream,
        Proxy(own_valkey.url) as proxy,
        run_gateway(environment(upstream.url, own_valkey.url)) as one,
        run_gateway(environment(upstream.url, proxy.url)) as two,
    ):
        led = asyncio.create_task(ask(one, 1, 500))
        await upstream.is_asked()
        waiting = await follows(two, 1, 500)
        proxy.stop()
        held.release.set()
        await led
        await tamper(hurt, await the_flight(hurt), "sval")
        proxy.resume()
        await asyncio.gather(*waiting)
        assert await metric(two, "dedup_unusable_values_total") == 1
    assert held.calls == {"TESTMEMBER-1": 2}
