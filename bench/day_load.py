"""The load of the bench's day: a process that plays a schedule, judges every answer, and prints JSON.

Rules
- Requests leave at their instants, whatever has become of the ones before; those of one moment leave together, and
  go to the replicas in turn.
- An answer to another question is a false replay. So is an answer that is no fact, to a request that left after this
  process had heard the very same call answered: "after" is never a matter of two clocks.
- An answer with another status or outcome than its question has, or that cannot be read, is an error; so is one that
  never comes. Nobody waits for the answer to a request whose sender left.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import uvloop

from bench.day_upstream import question_of
from bench.load import Connection, connected, patiently, quantile_ms
from bench.schedule import Asked, Day, Script, day, script

_LEAD_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of the day. `left`: those who did not wait for their answer."""

    answers: int
    left: int
    others_answers: int
    replayed_no_facts: int
    errors: int
    late_p99_ms: float


@dataclass(slots=True)
class Judge:
    """Says of each answer whether it was the right one to give."""

    seed: int
    others_answers: int = 0
    replayed_no_facts: int = 0
    _heard_at: dict[str, float] = field(default_factory=dict)

    def is_right(self, asked: Asked, sent_at: float, heard_at: float, answer: bytes) -> bool:
        """Whether the answer can be read and is what its question has; false replays are counted apart."""
        head, _, body = answer.partition(b"\r\n\r\n")
        try:
            document = json.loads(body)
            call, question = document["id"], question_of(document["controlNumber"])
            status, outcome = int(head.split(b" ", 2)[1]), document.get("status", {}).get("value")
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        answered_at = self._heard_at.setdefault(call, heard_at)
        expected = script(self.seed, question)
        if question != asked.question:
            self.others_answers += 1
        elif not expected.is_fact and answered_at < sent_at:
            self.replayed_no_facts += 1
        return (status, outcome) == _told(expected)


class _Line(Connection):
    """A connection to one replica, and what is under way on it."""

    def __init__(self, replica: int, judge: Judge, ended: "Callable[[_Line, bool], None]") -> None:
        super().__init__(lambda _, is_good: ended(self, is_good))
        self.replica = replica
        self._judge = judge
        self._asked: Asked | None = None
        self._sent_at = 0.0

    def ask(self, asked: Asked, request: bytes) -> None:
        """Send a request; its sender may leave."""
        self._asked, self._sent_at = asked, time.perf_counter()
        self.send(request)
        if asked.leaves_after_s is not None:
            asyncio.get_running_loop().call_later(asked.leaves_after_s, self._leave, asked)

    @property
    def was_left(self) -> bool:
        """Whether the sender left before there was an answer."""
        return self._asked is None

    def is_right(self, answer: bytes, begin: int) -> bool:  # noqa: ARG002 - the head counts as well
        """Judge it."""
        asked = self._asked
        return asked is not None and self._judge.is_right(asked, self._sent_at, time.perf_counter(), answer)

    def _leave(self, asked: Asked) -> None:
        if self._asked is asked and self.is_waiting:
            self._asked = None
            self.close()


async def play(plan: Day, ports: Sequence[int], token: str) -> Seen:
    """Send every request of a day at its instant, and judge what comes."""
    loop = asyncio.get_running_loop()
    judge, done = Judge(plan.seed), asyncio.Event()
    idle: list[list[_Line]] = [[] for _ in ports]
    opening: set[asyncio.Task[None]] = set()
    late: list[float] = []
    answers = errors = gone = 0

    def ended(line: _Line, is_good: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        nonlocal answers, errors, gone
        if line.was_left:
            gone += 1
        elif is_good:
            answers += 1
            idle[line.replica].append(line)
        else:
            errors += 1
        if answers + errors + gone == len(plan.asked):
            done.set()

    async def open_and_ask(replica: int, asked: Asked) -> None:
        line = await connected(lambda: _Line(replica, judge, ended), ports[replica])
        line.ask(asked, _request(asked, token))

    began_at = loop.time() + _LEAD_S
    for number, asked in enumerate(plan.asked):
        if (early_s := began_at + asked.at_s - loop.time()) > 0:
            await asyncio.sleep(early_s)
        late.append(loop.time() - began_at - asked.at_s)
        replica = number % len(ports)
        if idle[replica]:
            idle[replica].pop().ask(asked, _request(asked, token))
        else:
            opening.add(task := loop.create_task(open_and_ask(replica, asked)))
            task.add_done_callback(opening.discard)
    await patiently(done)
    return Seen(
        answers=answers,
        left=gone,
        others_answers=judge.others_answers,
        replayed_no_facts=judge.replayed_no_facts,
        errors=len(plan.asked) - answers - gone,
        late_p99_ms=quantile_ms(late, 0.99),
    )


def _told(expected: Script) -> tuple[int, str | None]:
    return expected.status, expected.outcome if expected.status == 200 else None


def _request(asked: Asked, token: str) -> bytes:
    head = (
        f"POST {asked.path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {token}\r\nx-optum-subtenant-id: {asked.subtenant}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(asked.body)}\r\n\r\n"
    )
    return head.encode() + asked.body


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.day_load")
    parser.add_argument("--ports", type=int, nargs="+", required=True, help="of the replicas")
    parser.add_argument("--token", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--visits", type=int, required=True)
    options = parser.parse_args()
    plan = day(options.seed, options.visits)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(play(plan, options.ports, options.token)))), flush=True)


if __name__ == "__main__":
    main()
