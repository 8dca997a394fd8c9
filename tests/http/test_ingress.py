"""What one record says of a request, whatever became of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from gateway.errors import UnknownPath
from gateway.exchange import Exchange, Record, Reply
from gateway.http.ingress import Ingress, Limits, Observers
from gateway.http.sockets import Sockets
from gateway.in_flight import InFlight
from gateway.problem import GatewayError

LIMITS = Limits(body_bytes=1000, body_s=5.0, head_s=5.0, idle_s=5.0)
Ask = Callable[[str, str], Awaitable[Record]]


class Nowhere:
    """Refuses as the pipeline refuses a path that nobody knows: no operation was recognised."""

    async def admit(self, _: Exchange, /) -> None:
        raise UnknownPath

    async def answer(self, _: Exchange, /) -> Reply:
        raise AssertionError("a request that is refused is not answered")


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Send one request line and a Host to a server of its own, and return the record of it."""
    ids = itertools.count()
    records: asyncio.Queue[Record] = asyncio.Queue()
    defects: list[BaseException] = []
    ingress = Ingress(
        Nowhere(),
        LIMITS,
        Sockets(10),
        InFlight(),
        Observers(
            now=asyncio.get_running_loop().time,
            new_id=lambda: f"id-{next(ids)}",
            on_record=records.put_nowait,
            on_defect=defects.append,
        ),
    )
    runner = web.ServerRunner(ingress.server())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]

    async def send(method: str, more: str) -> Record:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"{method} /elsewhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode())
        await reader.read()
        writer.close()
        return await records.get()

    yield send
    await runner.cleanup()
    assert defects == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    ("more", "error"),
    [("", UnknownPath), ("Upgrade: websocket\r\n", None)],
    ids=["unknown path", "ambiguous"],
)
async def test_a_standard_method_is_in_the_record_of_a_request_that_was_refused(
    ask: Ask,
    method: str,
    more: str,
    error: type[GatewayError] | None,
) -> None:
    record = await ask(method, more)

    assert (record.method, record.operation) == (method, "unknown")
    assert record.code == (error.code if error is not None else "ambiguous_request")


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "PURGE"])
async def test_a_method_that_is_not_standard_is_unknown(ask: Ask, method: str) -> None:
    record = await ask(method, "")

    assert (record.method, record.operation, record.code) == ("unknown", "unknown", "unknown_path")


@pytest.mark.parametrize("method", ["get", "ALICE-19700101", "\x00"])
async def test_what_is_no_method_is_unknown(ask: Ask, method: str) -> None:
    record = await ask(method, "")

    assert (record.method, record.operation, record.code) == ("unknown", "unknown", "not_http")
