"""Three kinds of load, each a process that prints JSON.

Facts
- `closed`: N connections, each sends its next request when it has its answer. For CPU per request.
- `open`: requests leave at fixed instants, whatever has become of the ones before (Poisson arrivals, the same
  for every peer). A latency counts from the instant at which its request was meant to leave, so neither a slow
  proxy nor a late generator can hide. It runs on select(2), which waits with microseconds, not milliseconds.
- `hold`: N connections with one request each; a line is printed when the peer holds them all, another when
  all are answered.

Rules
- An answer that is no 200, or not of exactly the expected length, is an error; so is a lost connection.
- A connection that had an error is not used again.
"""

import argparse
import asyncio
import json
import random
import selectors
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeVar, cast

import uvloop

from bench.messages import ANSWERED_BYTES, PATH, PATH_HELD, Requests, whole
from bench.scrape import metric

_HOST: Final = "127.0.0.1"
_PATIENCE_S: Final = 15.0  # for the last answers
_SEED: Final = 270
_WARM_CONNECTIONS: Final = 32
_LEAD_S: Final = 0.05
_WAVE: Final = 256
_WAVES_AHEAD: Final = 4  # of what is held already: the accept backlog of either hop is far larger
_POLL_S: Final = 0.02
_OK: Final = b"HTTP/1.1 200 "

C = TypeVar("C", bound="Connection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What came of a closed loop."""

    answers: int
    errors: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What came of an open loop; milliseconds. `late` is how far behind its schedule the generator was."""

    answers: int
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How many requests the peer holds, and how long it took to bring them in."""

    held: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What came of the held requests."""

    answers: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask, with which token, about which and how many members (None: another each time); what is right."""

    port: int
    token: str
    members: int | None = None
    first: int = 0
    expected: tuple[int, ...] = (ANSWERED_BYTES,)

    def requests(self, path: str = PATH) -> Requests:
        """Return requests for it."""
        return Requests(self.token, path, self.members, self.first)

    async def connect(self, ended: Callable[["Connection", bool], None]) -> "Connection":
        """Return a new connection."""
        return await connected(lambda: Connection(ended, self.expected), self.port)


async def connected(made: "Callable[[], C]", port: int) -> "C":
    """Return a new connection of some kind."""
    _, connection = await asyncio.get_running_loop().create_connection(made, _HOST, port)
    return connection


class Connection(asyncio.Protocol):
    """One connection with at most one request under way; `ended` is told whether it ended well."""

    def __init__(self, ended: Callable[["Connection", bool], None], expected: tuple[int, ...] = ()) -> None:
        self._ended = ended
        self._expected = expected
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # TCP has no other

    def send(self, request: bytes) -> None:
        """Send a request; the one before it was answered."""
        self.is_waiting = True
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """Close, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Judge an answer once it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        found = whole(self._buffer)
        if found is None:
            return
        begin, end = found
        answer, self._buffer = self._buffer, b""
        self._settle(is_good=end == len(answer) and self.is_right(answer, begin))

    def is_right(self, answer: bytes, begin: int) -> bool:
        """Whether a whole answer, whose body begins there, is right."""
        return answer.startswith(_OK) and len(answer) - begin in self._expected

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count a request whose answer cannot come any more."""
        self._settle(is_good=False)

    def _settle(self, *, is_good: bool) -> None:
        if self.is_waiting:
            self.is_waiting = False
            if not is_good:
                self.close()
            self._ended(self, is_good)


async def closed(target: Target, connections: int, seconds: float) -> Closed:
    """Keep every connection busy for so many seconds, then wait for the last answers."""
    loop = asyncio.get_running_loop()
    requests, done = target.requests(), asyncio.Event()
    answers = errors = 0
    busy = connections

    def ended(connection: Connection, is_good: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        nonlocal answers, errors, busy
        answers += is_good
        errors += not is_good
        if is_good and loop.time() < until:
            connection.send(requests.next())
            return
        busy -= 1
        if busy == 0:
            done.set()

    pool = [await target.connect(ended) for _ in range(connections)]
    began_at = loop.time()
    until = began_at + seconds
    for connection in pool:
        connection.send(requests.next())
    await patiently(done, seconds + _PATIENCE_S)
    took_s = loop.time() - began_at
    return Closed(answers=answers, errors=errors + busy, seconds=round(took_s, 3))


async def opened(target: Target, rate: float, seconds: float) -> Opened:
    """Send at a rate for so many seconds, on as many connections as that takes."""
    loop = asyncio.get_running_loop()
    requests, arrivals, done = target.requests(), random.Random(_SEED), asyncio.Event()
    idle: list[Connection] = []
    due: dict[Connection, float] = {}
    latencies: list[float] = []
    late: list[float] = []
    opening: set[asyncio.Task[None]] = set()
    errors = 0
    left = int(rate * seconds)

    def ended(connection: Connection, is_good: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        nonlocal errors, left
        latencies.append(loop.time() - due.pop(connection))
        errors += not is_good
        left -= 1
        if is_good:
            idle.append(connection)
        if left == 0:
            done.set()

    async def send(at: float) -> None:
        connection = idle.pop() if idle else await target.connect(ended)
        due[connection] = at
        connection.send(requests.next())

    idle += [await target.connect(ended) for _ in range(_WARM_CONNECTIONS)]
    at = loop.time() + _LEAD_S
    for _ in range(left):
        at += arrivals.expovariate(rate)
        if (early_s := at - loop.time()) > 0:
            await asyncio.sleep(early_s)
        late.append(loop.time() - at)
        if idle:
            await send(at)
        else:  # a new connection must not keep the next request waiting
            opening.add(task := loop.create_task(send(at)))
            task.add_done_callback(opening.discard)
    await patiently(done)
    return Opened(
        answers=len(latencies) - errors,
        errors=errors + left,
        p50_ms=quantile_ms(latencies, 0.5),
        p99_ms=quantile_ms(latencies, 0.99),
        max_ms=quantile_ms(latencies, 1.0),
        late_p99_ms=quantile_ms(late, 0.99),
    )


async def hold(target: Target, count: int, gauge: tuple[int, str], patience_s: float) -> Released:
    """Send one request on each of so many connections; print when all are held, return when all are answered."""
    loop = asyncio.get_running_loop()
    requests, done = target.requests(PATH_HELD), asyncio.Event()
    answers = errors = 0

    def ended(connection: Connection, is_good: bool) -> None:  # noqa: ARG001, FBT001
        nonlocal answers, errors
        answers += is_good
        errors += not is_good
        if answers + errors == count:
            done.set()

    began_at = loop.time()
    pool: list[Connection] = []
    held = 0
    while held < count and not errors and loop.time() < began_at + patience_s:
        if len(pool) < count and len(pool) - held <= _WAVES_AHEAD * _WAVE:
            for _ in range(min(_WAVE, count - len(pool))):
                pool.append(await target.connect(ended))
                pool[-1].send(requests.next())
        else:
            await asyncio.sleep(_POLL_S)
        held = await asyncio.to_thread(metric, *gauge)
    print(json.dumps(asdict(Held(held=held, seconds=round(loop.time() - began_at, 3)))), flush=True)
    await patiently(done, patience_s + _PATIENCE_S)
    return Released(answers=answers, errors=count - answers)


async def patiently(done: asyncio.Event, seconds: float = _PATIENCE_S) -> None:
    """Wait for the end, but not for ever: what is missing then was lost."""
    await asyncio.wait([asyncio.ensure_future(done.wait())], timeout=seconds)


def quantile_ms(values: list[float], share: float) -> float:
    """Return the value, in milliseconds, below which such a share of the seconds lies."""
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3, 3) if ordered else 0.0


def _select_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("kind", choices=("closed", "open", "hold"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long; for `hold`, how long it may take")
    parser.add_argument("--connections", type=int, default=64, help="of `closed` and `hold`")
    parser.add_argument("--rate", type=float, default=300.0, help="of `open`, requests per second")
    parser.add_argument("--gauge", default="0:", help="of `hold`, PORT:NAME of the metric that says what is held")
    parser.add_argument("--members", type=int, help="ask about so many in turn; default: about another each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first member")
    parser.add_argument("--expected", type=int, nargs="+", default=[ANSWERED_BYTES], help="right lengths of a body")
    options = parser.parse_args()
    target = Target(
        port=options.port,
        token=options.token,
        members=options.members,
        first=options.first,
        expected=(*options.expected,),
    )
    result: Closed | Opened | Released
    with asyncio.Runner(loop_factory=_select_loop if options.kind == "open" else uvloop.new_event_loop) as runner:
        match options.kind:
            case "closed":
                result = runner.run(closed(target, options.connections, options.seconds))
            case "open":
                result = runner.run(opened(target, options.rate, options.seconds))
            case _:
                port, _, name = options.gauge.partition(":")
                gauge = (int(port), name)
                result = runner.run(hold(target, options.connections, gauge, options.seconds))
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
