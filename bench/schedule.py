"""A day of traffic, made from a seed: who asks what, when, and what the upstream will say.

Facts
- A visit's question is asked by scheduling, at registration, by billing, and by the nightly re-check; some of them
  ask twice at one moment, lose an answer and ask again, or lose patience and ask again while the call is under way.
- Around some visits near misses are asked, one of them at the very moment of the visit's own question.
- A question is an inquiry in one operation on behalf of one subtenant; its number is the truth that peers are held
  against. What the upstream says, and after how long, follows from the seed and the number.
- A moment is what is in flight together. Between two moments of one question lies a gap that is longer than the
  slowest answer takes, so that the later one asks after the earlier one was answered.
- The day takes seconds and the upstream tens of milliseconds: a real day has longer calls, and far longer gaps.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from bench.inquiries import Inquiry, inquiry, near_misses
from bench.messages import PATH
from bench.writing import SERVICES, as_json, as_x12
from gateway.operations import OPERATIONS, OperationName

PATH_X12: Final = OPERATIONS[OperationName.SUBMIT_ELIGIBILITY_X12].path
CLINICS: Final = tuple(f"clinic-{number}" for number in range(1, 9))
_GAP_S: Final = 0.7
_SLOW_S: Final = (0.15, 0.3)
_QUICK_S: Final = (0.02, 0.06)
_SLOW_SHARE: Final = 0.1
_X12_SHARE: Final = 0.2
_NEAR_SHARE: Final = 0.35
_VISITS_PER_S: Final = 60
_SHORTEST_S: Final = 2.0
_OUTCOMES: Final = {"eligible": 84, "ineligible": 9, "payer_unavailable": 4, "500": 2, "429": 1}
_FACTS: Final = frozenset({"eligible", "ineligible"})
_INCIDENTS: Final = {"none": 68, "again": 6, "lost": 7, "impatient": 3, "double": 7, "two": 6, "crowd": 3}
_CROWD: Final = 6
_LOST_AFTER_S: Final = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the upstream does with a question, each time it is asked."""

    outcome: str
    latency_s: float

    @property
    def status(self) -> int:
        """The HTTP status of its answer."""
        return int(self.outcome) if self.outcome.isdigit() else 200

    @property
    def is_fact(self) -> bool:
        """Whether the answer says something about the patient that stands for a while."""
        return self.outcome in _FACTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. Whoever leaves closes the connection if there is no answer by then."""

    at_s: float
    question: int
    moment: int
    subtenant: str
    path: str
    body: bytes
    leaves_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """All requests, in order of time."""

    seed: int
    asked: Sequence[Asked]

    @property
    def duplicates(self) -> int:
        """Requests beyond the first for a question whose answer is a fact: what need not have been called for."""
        asked = [one.question for one in self.asked if script(self.seed, one.question).is_fact]
        return len(asked) - len({*asked})

    @property
    def needed(self) -> int:
        """Calls that had to be made: one for a fact, one for each moment of what is none."""
        return len({(one.question, 0 if script(self.seed, one.question).is_fact else one.moment) for one in self.asked})


def script(seed: int, question: int) -> Script:
    """Return what the upstream does with a question. What is no fact takes long: it is a payer that does not answer."""
    source = random.Random(f"{seed}:{question}")
    [outcome] = source.choices([*_OUTCOMES], [*_OUTCOMES.values()])
    is_slow = source.random() < _SLOW_SHARE or outcome not in _FACTS
    return Script(outcome=outcome, latency_s=source.uniform(*(_SLOW_S if is_slow else _QUICK_S)))


def day(seed: int, visits: int) -> Day:
    """Return the day of so many visits."""
    planner = _Planner(seed, max(visits / _VISITS_PER_S, _SHORTEST_S))
    for visit in range(visits):
        planner.visit(visit)
    return Day(seed=seed, asked=sorted(planner.asked, key=lambda one: one.at_s))


class _Planner:
    """Adds visits to a day."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.asked: list[Asked] = []
        self._seed = seed
        self._seconds = seconds
        self._source = random.Random(seed)
        self._questions: dict[tuple[str, str, Inquiry], int] = {}
        self._written: Counter[int] = Counter()
        self._moments = count()

    def visit(self, number: int) -> None:
        """Add one visit: its question by every service, and perhaps near misses."""
        source = self._source
        subtenant = source.choice(CLINICS)
        path = PATH_X12 if source.random() < _X12_SHARE else PATH
        about = inquiry(source, number)
        at_s = source.uniform(0, 0.4 * self._seconds)
        if source.random() < _NEAR_SHARE:
            self._asked_nearly(at_s, subtenant, path, about)
        for service in SERVICES:
            if service == "nightly":
                at_s = max(at_s, source.uniform(0.85, 1.0) * self._seconds)
            at_s = self._asked_by(service, at_s, subtenant, path, about)
            at_s += source.uniform(0, 0.1 * self._seconds)

    def _asked_nearly(self, at_s: float, subtenant: str, path: str, about: Inquiry) -> None:
        """Add near misses: the first of them at once as well, and all of them later."""
        near = self._near(subtenant, about)
        self._ask(at_s, near[0][0], path, near[0][1], "registration")
        for whose, nearly in near:
            self._asked_by("billing", at_s + _GAP_S, whose, path, nearly)

    def _near(self, subtenant: str, about: Inquiry) -> list[tuple[str, Inquiry]]:
        """Return some near misses, each with the subtenant on whose behalf it is asked."""
        others = [(subtenant, nearly) for _, nearly in near_misses(about)]
        elsewhere = next(clinic for clinic in CLINICS if clinic != subtenant)
        return self._source.sample([*others, (elsewhere, about)], self._source.randint(1, 3))

    def _asked_by(self, service: str, at_s: float, subtenant: str, path: str, about: Inquiry) -> float:
        """Add a question, and what goes wrong with it; return when the next moment may begin."""
        asked = self._ask(at_s, subtenant, path, about, service)
        latency_s = script(self._seed, asked.question).latency_s
        [incident] = self._source.choices([*_INCIDENTS], [*_INCIDENTS.values()])
        match incident:
            case "again" | "lost":  # the same bytes, later
                if incident == "lost":
                    self.asked[-1] = replace(asked, leaves_after_s=_LOST_AFTER_S)
                at_s += _GAP_S
                self.asked.append(replace(asked, at_s=at_s, moment=next(self._moments)))
            case "impatient" if latency_s >= _SLOW_S[0]:  # the same bytes, while the call is under way
                self.asked[-1] = replace(asked, leaves_after_s=0.3 * latency_s)
                self.asked.append(replace(asked, at_s=at_s + 0.4 * latency_s))
            case "double":  # the same bytes, at the same moment
                self.asked.append(asked)
            case "two" | "crowd":  # the same question in other words, at the same moment
                for _ in range(1 if incident == "two" else _CROWD):
                    other = self._source.choice([*SERVICES])
                    self._ask(at_s, subtenant, path, about, other, asked.moment)
            case _:
                pass
        return at_s + _GAP_S

    def _ask(  # noqa: PLR0913, PLR0917 - one fact each
        self,
        at_s: float,
        subtenant: str,
        path: str,
        about: Inquiry,
        service: str,
        moment: int | None = None,
    ) -> Asked:
        question = self._questions.setdefault((subtenant, path, about), len(self._questions) + 1)
        control_number = f"{question:06d}{self._written[question]:03d}"
        self._written[question] += 1
        write = as_x12 if path == PATH_X12 else as_json
        asked = Asked(
            at_s=at_s,
            question=question,
            moment=next(self._moments) if moment is None else moment,
            subtenant=subtenant,
            path=path,
            body=write(about, service, control_number, self._source),
        )
        self.asked.append(asked)
        return asked
