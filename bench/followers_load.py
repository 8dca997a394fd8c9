"""The load of `followers`: rounds of one flight that many follow, and how late each has its answer.

Facts
- A round: the leader asks a new question on the first replica; when the upstream holds it, so many ask the same on each
  replica; when all of them are in, the upstream answers. The connections are there before.
- Lateness counts from the leader's answer; an answer counts when its last byte is in the hands of this process. Whoever
  has it before the leader is not late, which counts as 0. Beside it stands, with nothing cut, how long that was after
  the upstream was told to answer.
- This process reads one answer after the other, as its core lets it: what the last of 400 waits for is in part the 399
  before it. `reading_ms` is the CPU time it takes in a round, so it bounds what is ours and not the gateway's.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import uvloop

from bench.load import Connection, connected, patiently, quantile_ms
from bench.messages import ANSWERED_BYTES, HELD_METRIC, PATH_HELD, PATH_RELEASE, REPLAYED_BYTES, Requests
from bench.scrape import IN_FLIGHT, metric

_RELEASE: Final = f"GET {PATH_RELEASE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
_POLL_S: Final = 0.02
_PATIENCE_S: Final = 15.0
_SETTLE_S: Final = 0.05  # whoever is counted as in flight is about to wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Where to ask, and where to see who is asking."""

    port: int
    admin_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What came of all rounds, as medians over them of each quantile.

    `late`: by replica, after the leader's answer; `since`: by replica, after the upstream was told to answer.
    """

    late_p50_ms: Sequence[float]
    late_p99_ms: Sequence[float]
    since_p50_ms: Sequence[float]
    since_p99_ms: Sequence[float]
    leader_since_ms: float
    reading_ms: float
    errors: int


class _Line(Connection):
    """A connection that remembers when it had its answer."""

    def __init__(self, ended: Callable[[Connection, bool], None]) -> None:
        super().__init__(ended, (ANSWERED_BYTES, REPLAYED_BYTES))
        self.heard_at = 0.0

    def is_right(self, answer: bytes, begin: int) -> bool:
        """Note the time, then judge."""
        self.heard_at = time.perf_counter()
        return super().is_right(answer, begin)


async def rounds(replicas: Sequence[Replica], upstream_port: int, token: str, followers: int, count: int) -> Rounds:
    """Fly so many rounds with so many followers on each replica."""
    done = asyncio.Event()
    waiting = errors = 0

    def ended(_: Connection, is_good: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        nonlocal waiting, errors
        waiting -= 1
        errors += not is_good
        if waiting == 0:
            done.set()

    questions = Requests(token, PATH_HELD)
    releasing = await connected(lambda: Connection(lambda _, __: None, (0,)), upstream_port)
    leader = await connected(lambda: _Line(ended), replicas[0].port)
    lines = [[await connected(lambda: _Line(ended), one.port) for _ in range(followers)] for one in replicas]
    late: list[list[list[float]]] = [[] for _ in replicas]
    since: list[list[list[float]]] = [[] for _ in replicas]
    led: list[float] = []
    reading: list[float] = []
    for _ in range(count):
        done.clear()
        waiting = 1 + followers * len(replicas)
        question = questions.next()
        leader.send(question)
        await _until(upstream_port, HELD_METRIC, 1)
        for line in (line for of_one in lines for line in of_one):
            line.send(question)
        for number, replica in enumerate(replicas):
            await _until(replica.admin_port, IN_FLIGHT, followers + (number == 0))
        await asyncio.sleep(_SETTLE_S)
        before_s, released_at = time.process_time(), time.perf_counter()
        releasing.send(_RELEASE)
        await patiently(done)
        reading.append((time.process_time() - before_s) * 1e3)
        if waiting or errors:
            break
        led.append(leader.heard_at - released_at)
        for number, of_one in enumerate(lines):
            late[number].append([max(line.heard_at - leader.heard_at, 0.0) for line in of_one])
            since[number].append([line.heard_at - released_at for line in of_one])
    return Rounds(
        late_p50_ms=[_median_ms(found, 0.5) for found in late],
        late_p99_ms=[_median_ms(found, 0.99) for found in late],
        since_p50_ms=[_median_ms(found, 0.5) for found in since],
        since_p99_ms=[_median_ms(found, 0.99) for found in since],
        leader_since_ms=quantile_ms(led, 0.5),
        reading_ms=round(statistics.median(reading), 2),
        errors=errors + waiting,
    )


async def _until(port: int, name: str, wanted: int) -> None:
    """Wait until a metric says so many, but not for ever: the answers will show what is wrong."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while await asyncio.to_thread(metric, port, name) < wanted and time.monotonic() < give_up_at:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


def _median_ms(found: Sequence[list[float]], share: float) -> float:
    return round(statistics.median([quantile_ms(one, share) for one in found] or [0.0]), 2)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.followers_load")
    parser.add_argument("--replicas", nargs="+", required=True, metavar="PORT:ADMIN", help="the first is the leader's")
    parser.add_argument("--upstream", type=int, required=True, help="port")
    parser.add_argument("--token", required=True)
    parser.add_argument("--followers", type=int, default=200, help="on each replica")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    replicas = [
        Replica(port=int(port), admin_port=int(admin))
        for port, _, admin in (one.partition(":") for one in options.replicas)
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(rounds(replicas, options.upstream, options.token, options.followers, options.rounds))
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
