"""Messages that nobody thought of: the table's, changed at random and cut into pieces anywhere.

A long run: HYPOTHESIS_PROFILE=deep.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import environment, run_gateway
from tests.edge.conftest import Edge
from tests.edge.messages import MESSAGES, PATH, Answered, Message, Passes, Refused, get
from tests.edge.test_messages import is_well_framed, statuses
from tests.scripted import Request, ScriptedUpstream

SMALL = [one for one in MESSAGES if len(one.raw) < 3_000]
FOLLOWING = get("Connection: close", line="GET /rcm/eligibility/v1/transactions?next HTTP/1.1")
PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"0\r\n\r\n",
        b"HTTP/1.1",
        b"\r\n\r\n",
        b"_",
        b"\xff",
    ),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Host: y\r\n",
        b"-",
        b"+",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        get(),
        b"GET / HTTP/1.1\r\n",
        b"9",
        b"ffffffff\r\n",
        b"HTTP/1.0",
    ),
]
Exchange = Callable[[list[bytes]], Awaitable[tuple[bytes, list[Request]]]]
Run = Callable[[list[bytes]], tuple[bytes, list[Request]]]


@pytest.fixture(scope="module")
def run(valkey: EmbeddedValkey) -> Iterator[Run]:
    """Send pieces, and return what came back until the connection closed, and what arrived behind."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Edge:
            upstream = await stack.enter_async_context(ScriptedUpstream())
            limits = {"head_timeout_s": "0.2", "body_timeout_s": "0.2", "idle_timeout_s": "0.5"}
            variables = environment(upstream.url, valkey.url, **limits)
            return Edge(await stack.enter_async_context(run_gateway(variables)), upstream)

        edge = runner.run(start())
        yield lambda pieces: runner.run(_exchange(edge, pieces))
        runner.run(edge.is_idle())
        codes = {record["code"] for record in edge.gateway.records()}
        runner.run(stack.aclose())
        assert "internal_error" not in codes


async def _exchange(edge: Edge, pieces: list[bytes]) -> tuple[bytes, list[Request]]:
    before = len(edge.upstream.requests)
    reader, writer = await edge.open()
    seen = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                seen.extend(part)

    async with asyncio.timeout(30):
        reading = asyncio.create_task(read())
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        await reading
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return bytes(seen), edge.seen(before)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % len(raw) for place in places})
    return [raw[begin:end] for begin, end in zip([0, *at], [*at, len(raw)], strict=True) if begin < end]


PLACES = st.lists(st.integers(0, 10_000), max_size=5)
# What is right up to a point, and wrong behind it: in pieces, the first request is one.
RIGHT_UNTIL = ("shorter than the body", "and more follows at once")


def test_wherever_a_message_is_cut_the_verdict_is_the_same(run: Run) -> None:
    @given(message=st.sampled_from(SMALL), places=PLACES)
    def check(message: Message, places: list[int]) -> None:
        seen, arrived = run(cut(message.raw + FOLLOWING, places))
        match message.verdict:
            case Refused(status) if not message.name.endswith(RIGHT_UNTIL):
                assert statuses(seen) in ([status], [])  # none where a reset overtook it
                assert arrived == []
            case Answered():
                assert b"next" in b"".join(one.line for one in arrived) or arrived == []
            case Passes():
                assert [one.body for one in arrived[:1]] == [message.verdict.body] or statuses(seen) == [400]
                assert len(arrived) <= (1 if message.verdict.closes else 2)
            case _:
                pass
        assert all(map(is_well_framed, arrived))

    check()


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(SMALL)).raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=4)))
        match draw(st.sampled_from(["insert", "replace", "remove", "repeat"])):
            case "insert":
                raw[at:at] = piece
            case "replace":
                raw[at : at + len(piece)] = piece
            case "remove":
                del raw[at : at + draw(st.integers(1, 20))]
            case _:
                raw[at:at] = raw[at : at + draw(st.integers(1, 60))]
    return bytes(raw) or b"\r\n"


def test_whatever_is_sent_is_answered_or_closed_and_never_a_defect(run: Run) -> None:
    @given(raw=changed(), places=PLACES)
    def check(raw: bytes, places: list[int]) -> None:
        seen, arrived = run(cut(raw, places))
        found = statuses(seen)
        assert not {500, 502, 503} & set(found)
        assert found.count(200) == len(arrived), "each that was answered well arrived once, and no other"
        assert len(arrived) <= raw.count(b"HTTP/1.")
        assert all(map(is_well_framed, arrived))
        assert all(len(re.findall(rb"[\r\n\x00]", one.line)) == 0 for one in arrived)

    check()


TARGET = st.builds(
    lambda segment, query: f"{PATH}{segment}{query}".encode(),
    st.one_of(
        st.just(""), st.text(st.sampled_from("/abAZ09-._~!$&'()*+,;=:@%2eEfF5Cc"), max_size=12).map("/{}".format)
    ),
    st.one_of(
        st.just(""), st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30).map("?{}".format)
    ),
)


def test_a_target_that_arrives_is_the_one_that_was_sent(run: Run) -> None:
    arrived_at_all = 0

    @given(target=TARGET)
    def check(target: bytes) -> None:
        nonlocal arrived_at_all
        _, arrived = run([get("Connection: close", line=b"GET " + target + b" HTTP/1.1")])
        assert [one.line for one in arrived] in ([], [b"GET " + target + b" HTTP/1.1"])
        arrived_at_all += len(arrived)

    check()
    assert arrived_at_all > 10
