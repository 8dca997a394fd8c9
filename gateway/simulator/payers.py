"""The payers: who answers what, after how long, and which discovery tasks follow.

Rules
- A payer is chosen by the request's `tradingPartnerServiceId` (in X12: the NM109 of NM1*PR), exactly.
- A payer that is not in the table is eligible with the latency of SIM-FAST, so that any real-looking
  request works. A request that names no payer is answered `payer_not_in_system`.
- A latency above the clearinghouse's timeout becomes `payer_unavailable` at that timeout.
- `ineligible`, `patient_unknown` and HMO plans start the payer's discovery tasks.

| payer              | outcome             | latency, s | what it is for                                        |
|--------------------|---------------------|------------|-------------------------------------------------------|
| SIM-INSTANT        | eligible            | 0          | tests that do not care about time                     |
| SIM-FAST           | eligible            | 0.2-0.8    | a good payer                                          |
| SIM-TYPICAL        | eligible            | 2-6        | an ordinary payer                                     |
| SIM-SLOW           | eligible            | 40-80      | a payer in its heavy hours                            |
| SIM-CUT110         | eligible            | 115        | cut at 110 s with 504, stored at 115 s                |
| SIM-UNCUT          | eligible            | 115        | the same without the cut: 200 after 115 s             |
| SIM-TIMEOUT        | (payer_unavailable) | 300        | cut at 110 s, given up at 120 s                       |
| SIM-TIMEOUT-UNCUT  | (payer_unavailable) | 300        | 200 after 120 s, with the clearinghouse's own verdict |
| SIM-INELIGIBLE     | ineligible          | 0.2-0.8    | one discovery task, which succeeds                    |
| SIM-UNKNOWN        | patient_unknown     | 0.2-0.8    | one discovery task, which fails                       |
| SIM-DOWN           | payer_unavailable   | 1-3        | an outage, quickly known                              |
| SIM-ERROR          | processing_error    | 0.2-0.8    | a mistake on the way                                  |
| SIM-NOTFOUND       | payer_not_in_system | 0          | an id that nobody knows                               |
| SIM-HMO            | eligible            | 0.2-0.8    | an HMO plan: two discovery tasks; 207 when submitted  |
| SIM-LARGE          | eligible            | 0.2-0.8    | an answer above 100 KB                                |
| SIM-MIXED          | ineligible          | 0.2-0.8    | 207: one task accepted, one refused                   |
| SIM-NOPATH         | ineligible          | 0.2-0.8    | discovery never qualifies: no `link`, 422             |
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Outcome(StrEnum):
    """The contract's `status.value`."""

    ELIGIBLE = "eligible"
    INELIGIBLE = "ineligible"
    PAYER_UNAVAILABLE = "payer_unavailable"
    PAYER_NOT_IN_SYSTEM = "payer_not_in_system"
    PROCESSING_ERROR = "processing_error"
    PATIENT_UNKNOWN = "patient_unknown"


@dataclass(frozen=True, slots=True)
class Span:
    """A duration between two bounds, in simulated seconds, drawn evenly."""

    low_s: float
    high_s: float

    def draw(self, chance: random.Random) -> float:
        """Draw one duration."""
        return chance.uniform(self.low_s, self.high_s)


@dataclass(frozen=True, slots=True)
class Path:
    """One discovery path. `finds` is the outcome of its inquiry; None: the path is skipped."""

    name: str
    finds: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """A discovery task as enrolled: a plan without paths never qualifies."""

    name: str
    kind: str
    paths: tuple[Path, ...]
    duration: Span = Span(60.0, 300.0)

    @property
    def succeeds(self) -> bool:
        """A task succeeds when any of its paths finds coverage."""
        return any(path.finds is Outcome.ELIGIBLE for path in self.paths)


_FOUND: Final = TaskPlan(
    name="Serial Search",
    kind="serial",
    paths=(
        Path("Commercial", Outcome.ELIGIBLE),
        Path("Medicaid", Outcome.PATIENT_UNKNOWN),
        Path("RTCOB", None),
    ),
)
_NOT_FOUND: Final = TaskPlan(
    name="Serial Search",
    kind="serial",
    paths=(Path("Commercial", Outcome.PATIENT_UNKNOWN), Path("Medicare", Outcome.PROCESSING_ERROR)),
)
_CHAINED: Final = TaskPlan(
    name="Chained Search",
    kind="chained",
    paths=(Path("HMO", Outcome.ELIGIBLE), Path("Coverage Insight", None)),
)
_NO_PATH: Final = TaskPlan(name="Chained Search", kind="chained", paths=())
_GOOD: Final = Span(0.2, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """How one payer behaves."""

    id: str
    name: str
    outcome: Outcome = Outcome.ELIGIBLE
    latency: Span = _GOOD
    hmo: bool = False
    benefit_rows: int = 8
    behind_cut: bool = True
    """False: the enterprise gateway does not cut this payer's answers."""
    tasks: tuple[TaskPlan, ...] = (_FOUND,)

    def starts_discovery(self, outcome: Outcome) -> bool:
        """Say whether a real-time answer with this outcome starts the payer's tasks."""
        return self.hmo or outcome in {Outcome.INELIGIBLE, Outcome.PATIENT_UNKNOWN}


_TABLE: Final = (
    Payer(id="SIM-INSTANT", name="Instant Mutual", latency=Span(0.0, 0.0)),
    Payer(id="SIM-FAST", name="Swift Health"),
    Payer(id="SIM-TYPICAL", name="Everyday Health Plan", latency=Span(2.0, 6.0)),
    Payer(id="SIM-SLOW", name="Patience Assurance", latency=Span(40.0, 80.0)),
    Payer(id="SIM-CUT110", name="Almost There Life", latency=Span(115.0, 115.0)),
    Payer(id="SIM-UNCUT", name="Just In Time Life", latency=Span(115.0, 115.0), behind_cut=False),
    Payer(id="SIM-TIMEOUT", name="Silent Union", latency=Span(300.0, 300.0)),
    Payer(id="SIM-TIMEOUT-UNCUT", name="Silent Union West", latency=Span(300.0, 300.0), behind_cut=False),
    Payer(id="SIM-INELIGIBLE", name="Lapsed Benefit Trust", outcome=Outcome.INELIGIBLE),
    Payer(id="SIM-UNKNOWN", name="Stranger Health", outcome=Outcome.PATIENT_UNKNOWN, tasks=(_NOT_FOUND,)),
    Payer(id="SIM-DOWN", name="Night Shift Insurance", outcome=Outcome.PAYER_UNAVAILABLE, latency=Span(1.0, 3.0)),
    Payer(id="SIM-ERROR", name="Mishap Mutual", outcome=Outcome.PROCESSING_ERROR),
    Payer(id="SIM-NOTFOUND", name="Nobody", outcome=Outcome.PAYER_NOT_IN_SYSTEM, latency=Span(0.0, 0.0)),
    Payer(id="SIM-HMO", name="Gatekeeper HMO", hmo=True, tasks=(_FOUND, _CHAINED)),
    Payer(id="SIM-LARGE", name="Fine Print Insurance", benefit_rows=900),
    Payer(id="SIM-MIXED", name="Half Way Health", outcome=Outcome.INELIGIBLE, tasks=(_FOUND, _NO_PATH)),
    Payer(id="SIM-NOPATH", name="Dead End Health", outcome=Outcome.INELIGIBLE, tasks=(_NO_PATH,)),
)

PAYERS: Final[Mapping[str, Payer]] = MappingProxyType({payer.id: payer for payer in _TABLE})
_UNLISTED: Final = Payer(id="", name="Unlisted Payer")


def payer_for(payer_id: str) -> Payer:
    """Find the payer of an id; every id has one."""
    if not payer_id:
        return replace(PAYERS["SIM-NOTFOUND"], id="")
    return PAYERS.get(payer_id) or replace(_UNLISTED, id=payer_id)
