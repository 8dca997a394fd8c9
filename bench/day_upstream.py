"""The upstream of the bench's day: it says which question it was asked, and answers as the day's script has it.

Facts
- An answer's `id` numbers the call, its `controlNumber` is the one that was asked with: the first six of its digits
  are the question.
- `GET /calls` says how often each question was asked.
"""

import argparse
import asyncio
import json
import re
from collections import Counter
from http import HTTPStatus
from typing import Final

from bench.messages import eligibility_body, reply
from bench.schedule import script
from bench.upstream import Upstream, Write, run

PATH_CALLS: Final = "/calls"
_CALLS_LINE: Final = f"GET {PATH_CALLS} ".encode()
_ASKED: Final = re.compile(rb'"controlNumber"\s*:\s*"([0-9]{9})"|ISA.{87}([0-9]{9})', re.DOTALL)
_QUESTION_DIGITS: Final = 6


def question_of(control_number: str) -> int:
    """Return the number of the question that was asked under a control number."""
    return int(control_number[:_QUESTION_DIGITS])


class DayUpstream(Upstream):
    """Answers each question with its outcome, after its latency."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._asked: Counter[int] = Counter()
        document = json.loads(eligibility_body())
        self._benefits = {name: value for name, value in document.items() if name not in {"id", "status"}}

    def answer(self, message: bytes, write: Write) -> None:
        """Answer later, and say which question it was."""
        found = _ASKED.search(message)
        if found is None:
            write(reply("400 Bad Request", b'{"message":"no control number"}'))
            return
        control_number = (found[1] or found[2]).decode()
        question = question_of(control_number)
        self._asked[question] += 1
        what = script(self._seed, question)
        told: dict[str, object] = {"id": f"call-{self._asked.total():06d}", "controlNumber": control_number}
        if what.status == HTTPStatus.OK:
            told |= {"status": {"value": what.outcome}, **self._benefits}
        status = f"{what.status} {HTTPStatus(what.status).phrase}"
        asyncio.get_running_loop().call_later(what.latency_s, write, reply(status, json.dumps(told).encode()))

    def told(self, message: bytes) -> str:
        """Say also how often each question was asked."""
        return json.dumps(self._asked) if message.startswith(_CALLS_LINE) else super().told(message)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.day_upstream")
    parser.add_argument("--seed", type=int, required=True)
    run(DayUpstream(parser.parse_args().seed))


if __name__ == "__main__":
    main()
