"""Each state of a connection has an end, and nobody's end comes while it is owed an answer."""

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from multidict import CIMultiDict

from gateway.exchange import Exchange, Record, Reply
from gateway.http.ingress import Ingress, Limits, Observers
from gateway.http.sockets import Sockets
from gateway.in_flight import InFlight
from tests.running import eventually

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
NEVER_S = 60.0


@dataclass(slots=True)
class Answering:
    """A pipeline that answers with this body when it may."""

    body: bytes = b"{}"
    may: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    bodies: list[bytes] = field(default_factory=list)

    async def admit(self, _: Exchange, /) -> None:
        self.asked += 1

    async def answer(self, exchange: Exchange, /) -> Reply:
        await self.may.wait()
        self.bodies.append(exchange.inbound.body)
        return Reply(status=200, reason="OK", headers=CIMultiDict(), body=self.body)


@dataclass(slots=True)
class Edge:
    """A server with limits of its own."""

    answering: Answering
    sockets: Sockets
    port: int
    records: list[Record]

    async def open(self, raw: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        return reader, writer

    @asynccontextmanager
    async def deaf(self, raw: bytes) -> AsyncIterator[None]:
        """Send bytes, and read nothing."""
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(0)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", self.port))
            await asyncio.get_running_loop().sock_sendall(one, raw)
            await self.is_asked()
            yield

    async def is_left(self) -> None:
        """Return when nobody is connected."""

        async def nobody() -> bool:
            return self.sockets.callers == 0

        await eventually(nobody)

    async def is_asked(self, times: int = 1) -> None:
        async def so_often() -> bool:
            return self.answering.asked >= times

        await eventually(so_often)

    @property
    def codes(self) -> list[str]:
        return [record.code for record in self.records]


Start = Callable[..., AbstractAsyncContextManager[Edge]]


@pytest.fixture
def edge() -> Start:
    @asynccontextmanager
    async def start(*, body: bytes = b"{}", is_held: bool = False, **limits: float) -> AsyncIterator[Edge]:
        answering, sockets, records = Answering(body), Sockets(100), list[Record]()
        defects: list[BaseException] = []
        ids = itertools.count()
        if not is_held:
            answering.may.set()
        waits = {"body_s": NEVER_S, "head_s": NEVER_S, "idle_s": NEVER_S, "stall_s": NEVER_S} | limits
        observers = Observers(
            now=asyncio.get_running_loop().time,
            new_id=lambda: f"id-{next(ids)}",
            on_record=records.append,
            on_defect=defects.append,
        )
        ingress = Ingress(answering, Limits(body_bytes=10_000, **waits), sockets, InFlight(), observers)
        runner = web.ServerRunner(ingress.server(), shutdown_timeout=0.1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted ones have it as well
        await web.SockSite(runner, listener).start()
        try:
            yield Edge(answering, sockets, listener.getsockname()[1], records)
        finally:
            await runner.cleanup()
        assert defects == []

    return start


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    seen = b""
    with contextlib.suppress(ConnectionError):
        seen = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return seen


def code(seen: bytes) -> str:
    found: str = json.loads(seen[seen.rindex(b"\r\n\r\n") :])["code"]
    return found


async def test_whoever_never_asks_is_closed_without_a_word(edge: Start) -> None:
    async with edge(idle_s=0.1) as one:
        assert await rest(*await one.open(b"")) == b""
        assert one.records == []


async def test_whoever_asks_no_more_is_closed(edge: Start) -> None:
    async with edge(idle_s=0.1) as one:
        seen = await rest(*await one.open(GET))
        assert seen.startswith(b"HTTP/1.1 200 ")
        assert one.codes == [""]


@pytest.mark.parametrize("raw", [b"\r\n", b"G", GET[:-2], GET[:-1], HEAD + b"Content-Length: 1\r\n"])
async def test_half_a_head_is_408_at_its_deadline(edge: Start, raw: bytes) -> None:
    async with edge(head_s=0.1) as one:
        seen = await rest(*await one.open(raw))
        assert (seen[9:12], code(seen), one.codes) == (b"408", "head_too_slow", ["head_too_slow"])
        assert one.answering.asked == 0


async def test_the_deadline_of_a_head_is_not_put_off_by_more_of_it(edge: Start) -> None:
    async with edge(head_s=0.3) as one:
        reader, writer = await one.open(GET[:-2])
        reading = asyncio.create_task(rest(reader, writer))
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                writer.write(b"X: y\r\n")
                await asyncio.wait([reading], timeout=0.05)
        assert one.codes == ["head_too_slow"]


async def test_half_a_head_behind_a_request_does_not_cost_that_one_its_answer(edge: Start) -> None:
    async with edge(is_held=True, head_s=0.1) as one:
        reader, writer = await one.open(GET)
        await one.is_asked()
        writer.write(GET[:-2])
        await asyncio.sleep(0.3)  # far beyond the deadline, which is not counted before the answer
        one.answering.may.set()
        seen = await rest(reader, writer)
        assert seen.startswith(b"HTTP/1.1 200 ")
        assert code(seen) == "head_too_slow"
        assert one.codes == ["", "head_too_slow"]


async def test_a_head_without_end_behind_a_request_does_not_cost_that_one_its_answer(edge: Start) -> None:
    async with edge(is_held=True) as one:
        reader, writer = await one.open(GET)
        await one.is_asked()
        for number in range(6):
            writer.write(
                (f"GET /a HTTP/1.1\r\nX-{number}: " if number == 0 else f"\r\nX-{number}: ").encode() + b"x" * 8000
            )
            await writer.drain()
        await asyncio.sleep(0.1)
        one.answering.may.set()
        seen = await rest(reader, writer)
        assert seen.startswith(b"HTTP/1.1 200 ")
        assert code(seen) == "head_too_large"
        assert one.codes == ["", "head_too_large"]


@pytest.mark.parametrize("nonsense", [b"zz\r\n", b"2\r\n{}xx", b"0\r\nno colon\r\n\r\n", b"0\r\n\x00"])
async def test_a_body_that_becomes_nonsense_is_refused_at_once(edge: Start, nonsense: bytes) -> None:
    async with edge() as one:
        reader, writer = await one.open(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n")
        await one.is_asked()
        writer.write(nonsense)
        assert code(await rest(reader, writer)) == "body_torn"
        assert (one.codes, one.answering.bodies) == (["body_torn"], [])


async def test_a_body_that_becomes_nonsense_behind_a_whole_chunk_is_refused_at_once(edge: Start) -> None:
    async with edge() as one:
        reader, writer = await one.open(CHUNKED[:-2])
        await one.is_asked()
        await asyncio.sleep(0.05)
        writer.write(b"\r\n0\n\n")
        assert code(await rest(reader, writer)) == "body_torn"


async def test_a_body_of_framing_is_too_large(edge: Start) -> None:
    async with edge() as one:
        _, writer = await one.open(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1")
        await one.is_asked()
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                writer.write(b";" + b"a" * 10_000)
                await writer.drain()
        await one.is_left()
        writer.close()
        assert one.codes == ["body_too_large"]


async def test_what_an_answered_request_still_sends_has_an_end(edge: Start) -> None:
    async with edge() as one:
        reader, writer = await one.open(HEAD + b"Content-Length: 10001\r\n\r\n")
        assert b" 413 " in await reader.readline()
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                writer.write(b" " * 100)
                await writer.drain()
        writer.write(b" " * 8001)
        await one.is_left()
        writer.close()
        assert one.codes == ["body_too_large"]


async def test_after_an_upgrade_that_is_ignored_nothing_more_is_read(edge: Start) -> None:
    """aiohttp's parser drops what came in the same segment: the rest of it would be read as a request of its own."""
    offer = HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n"
    hidden = HEAD + b"Content-Length: %d\r\n\r\n" % len(GET)
    async with edge(is_held=True) as one:
        reader, writer = await one.open(offer + b"{")
        await one.is_asked()
        writer.write(b"}" + hidden)
        await asyncio.sleep(0.1)
        writer.write(GET)
        await asyncio.sleep(0.1)
        one.answering.may.set()
        seen = await rest(reader, writer)
        assert seen.count(b"HTTP/1.1 ") == 1
        assert b"\r\nConnection: close" in seen
        assert one.answering.bodies == [b"{}"]


@pytest.mark.parametrize("place", range(1, 6))
async def test_the_next_request_may_follow_a_chunked_one(edge: Start, place: int) -> None:
    async with edge() as one:
        reader, writer = await one.open(CHUNKED)
        await one.is_asked()
        last = b"0\r\n\r\n"
        writer.write(last[:place])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(last[place:])
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.write(GET[:-2] + b"Connection: close\r\n\r\n")
        assert (await rest(reader, writer)).count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize(
    "trailers", [b"X-Api-Key: y\r\n", b"A: b\r\nX-Api-Key: y\r\n", b"X: \r\n", b"0:\r\n", b"X: 0\r\n"]
)
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("is_split", [False, True])
async def test_a_trailer_is_no_header_of_the_next_request(
    edge: Start, trailers: bytes, *, at_once: bool, is_split: bool
) -> None:
    follows = CHUNKED + b"0\r\n\r\n"
    async with edge(is_held=True) as one:
        reader, writer = await one.open(
            CHUNKED + b"0\r\n" + (b"" if is_split else trailers + b"\r\n" + follows * at_once)
        )
        await one.is_asked()
        if is_split:
            writer.write(trailers + b"\r\n" + follows * at_once)
        await asyncio.sleep(0.05)
        if not at_once:
            writer.write(follows)
            await asyncio.sleep(0.05)
        one.answering.may.set()
        seen = await rest(reader, writer)
        assert (seen.count(b"HTTP/1.1 200 "), seen.count(b"\r\nConnection: close")) == (1, 1)
        assert one.answering.bodies == [b"{}"]


async def test_whoever_takes_no_replies_gets_no_more_of_them(edge: Start) -> None:
    async with edge(body=b"x" * 60_000, stall_s=0.3) as one, one.deaf(GET * 30):
        await one.is_left()
        assert one.codes[-1] == "caller_stalled"
        assert len(one.records) < 10


@pytest.mark.parametrize(
    ("more", "limits"), [(b"Connection: close\r\n", {"stall_s": 0.3}), (b"", {"idle_s": 0.3})], ids=["last", "not last"]
)
async def test_a_reply_that_is_not_taken_does_not_hold_its_connection(
    edge: Start, more: bytes, limits: dict[str, float]
) -> None:
    async with edge(body=b"x" * 50_000, **limits) as one, one.deaf(GET[:-2] + more + b"\r\n"):
        await one.is_left()
        assert one.codes == [""]
