"""How much of a process a caller may take.

Rules
- Of a rate, as many requests at once as the bucket holds; it fills evenly, and never beyond its size.
- Nobody may hold more than four times what is still free, whatever is configured: one caller's storm leaves room for
  whoever comes, two storms leave it together, and nobody has to say how many callers there are (Choudhury and Hahne,
  "Dynamic queue length thresholds", 1998). Who is the only caller may hold everything.
"""

import math
from typing import Final

from gateway.policy.callers import LimitsClause

_TIMES_FREE: Final = 4
_ROUNDING: Final = 1e-9  # a bucket that is full but for a rounding error is full


class Bucket:
    """A token bucket; `now` in seconds of a clock that never goes back."""

    __slots__ = ("_at", "_level", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate = rate
        self.size = size
        self._level = size
        self._at = now

    def level(self, now: float) -> float:
        """How many requests may come at once now."""
        return min(self._level + (now - self._at) * self.rate, self.size)

    def take(self, now: float) -> None:
        """Let one request through: `wait_s` was 0."""
        self._level, self._at = self.level(now) - 1.0, now

    def wait_s(self, now: float) -> float:
        """How long until the next request may come."""
        missing = 1.0 - self.level(now)
        return missing / self.rate if missing > _ROUNDING else 0.0


def may_hold_one_more(held: int, free: int, callers: int) -> bool:
    """Whether a caller that holds so many requests may hold another while so many places are free."""
    return free > 0 and (callers <= 1 or held < _TIMES_FREE * free)


def limit_headers(limits: LimitsClause, retry_after_s: int) -> dict[str, str]:
    """What a caller is told of its own limits (draft-ietf-httpapi-ratelimit-headers)."""
    policies, left = [], []
    if limits.rate is not None:
        quota, window_s = _quota(limits.rate)
        policies.append(f'"rate";q={quota};w={window_s}')
        left.append(f'"rate";r=0;t={retry_after_s}')
    if limits.in_flight is not None:
        policies.append(f'"in-flight";q={limits.in_flight};qu="concurrent-requests"')
    told = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}
    return {name: value for name, value in told.items() if value}


def _quota(rate: float) -> tuple[int, int]:
    """A rate as whole requests in whole seconds."""
    return (round(rate), 1) if rate >= 1 else (1, math.ceil(1 / rate - _ROUNDING))
