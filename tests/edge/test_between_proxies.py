"""The gateway behind, and in front of, nginx and haproxy: no two of them may disagree about where a request ends."""

import asyncio
import contextlib
import random
import re
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import Running, environment, run_gateway
from tests.edge.messages import MESSAGES, PATH, Passes, Refused, Unfinished, get
from tests.edge.proxies import PROXIES, proxy
from tests.scripted import ScriptedUpstream

ID = re.compile(rb"\bid=(\d+)\b")
SENT = [one for one in MESSAGES if not isinstance(one.verdict, Unfinished) and len(one.raw) < 1_500_000]
LEGAL = [one for one in SENT if isinstance(one.verdict, Passes) and not one.verdict.closes and len(one.raw) < 50_000]
SEQUENCES = 40


def numbered(raw: bytes, number: int) -> bytes:
    """The same message, with its number in its target."""
    line, separator, rest = raw.partition(b"HTTP/")
    if PATH.encode() not in line or len(line) > 8000:
        return raw
    return line.replace(PATH.encode(), b"%s?id=%d&" % (PATH.encode(), number), 1) + separator + rest


def following(number: int) -> bytes:
    return get("Connection: close", line=f"GET {PATH}?id={number} HTTP/1.1")


async def exchange(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send bytes, and read until the other side closes or has nothing more to say."""
    reader, writer = await asyncio.open_connection(*address)
    seen = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            while part := await reader.read(65536):
                seen += part
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return seen


def good(seen: bytes) -> int:
    if seen == b"{}":  # nginx speaks HTTP/0.9, which has no status
        return 1
    return len(re.findall(rb"HTTP/1\.[01] 200 ", seen))


async def settled(gateway: Running) -> None:
    async with gateway.session.get(f"{gateway.url}/nowhere") as response:
        assert response.status == 404


@pytest.mark.parametrize("name", PROXIES)
async def test_what_a_proxy_in_front_takes_for_one_request_is_one_here(
    name: str, tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    wrong = []
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, valkey.url)) as gateway,
        proxy(name, tmp_path, gateway.url.removeprefix("http://")) as front,
    ):
        for index, message in enumerate(SENT):
            before = len(upstream.requests)
            ids = {2 * index, 2 * index + 1}
            seen = await exchange(front, numbered(message.raw, 2 * index) + following(2 * index + 1))
            await settled(gateway)
            arrived = [int(found[1]) for one in upstream.requests[before:] if (found := ID.search(one.line))]
            total = len(upstream.requests) - before
            if good(seen) != total or len(arrived) != len(set(arrived)) or not set(arrived) <= ids:
                wrong.append((message.name, good(seen), total, arrived))
        assert wrong == []
        assert len(upstream.requests) > len(SENT) / 4, "most of what is legal has arrived"
        dice = random.Random(7)  # noqa: S311 - which sequences is of no weight
        for sequence in range(SEQUENCES):
            before = len(upstream.requests)
            chosen = dice.choices(LEGAL, k=dice.randint(2, 8))
            base = 1_000_000 + 100 * sequence
            raw = b"".join(numbered(one.raw, base + place) for place, one in enumerate(chosen)) + following(base + 99)
            cuts = sorted(dice.randrange(len(raw)) for _ in range(dice.randint(0, 4)))
            parts = [raw[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
            seen = await exchange(front, *parts)
            await settled(gateway)
            arrived = [int(found[1]) for one in upstream.requests[before:] if (found := ID.search(one.line))]
            if good(seen) != len(upstream.requests) - before or arrived != sorted(set(arrived)):
                wrong.append(("+".join(one.name for one in chosen), good(seen), len(arrived), arrived))
    assert wrong == []


@pytest.mark.parametrize("name", PROXIES)
async def test_what_is_one_request_here_is_one_for_an_origin_behind(
    name: str, tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    wrong = []
    async with (
        ScriptedUpstream() as upstream,
        proxy(name, tmp_path, upstream.url.removeprefix("http://")) as origin,
        run_gateway(environment(f"http://{origin[0]}:{origin[1]}", valkey.url)) as gateway,
    ):
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        for index, message in enumerate(SENT):
            before = len(upstream.requests)
            seen = await exchange((host, int(port)), numbered(message.raw, index) + following(999_999))
            await settled(gateway)
            arrived = upstream.requests[before:]
            bodies = [one.body for one in arrived]
            if good(seen) != len(arrived) or (isinstance(message.verdict, Refused) and arrived):
                wrong.append((message.name, good(seen), [one.line for one in arrived]))
            elif isinstance(message.verdict, Passes) and arrived and bodies[0] != message.verdict.body:
                wrong.append((message.name, len(bodies[0]), []))
    assert wrong == []
