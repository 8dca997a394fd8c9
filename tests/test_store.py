"""The connection to Redis: one pipeline a tick, bounded whatever the server does, and never another's answer."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from gateway.connect import TIMEOUT_S, StoreUrlError, connect
from gateway.embedded import EmbeddedValkey
from gateway.store import Script, Store, StoreUnavailable

ECHO = Script.of("return ARGV[1]")
ADD = Script.of("return redis.call('INCRBY', KEYS[1], ARGV[1])")
BROKEN = Script.of("return redis.call('LPUSH', KEYS[1], 'x')")


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
async def store(redis_url: str, errors: list[str]) -> AsyncIterator[Store]:
    store = Store(connect(redis_url, 30), on_error=errors.append, answer_s=30)  # time is other tests' matter
    yield store
    await store.close()


async def test_what_is_asked_for_in_one_tick_travels_as_one_pipeline(store: Store, redis: Redis) -> None:
    await store.run(ECHO, b"k", "warm")
    before = await redis.info("stats")
    answers = await asyncio.gather(*(store.run(ADD, b"k", 1) for _ in range(100)))
    after = await redis.info("stats")
    assert answers == list(range(1, 101))
    # The commands of a pipeline arrive in few reads; one by one they would be a hundred and more.
    reads = after["total_reads_processed"] - before["total_reads_processed"]
    assert reads < 20


async def test_a_script_that_the_server_forgot_is_sent_again(store: Store, redis: Redis, errors: list[str]) -> None:
    assert await store.run(ECHO, b"k", "a") == b"a"
    await redis.script_flush()
    assert await asyncio.gather(*(store.run(ECHO, b"k", str(i)) for i in range(5))) == [b"0", b"1", b"2", b"3", b"4"]
    assert errors == []


async def test_one_command_that_fails_takes_no_other_with_it(store: Store, redis: Redis, errors: list[str]) -> None:
    await redis.set("text", "x")
    calls = (store.run(ECHO, b"k", "a"), store.run(BROKEN, b"text"), store.run(ECHO, b"k", "b"))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert (answers[0], answers[2]) == (b"a", b"b")
    assert isinstance(answers[1], StoreUnavailable)
    assert errors == ["answer"]


async def test_a_frozen_server_costs_a_bounded_wait_and_is_used_again_when_it_thaws(
    own_valkey: EmbeddedValkey,
    errors: list[str],
) -> None:
    store = Store(connect(own_valkey.url), on_error=errors.append)
    assert await store.run(ECHO, b"k", "a") == b"a"
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20 * TIMEOUT_S):
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="timeout"):
                    await store.run(ECHO, b"k", "b")
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert errors == ["timeout"] * 3
    assert await again(store) == b"c"
    await store.close()


async def again(store: Store) -> object:
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.run(ECHO, b"k", "c")
            except StoreUnavailable:
                await asyncio.sleep(0.01)


async def test_a_server_that_is_killed_is_unavailable_at_once(own_valkey: EmbeddedValkey, errors: list[str]) -> None:
    store = Store(connect(own_valkey.url), on_error=errors.append)
    assert await store.run(ECHO, b"k", "a") == b"a"
    own_valkey.stop()
    with pytest.raises(StoreUnavailable):
        await store.run(ECHO, b"k", "b")
    with pytest.raises(StoreUnavailable):
        await store.ping()
    assert set(errors) == {"connection"}
    await store.close()


async def test_a_full_and_a_read_only_server_are_told_apart(own_valkey: EmbeddedValkey, errors: list[str]) -> None:
    store = Store(connect(own_valkey.url, 30), on_error=errors.append, answer_s=30)
    client = Redis.from_url(own_valkey.url)
    await client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.run(ADD, b"k", 1)
    await client.config_set("maxmemory", "0")
    await client.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable, match="read_only"):
        await store.run(ADD, b"k", 1)
    await client.aclose()
    await store.close()
    assert errors == ["full", "read_only"]


async def test_whoever_leaves_leaves_no_answer_for_another(store: Store) -> None:
    """Redis-py once gave the answer of a cancelled command to the next who asked on that connection."""
    chance = random.Random(7)  # noqa: S311 - any will do

    async def ask(number: int) -> None:
        wanted = f"answer-{number}"
        task = asyncio.ensure_future(store.run(ECHO, b"k", wanted))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() / 500)
            task.cancel()
        with suppress(asyncio.CancelledError):
            assert await task == wanted.encode()

    for start in range(0, 3000, 300):
        await asyncio.gather(*(ask(number) for number in range(start, start + 300)))


async def test_a_closed_store_answers_whoever_still_waits(own_valkey: EmbeddedValkey, errors: list[str]) -> None:
    store = Store(connect(own_valkey.url), on_error=errors.append)
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        waiting = asyncio.ensure_future(store.run(ECHO, b"k", "a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await waiting
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:pass@host:6380/2",
        "rediss://host",
        "unix:///tmp/socket",
        "redis+sentinel://:pass@one:26379,two/mymaster/1",
        "redis+cluster://one:7000",
    ],
)
async def test_every_promised_scheme_gives_a_client(url: str) -> None:
    await connect(url).aclose()


@pytest.mark.parametrize("url", ["http://host", "redis+sentinel://host", "redis://host:port", "", "redis://host/x y"])
def test_any_other_url_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(StoreUrlError) as caught:
        connect(url.replace("://", "://user:hunter2@"))
    assert "hunter2" not in str(caught.value)
    assert "expected" in str(caught.value)
