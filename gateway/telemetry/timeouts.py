"""Who timed out: told by what was seen on the wire, and when.

Rules
- What we did ourselves is certain: no connection in time is `connect`, our own limit is `gateway`, a caller that went
  before its answer is `caller`.
- A 504 in the enterprise gateway's own shape (an object with its own trace id, and no id of the API) is
  `enterprise_gateway`, whenever it comes: nobody else answers so.
- Any other 504, and a connection that is cut, belong to the mark they are near: from a little before 110 s to half-way
  between the marks to the `enterprise_gateway`, later to the `clearinghouse`. A cut that is near none is an accident.
- An answer that says the payer is unavailable is the `clearinghouse`'s own timeout if it came when that gives up; one
  that came earlier is an outage that is known.

Fact: the marks are the policy's (`timeout.enterprise_gateway`, `timeout.clearinghouse`), for Optum may move them.
"""

import re
from enum import StrEnum
from typing import Final

from gateway.errors import (
    AnswerPending,
    DeadlineExceeded,
    UpstreamBroken,
    UpstreamConnectTimeout,
    UpstreamTimeout,
)
from gateway.exchange import OUTCOMES, PAYER_UNAVAILABLE
from gateway.policy.model import Timeout

_NEAR: Final = 0.97  # of a mark: clocks and networks on the way
_GATEWAY_TIMEOUT: Final = 504
_OK: Final = 200
NO_OUTCOME: Final = "none"
OTHER_OUTCOME: Final = "other"
_STATED: Final = re.compile(rb'"status"\s*:\s*\{[^{}]{0,400}?"value"\s*:\s*"([a-z_]{1,32})"')
_GATEWAYS_OWN: Final = re.compile(rb'^\s*\{[^\[]{0,1000}?"traceId"\s*:')
_TRACE_ID: Final = re.compile(rb'"traceId"\s*:\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,63})"')
_SHAPE_BYTES: Final = 2048


class TimedOut(StrEnum):
    """The five that can end a request without an answer."""

    CLEARINGHOUSE = "clearinghouse"
    ENTERPRISE_GATEWAY = "enterprise_gateway"
    GATEWAY = "gateway"
    CONNECT = "connect"
    CALLER = "caller"


_BY_CODE: Final = {
    UpstreamConnectTimeout.code: TimedOut.CONNECT,
    UpstreamTimeout.code: TimedOut.GATEWAY,
}
_CALLERS_TIME: Final = frozenset({AnswerPending.code, DeadlineExceeded.code})


def outcome_of(status: int | None, body: bytes) -> str:
    """Return the `status.value` of an answer, out of the contract's closed set; `other` or `none` where it is not."""
    if status is None:
        return NO_OUTCOME
    if status == _OK and (stated := _STATED.search(body)) is not None:
        outcome = stated[1].decode("ascii")
        if outcome in OUTCOMES:
            return outcome
    return OTHER_OUTCOME


def trace_id_of(body: bytes) -> str:
    """Return the trace id that the enterprise gateway states in its own refusals, as it stands there."""
    found = _TRACE_ID.search(body[:_SHAPE_BYTES])
    return found[1].decode("ascii") if found is not None else ""


def after_answer(status: int, body: bytes, outcome: str, elapsed_s: float, marks: Timeout) -> TimedOut | None:
    """Say who timed out where an answer came after so long; None where nobody did."""
    if status == _GATEWAY_TIMEOUT:
        return of_504(body) or _near(elapsed_s, marks)
    if outcome == PAYER_UNAVAILABLE and elapsed_s >= marks.clearinghouse * _NEAR:
        return TimedOut.CLEARINGHOUSE
    return None


def after_error(code: str, elapsed_s: float, marks: Timeout) -> TimedOut | None:
    """Say who timed out where a call ended with this problem after so long; None where nobody did."""
    return _near(elapsed_s, marks) if code == UpstreamBroken.code else _BY_CODE.get(code)


def of_request(code: str, status: int, body: bytes, *, had_left: bool, by_call: str) -> str:
    """Say who timed out of a finished request, or nothing: `by_call` is what its own upstream call came to.

    Whoever followed has no call of its own: it is told by the problem, or by the shape of the answer, that it shares.
    """
    if had_left:
        return TimedOut.CALLER
    if code in _CALLERS_TIME:  # whatever has come, or comes, of the call
        return TimedOut.GATEWAY
    if by_call:
        return by_call
    if status == _GATEWAY_TIMEOUT:
        return _BY_CODE.get(code) or of_504(body) or ""
    return ""


def of_504(body: bytes) -> TimedOut | None:
    """Say whose a 504 is by its shape alone, if that tells."""
    shape = body[:_SHAPE_BYTES]
    is_its_own = _GATEWAYS_OWN.match(shape) is not None and b'"correlationId"' not in shape
    return TimedOut.ENTERPRISE_GATEWAY if is_its_own else None


def _near(elapsed_s: float, marks: Timeout) -> TimedOut | None:
    if elapsed_s < marks.enterprise_gateway * _NEAR:
        return None
    half_way_s = (marks.enterprise_gateway + marks.clearinghouse) / 2
    return TimedOut.ENTERPRISE_GATEWAY if elapsed_s < half_way_s else TimedOut.CLEARINGHOUSE
