"""Every message of the table, against a gateway on a real socket: what is sent on, and what of it."""

import asyncio
import contextlib
import json
import re

import pytest

from tests.edge.conftest import Edge
from tests.edge.messages import MESSAGES, Answered, Message, Passes, Refused, Unfinished, get
from tests.scripted import Request

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEXT = "/rcm/eligibility/v1/transactions?next"
FOLLOWING = get("Connection: close", line=f"GET {NEXT} HTTP/1.1")
CHUNKED = b"\ntransfer-encoding:"
SMUGGLED = get(line="GET /rcm/eligibility/v1/transactions?smuggled HTTP/1.1")


async def exchange(edge: Edge, raw: bytes, then: bytes = b"", *, ends: bool = False) -> bytes:
    """Send bytes, `then` others when an answer has begun, and read until the gateway closes; after `ends` none come."""
    reader, writer = await edge.open()
    seen = b""
    try:
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionError):
                writer.write(raw)
                if ends:
                    writer.write_eof()
                await writer.drain()
                while part := await reader.read(65536):
                    seen += part
                    writer.write(then)
                    then = b""
    except TimeoutError:
        pytest.fail(f"the connection stays open; seen: {seen[:300]!r}")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return seen


def statuses(seen: bytes) -> list[int]:
    """The final statuses of the replies in a row: no body of the gateway or of this upstream looks like one."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", seen) if status != b"100"]


def is_well_framed(request: Request) -> bool:
    lengths = request.values("content-length")
    return request.values("transfer-encoding") == [] and lengths in ([], [str(len(request.body))])


@pytest.mark.parametrize("message", MESSAGES, ids=[message.name for message in MESSAGES])
async def test_a_message_is_sent_on_once_or_not_at_all(message: Message, edge: Edge) -> None:
    before = len(edge.upstream.requests)
    match message.verdict:
        case Refused(status):
            seen = await exchange(edge, message.raw + SMUGGLED)
            assert statuses(seen) == [status], seen[:300]
            if not message.raw.startswith(b"HEAD"):
                assert json.loads(seen.partition(b"\r\n\r\n")[2])["status"] == status
            assert seen.startswith(b"HTTP/1.0 ") or b"\r\nConnection: close" in seen
            assert b"\r\nConnection: keep-alive" not in seen
            assert b"\r\nServer:" not in seen
            assert b"smuggled" not in seen
        case Unfinished():
            seen = await exchange(edge, message.raw, ends=True)
            assert 200 not in statuses(seen)
        case Answered(status):
            seen = await exchange(edge, message.raw + FOLLOWING)
            assert statuses(seen) in ([status, 200], [status]), seen[:300]
        case Passes():
            if message.verdict.closes or CHUNKED in message.raw.lower():  # nothing is read that comes with its end
                seen = await exchange(edge, message.raw, FOLLOWING)
            else:
                seen = await exchange(edge, message.raw + FOLLOWING)
            assert statuses(seen) == [200] * (1 if message.verdict.closes else 2), seen[:300]
    await edge.is_idle()
    requests = edge.seen(before)
    assert all(map(is_well_framed, requests))
    targets = [request.line.decode().split(" ")[1] for request in requests]
    if not isinstance(message.verdict, Passes):
        assert targets in ([], [NEXT] if isinstance(message.verdict, Answered) else [])
        return
    assert targets == [message.verdict.target, *([] if message.verdict.closes else [NEXT])]
    assert requests[0].body == message.verdict.body
    assert [one for one in message.verdict.without if requests[0].values(one)] == []
    lines = [f"{name.decode()}: {value.decode()}" for name, value in requests[0].headers]
    assert [one for one in message.verdict.having if one not in lines] == []


async def test_nothing_was_our_fault_and_nothing_that_came_was_said_again(edge: Edge) -> None:
    codes = {record["code"] for record in edge.gateway.records()}
    assert codes >= {"not_http", "ambiguous_request", "head_too_large", "body_too_large", "body_torn", ""}
    assert "internal_error" not in codes
    assert b"smuggled" not in edge.gateway.output.getvalue()
    assert not [line for line in edge.upstream.requests if b"smuggled" in line.line + line.body]


async def test_the_table_is_no_smaller_than_it_was() -> None:
    assert len(MESSAGES) == len({message.name for message in MESSAGES}) >= 400
