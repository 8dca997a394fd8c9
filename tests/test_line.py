"""One line to one server: each answer has its place, and what was cut is sent once more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from gateway.connect import connect
from gateway.embedded import EmbeddedValkey
from gateway.line import CONNECT_S
from gateway.store import Script, Store, StoreUnavailable

ADD = Script.of("return redis.call('INCRBY', KEYS[1], ARGV[1])")
ECHO = Script.of("return ARGV[1]")
_GREETING = b"%1\r\n$5\r\nproto\r\n:3\r\n"
Say = Callable[[bytes], None]
PATIENT_S = 30.0  # where the time is not what is tested


@asynccontextmanager
async def speaking(answer: Callable[[bytes, Say], None], greets_after_s: float = 0) -> AsyncIterator[str]:
    """A server that greets as Redis does, and then says what it is told to; yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if b"HELLO" in data:
                await asyncio.sleep(greets_after_s)
                writer.write(_GREETING)
            elif b"CLIENT" in data:
                writer.write(b"+OK\r\n" * data.count(b"CLIENT"))
            else:
                answer(data, writer.write)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def errors() -> list[str]:
    return []


async def test_what_was_under_way_when_the_connection_was_cut_is_answered_on_the_next(
    own_valkey: EmbeddedValkey,
    errors: list[str],
) -> None:
    store = Store(connect(own_valkey.url, PATIENT_S), on_error=errors.append, answer_s=PATIENT_S)
    async with Redis.from_url(own_valkey.url) as control:
        assert await store.run(ADD, b"k", 1) == 1
        await control.client_pause(10_000, all=False)
        answers = [asyncio.ensure_future(store.run(ADD, b"k", 1)) for _ in range(3)]
        await asyncio.sleep(0)
        await control.client_kill_filter(_type="normal", skipme=True)
        await control.client_unpause()
        assert await asyncio.gather(*answers) == [2, 3, 4]
    assert errors == []
    await store.close()


async def test_a_connection_that_is_cut_again_and_again_is_given_up(errors: list[str]) -> None:
    async with speaking(lambda _, say: say(b"+")) as url:  # never whole, and then the end
        store = Store(connect(url), on_error=errors.append)
        with pytest.raises(StoreUnavailable, match="timeout"):
            await store.run(ECHO, b"k", "a")
        await store.close()
    assert errors == ["timeout"]


async def test_an_answer_that_comes_too_late_is_nobodys(errors: list[str]) -> None:
    kept: list[Say] = []

    def late(_: bytes, say: Say) -> None:
        kept.append(say)
        if len(kept) > 1:
            kept[0](b"$5\r\nfirst\r\n")  # on the connection that was given up
            say(b"$6\r\nsecond\r\n")

    async with speaking(late) as url:
        store = Store(connect(url), on_error=errors.append)
        with pytest.raises(StoreUnavailable, match="timeout"):
            await store.run(ECHO, b"k", "a")
        assert await store.run(ECHO, b"k", "b") == b"second"
        await store.close()
    assert errors == ["timeout"]


@pytest.mark.parametrize("noise", [b":1\r\n:2\r\n", b"no Redis at all\r\n"])
async def test_a_server_that_says_more_than_it_was_asked_is_not_believed_again(noise: bytes, errors: list[str]) -> None:
    connections: set[Say] = set()

    def chatty(_: bytes, say: Say) -> None:
        connections.add(say)
        say(noise if len(connections) == 1 else b":3\r\n")

    async with speaking(chatty) as url:
        store = Store(connect(url, PATIENT_S), on_error=errors.append, answer_s=PATIENT_S)
        first = await store.run(ECHO, b"k", "a")
        assert first == (1 if noise.startswith(b":1") else 3)
        assert await store.run(ECHO, b"k", "b") == 3
        await store.close()
    assert errors == []
    assert len(connections) == 2


async def test_where_an_answer_may_take_long_so_may_a_greeting(errors: list[str]) -> None:
    async with speaking(lambda _, say: say(b":7\r\n"), greets_after_s=2 * CONNECT_S) as url:
        store = Store(connect(url, PATIENT_S), on_error=errors.append, answer_s=PATIENT_S)
        assert await store.run(ECHO, b"k", "a") == 7
        await store.close()
    assert errors == []


async def test_what_comes_unasked_as_a_push_has_no_place(errors: list[str]) -> None:
    async with speaking(lambda _, say: say(b">2\r\n+invalidate\r\n*0\r\n:7\r\n")) as url:
        store = Store(connect(url, PATIENT_S), on_error=errors.append, answer_s=PATIENT_S)
        assert [await store.run(ECHO, b"k", "a") for _ in range(3)] == [7, 7, 7]
        await store.close()
    assert errors == []


async def test_a_primary_that_became_a_replica_is_left_for_the_next_connection(errors: list[str]) -> None:
    connections: set[Say] = set()

    def demoted(_: bytes, say: Say) -> None:
        connections.add(say)
        say(b"-READONLY You can't write against a read only replica.\r\n" if len(connections) == 1 else b":3\r\n")

    async with speaking(demoted) as url:
        store = Store(connect(url, PATIENT_S), on_error=errors.append, answer_s=PATIENT_S)
        with pytest.raises(StoreUnavailable, match="read_only"):
            await store.run(ECHO, b"k", "a")
        assert await store.run(ECHO, b"k", "b") == 3
        await store.close()
    assert errors == ["read_only"]
