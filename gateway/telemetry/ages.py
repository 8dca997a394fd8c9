"""How old what is under way is, in bands.

Rules
- A request is in one band of one role: `lead` and `follow` wait for an upstream's answer, `detached` is led on though
  nobody waits for it any more, `other` is everything else (read, not deduplicated, or not decided yet).
- A band is half open, [begin, end): at exactly 110 s a request is in 110-120.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.exchange import DecisionKind, Exchange

BANDS: Final = ("0-10", "10-30", "30-60", "60-90", "90-110", "110-120", "120+")
LEAD, FOLLOW, DETACHED, OTHER = ROLES = ("lead", "follow", "detached", "other")
_ENDS_S: Final = (10.0, 30.0, 60.0, 90.0, 110.0, 120.0)


@dataclass(slots=True)
class Ages:
    """How many there are of each (role, payer, band), and the age in seconds of the oldest of each role."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    oldest_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 0.0))

    def add(self, exchanges: Iterable[Exchange], now: float, *, is_waiting: bool) -> None:
        """Count exchanges that wait, or those that are led and do not."""
        counts, oldest_s = self.counts, self.oldest_s
        for exchange in exchanges:
            role = _role(exchange) if is_waiting else DETACHED
            age_s = now - exchange.started_at
            counts[role, exchange.payer, band(age_s)] += 1
            oldest_s[role] = max(oldest_s[role], age_s)


def band(age_s: float) -> str:
    """Return the band of an age in seconds."""
    for index, end_s in enumerate(_ENDS_S):
        if age_s < end_s:
            return BANDS[index]
    return BANDS[-1]


def _role(exchange: Exchange) -> str:
    decision = exchange.dedup
    if decision is None:
        return OTHER
    if decision.kind is DecisionKind.FOLLOW:
        return FOLLOW
    if decision.kind is not DecisionKind.LEAD:
        return OTHER
    return LEAD if exchange.left_at is None else DETACHED
