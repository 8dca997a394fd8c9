"""The life of a token: when it may be used, when it is renewed, how long to wait after a refusal.

Rules
- Instants are seconds of a monotonic clock that the caller passes as `now`; the issuer's `Date` is never
  trusted, and a token is never looked into.
- A token must outlive the moment at which a request is sent, not the two minutes of its answer: the upstream
  checks it once.
- The margin before expiry is 10 % of the life, at least 30 s, and never more than half of it.
- Renewal begins at 75-85 % of the life, at a point that differs by replica, while the old token still serves.
- Whatever an issuer says in `expires_in`, the answer here is a finite, positive number of seconds.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gateway.tls import Distrust

DEFAULT_LIFE_S: Final = 60.0  # for an issuer that does not say, or says nonsense
MAX_LIFE_S: Final = 86400.0  # nobody issues longer ones; a larger number is a mistake of units
_MARGIN_SHARE: Final = 0.10
_MARGIN_MIN_S: Final = 30.0
_REFRESH_FROM: Final = 0.75
_REFRESH_SPAN: Final = 0.10
_REFUSED_BASE_S: Final = 5.0
MAX_BACKOFF_S: Final = 300.0
_UNAVAILABLE_BASE_S: Final = 1.0
_UNAVAILABLE_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token in use. `generation` tells two tokens apart without showing either."""

    secret: str = field(repr=False)
    generation: str
    received_at: float
    refresh_at: float
    usable_until: float
    expires_at: float

    def is_usable(self, now: float) -> bool:
        """Whether a request that is sent now may carry it."""
        return now < self.usable_until

    def is_valid(self, now: float) -> bool:
        """Whether the upstream should still honour it: good enough while there is no better one to be had."""
        return now < self.expires_at


class Cause(StrEnum):
    """Why the issuer gave no token."""

    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Issued:
    """The issuer gave a token that it will honour for `life_s`."""

    secret: str = field(repr=False)
    life_s: float


@dataclass(frozen=True, slots=True)
class NotIssued:
    """The issuer gave none; `retry_after_s` is what it asked for, 0 where it did not."""

    cause: Cause
    retry_after_s: float = 0.0
    status: int | None = None
    is_reachable: bool = True
    distrust: Distrust | None = None


Answer = Issued | NotIssued


@dataclass(frozen=True, slots=True)
class Use:
    """The token at hand is good."""

    token: Token


@dataclass(frozen=True, slots=True)
class UseAndRefresh:
    """The token at hand is good, and old enough to be renewed behind the request's back."""

    token: Token


@dataclass(frozen=True, slots=True)
class Fetch:
    """There is no usable token at hand."""


Move = Use | UseAndRefresh | Fetch


def next_move(token: Token | None, now: float) -> Move:
    """Decide what a request does that needs a token now."""
    if token is None or not token.is_usable(now):
        return Fetch()
    return UseAndRefresh(token) if now >= token.refresh_at else Use(token)


def read_life_s(expires_in: object) -> float:
    """Read an issuer's `expires_in`: seconds as a number or a numeral; anything odd is the short default."""
    if isinstance(expires_in, str):
        try:
            expires_in = float(expires_in)
        except ValueError:
            return DEFAULT_LIFE_S
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DEFAULT_LIFE_S
    # Compared before it is converted: an integer of 400 digits has no float. NaN is in no range.
    return float(expires_in) if 0 < expires_in <= MAX_LIFE_S else DEFAULT_LIFE_S


def usable_life_s(life_s: float) -> float:
    """Return how long of its life a token may be used."""
    margin_s = max(_MARGIN_MIN_S, _MARGIN_SHARE * life_s)
    return life_s - min(margin_s, life_s / 2)


def begin(issued: Issued, generation: str, *, remaining_s: float, now: float, jitter: float) -> Token:
    """Put a token to use that has `remaining_s` of its usable life left; `jitter` is in [0, 1)."""
    usable_s = usable_life_s(issued.life_s)
    usable_until = now + min(remaining_s, usable_s)
    received_at = usable_until - usable_s
    share = _REFRESH_FROM + _REFRESH_SPAN * jitter
    # A token so short-lived that its margin would come first is renewed at that share of its usable life.
    is_long = issued.life_s * (_REFRESH_FROM + _REFRESH_SPAN) < usable_s
    refresh_at = received_at + share * (issued.life_s if is_long else usable_s)
    return Token(
        secret=issued.secret,
        generation=generation,
        received_at=received_at,
        refresh_at=refresh_at,
        usable_until=usable_until,
        expires_at=received_at + issued.life_s,
    )


def backoff_s(cause: Cause, failures: int, asked_s: float = 0.0) -> float:
    """Return how long nobody asks the issuer again after so many failures in a row (1 is the first).

    A refusal doubles from 5 s to 5 min: an account that is asked too often is locked. An outage doubles from
    1 s to 30 s. A longer wait that the issuer asked for is granted, up to 5 min.
    """
    base_s, max_s = (
        (_REFUSED_BASE_S, MAX_BACKOFF_S) if cause is Cause.REFUSED else (_UNAVAILABLE_BASE_S, _UNAVAILABLE_MAX_S)
    )
    doubled_s = min(base_s * 2.0 ** min(failures - 1, 16), max_s)
    return max(doubled_s, min(asked_s, MAX_BACKOFF_S))
