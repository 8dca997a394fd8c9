"""Whether a request is a question that may share its answer, decided by what the caller sent alone.

Rules
- Who asks the upstream not to deduplicate is not deduplicated here either.
- A body that is not JSON by its own account, or by ours, passes as it came: what we cannot read in exactly one way,
  we do not compare. Nor do we decode one: what it says is then the upstream's to find out.
- A caller that does not take JSON would get another answer than the others, and so would one that wants a part of it,
  or none if it has it already.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.dedup.canonical import FieldRules, NotCanonical
from gateway.dedup.fingerprint import DEDUPLICATION, VALUE_ADDS, Question, read_question, value_adds
from gateway.exchange import Inbound
from gateway.operations import OperationName

_JSON: Final = "application/json"
_CHARSETS: Final = frozenset({"", "charset=utf-8", 'charset="utf-8"'})
_CONDITIONAL: Final = frozenset(
    {"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"}
)
_TAKES_JSON: Final = ("*/*", "application/*", _JSON)


class Reason(StrEnum):
    """Why a request was not deduplicated, beside those for which a body has no canonical form."""

    REQUESTED = "requested"
    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"
    ACCEPT = "accept"
    CONDITIONAL = "conditional"
    STORE_UNAVAILABLE = "store_unavailable"
    TOO_LARGE = "too_large"


class Ask(Struct, frozen=True):
    """A question; `is_fresh` where the caller wants a fresh answer whatever is kept."""

    question: Question
    is_fresh: bool


class Pass(Struct, frozen=True):
    """No question that could share its answer."""

    reason: str


def decide(operation: OperationName, inbound: Inbound, rules: FieldRules) -> Ask | Pass:
    """Read a request as a question, if it is one."""
    headers = inbound.headers
    is_fresh = VALUE_ADDS in headers and _wants_fresh(headers.getall(VALUE_ADDS))
    reason: str
    if not _is_json(headers.getall("Content-Type", ())):
        reason = Reason.CONTENT_TYPE
    elif "Content-Encoding" in headers:
        reason = Reason.CONTENT_ENCODING
    elif not _takes_json(headers.getall("Accept", ())):
        reason = Reason.ACCEPT
    elif not _CONDITIONAL.isdisjoint(map(str.lower, headers)):
        reason = Reason.CONDITIONAL
    else:
        try:
            question = read_question(inbound.body, rules, is_x12=operation is OperationName.SUBMIT_ELIGIBILITY_X12)
            return Ask(question, is_fresh)
        except NotCanonical as error:
            reason = error.reason
    return Pass(Reason.REQUESTED if is_fresh else reason)


def _wants_fresh(values: list[str]) -> bool:
    return any(DEDUPLICATION in value_adds(value) for value in values)


def _is_json(values: list[str] | tuple[()]) -> bool:
    if len(values) != 1:
        return not values
    kind, _, parameters = values[0].lower().partition(";")
    return kind.strip() == _JSON and parameters.strip() in _CHARSETS


def _takes_json(values: list[str] | tuple[()]) -> bool:
    return not values or any(kind in value.lower() for value in values for kind in _TAKES_JSON)
