"""Slow and hostile callers, beside good ones: these are all answered, those are gone at their limits.

SLOW_CALLERS is how many there are of each kind (200); the good ones' latencies are printed, with `-s`.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import environment
from tests.e2e.processes import started
from tests.edge.messages import PATH
from tests.running import GatewayProcess, eventually
from tests.scripted import ScriptedUpstream, reply

CALLERS = int(os.environ.get("SLOW_CALLERS", "200"))
IDLE = 5_000
GOOD = 8
LIMITS = {"head_timeout_s": "1", "body_timeout_s": "1", "idle_timeout_s": "3"}
_CONNECTED = {"01", "08"}  # ESTABLISHED, CLOSE_WAIT
PATIENCE_S = 120.0  # on a machine that does other things as well
LONG_S = 80.0  # what a busy machine may make of the limits above
SLOWHTTPTEST = shutil.which("slowhttptest")
REPLY = reply()


@contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """Let this process have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this machine lets a process have {hard} open files, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(process: GatewayProcess) -> int:
    """The bytes of memory that a process has."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def connections(process: GatewayProcess) -> int:
    """How many callers' connections it holds, those to the upstream left out: as many as were once needed stay open."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{URL(process.url).port:04X}"
    # Of its own port, connected or half closed, and still somebody's: what nobody holds any more has no inode.
    return sum(row[1].endswith(port) and row[3] in _CONNECTED and row[9] != "0" for row in rows)


class Good:
    """Callers that behave, one request after the other, each on connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}{PATH}"
        self.statuses: list[int] = []
        self.taken: list[float] = []

    async def _ask(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                before = time.perf_counter()
                async with session.get(self._url) as response:
                    await response.read()
                self.taken.append(time.perf_counter() - before)
                self.statuses.append(response.status)
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def asking(self, name: str) -> AsyncIterator[None]:
        """Ask meanwhile; all were answered."""
        self.taken, self.statuses = [], []
        tasks = [asyncio.create_task(self._ask()) for _ in range(GOOD)]
        try:
            yield
            while len(self.taken) < 400:  # noqa: ASYNC110 - so many that four are the hundredth part
                await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in results if not isinstance(one, asyncio.CancelledError)] == []
        assert set(self.statuses) == {200}
        p99 = statistics.quantiles(self.taken, n=100)[98]
        print(f"{name}: {len(self.taken)} good, p50 {statistics.median(self.taken):.4f} s, p99 {p99:.4f} s")  # noqa: T201


@asynccontextmanager
async def attacked(valkey: EmbeddedValkey, raw: bytes = REPLY) -> AsyncIterator[tuple[GatewayProcess, Good]]:
    """A gateway with short limits, as a process; the good ones ask it once with nobody else."""
    async with (
        ScriptedUpstream(raw=raw) as upstream,
        started(environment(upstream.url, valkey.url, **LIMITS)) as process,
    ):
        good = Good(process.url)
        for name in ("warming up", "alone"):
            async with good.asking(name):
                pass
        yield process, good


async def trickled(url: str, begin: bytes, then: bytes) -> tuple[bytes, float]:
    """Send the beginning, and a piece ten times a second until the connection closes; return what came and how long."""
    parts = URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    before = time.monotonic()
    seen = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):  # a piece that comes after the end is answered by a reset
            while part := await reader.read(65_536):
                seen.extend(part)

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError):
        writer.write(begin)
        while not reading.done():
            writer.write(then)
            await writer.drain()
            await asyncio.wait([reading], timeout=0.1)
    await reading
    took_s = time.monotonic() - before
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return bytes(seen), took_s


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode()
TRICKLES = {
    "a head": (HEAD, b"X: y\r\n", b"head_too_slow"),
    "a line": (b"GET ", b"/", b"head_too_slow"),
    "empty lines": (b"\r\n", b"\r\n", b"head_too_slow"),
    "a body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" ", b"body_too_slow"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"body_too_slow"),
    "a chunk's extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a", b"body_too_slow"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", b"body_too_slow"),
}


@pytest.mark.long
async def test_whoever_trickles_is_gone_at_its_limit_and_nobody_else_minds(valkey: EmbeddedValkey) -> None:
    async with attacked(valkey) as (process, good), good.asking("beside those that trickle"):
        each = max(CALLERS // len(TRICKLES), 1)
        for name, (begin, then, code) in TRICKLES.items():
            async with asyncio.timeout(LONG_S):
                ended = await asyncio.gather(*(trickled(process.url, begin, then) for _ in range(each)))
            assert {code in seen for seen, _ in ended if seen} == {True}, name
            assert min(took_s for _, took_s in ended) > 0.9, name


@pytest.mark.long
async def test_five_thousand_that_ask_nothing_are_gone_at_their_limit_and_nobody_else_minds(
    valkey: EmbeddedValkey,
) -> None:
    with open_files(IDLE + 500):
        async with attacked(valkey) as (process, good), good.asking(f"beside {IDLE} idle"):
            parts = URL(process.url)
            opened = []
            for _ in range(IDLE // 100):
                opened += await asyncio.gather(*(asyncio.open_connection(parts.host, parts.port) for _ in range(100)))
            async with asyncio.timeout(LONG_S):
                seen = await asyncio.gather(*(reader.read() for reader, _ in opened))
            for _, writer in opened:
                writer.close()
            assert seen == [b""] * IDLE


async def test_whoever_takes_no_reply_costs_only_itself(valkey: EmbeddedValkey) -> None:
    raw = reply(body=b"x" * 60_000)
    async with attacked(valkey, raw) as (process, good), good.asking("beside those that read nothing"):
        parts, before = URL(process.url), resident(process)
        deaf = []
        for _ in range(CALLERS // 10):
            _, writer = await asyncio.open_connection(parts.host, parts.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 200)
            deaf.append(writer)
        await asyncio.sleep(2)  # for the good ones to ask beside them
        grown = resident(process) - before
        for writer in deaf:
            writer.transport.abort()
        assert grown < len(deaf) * 200 * 60_000 / 4, "of two hundred replies, those that wait for their caller are few"


@pytest.mark.long
async def test_a_flood_of_bodies_ten_times_over_the_cap_leaves_no_mark_on_the_memory(valkey: EmbeddedValkey) -> None:
    """Half say so, half do not: of each no more than the cap is held, and the rest is let go of as it comes."""
    cap = 1_048_576
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"

    async def flood(url: str, *, is_chunked: bool) -> bytes:
        parts = URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        reading = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % (10 * cap)
            writer.write(HEAD + framing + b"\r\n\r\n")
            for _ in range(10 * cap // 65_536):
                writer.write(piece if is_chunked else piece[7:-2])
                await writer.drain()
        writer.close()
        seen = b""
        with contextlib.suppress(ConnectionError):
            seen = await reading
        return seen

    async with attacked(valkey) as (process, good):
        before, highest = resident(process), 0
        async with good.asking("beside a flood of bodies"), asyncio.timeout(LONG_S):
            floods = [asyncio.create_task(flood(process.url, is_chunked=number % 2 == 0)) for number in range(100)]
            while not all(one.done() for one in floods):
                highest = max(highest, resident(process))
                await asyncio.sleep(0.02)
        answers = [one.result() for one in floods]
    print(f"memory: {before >> 20} MiB before, {highest >> 20} MiB at most")  # noqa: T201
    assert {b"413" in one for one in answers if one} == {True}
    assert highest - before < 100 * cap * 2.5, "what is held at once is a little more than a body each"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(SLOWHTTPTEST is None, reason="slowhttptest is not installed")
@pytest.mark.parametrize("mode", ["-H", "-B", "-X"])
async def test_slowhttptest_holds_nothing_and_stops_nobody(mode: str, valkey: EmbeddedValkey) -> None:
    """Slow heads, slow bodies, slow reading; while it still believes to hold them, their sockets here are gone."""
    rate = ["-w", "10", "-y", "20", "-z", "5", "-k", "3", "-n", "1"] if mode == "-X" else ["-i", "1", "-x", "24"]
    async with attacked(valkey) as (process, good), good.asking(f"beside slowhttptest {mode}"):
        child = await asyncio.create_subprocess_exec(
            *(SLOWHTTPTEST or "", mode, *rate, "-c", str(CALLERS), "-r", str(CALLERS), "-l", "300", "-p", "3"),
            *("-u", f"{process.url}{PATH}", "-t", "POST" if mode == "-B" else "GET"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def holds_some() -> bool:  # on a busy machine the first are gone before the last have come
            return connections(process) > GOOD + 40

        async def holds_none() -> bool:
            return connections(process) < GOOD + 20

        try:
            await eventually(holds_some, PATIENCE_S)
            await eventually(holds_none, PATIENCE_S)  # long before it would end by itself
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
