"""For how long an answer stands for the question that it answered.

Rules
- The window looks back from now to when the answer was given, and is half open: an answer exactly as old as the
  window is out of it. Zero means never.
- Only the outcomes that a policy names are facts about a patient; each may shorten the window for itself.
- An answer of an earlier calendar month, in the policy's time zone, is out of the window where the policy excludes it.
- Whatever cannot be placed in time is out of the window: an answer from the future, above all.
- Instants are seconds since 1970 of Redis' clock, so the clocks of replicas do not matter.

Fact: a month begins at the first midnight of its first day. Where a clock change skips that midnight or repeats it,
the rules of PEP 495 (fold=0) give the instant of the change, or the earlier of the two midnights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from gateway.policy.model import DedupClause

CLOCK_STEP_S: Final = 5.0  # after a failover another server's clock counts; this much may it lie behind
_DECEMBER: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a policy says of time. `outcome_s` holds each outcome that may be replayed, and its own limit."""

    lookback_s: float
    outcome_s: Mapping[str, float]
    exclude_prior_month: bool
    zone: ZoneInfo

    def remaining_s(self, outcome: str, answered_at: float, now: float) -> float:
        """Return for how long from now the answer may still be replayed; 0 if it may not."""
        limit_s = min(self.lookback_s, self.outcome_s.get(outcome, 0.0))
        age_s = now - answered_at
        if limit_s <= 0 or age_s < -CLOCK_STEP_S:
            return 0.0
        ends_at = answered_at + limit_s
        if self.exclude_prior_month:
            ends_at = min(ends_at, next_month(answered_at, self.zone))
        return max(min(ends_at - now, limit_s), 0.0)


def window_of(clause: DedupClause) -> Window:
    """Return the window that a policy states."""
    return Window(
        lookback_s=clause.window,
        outcome_s=dict(clause.outcomes.items()),  # widens the type of its keys
        exclude_prior_month=clause.exclude_prior_month,
        zone=ZoneInfo(clause.time_zone),
    )


def next_month(at: float, zone: ZoneInfo) -> float:
    """Return the instant at which the month after the one of `at` begins in a time zone."""
    here = datetime.fromtimestamp(at, zone)
    is_last = here.month == _DECEMBER
    return datetime(here.year + is_last, 1 if is_last else here.month + 1, 1, tzinfo=zone).timestamp()
