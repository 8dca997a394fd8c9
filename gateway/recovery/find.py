"""Whether the transaction of a submission that was cut is there, and is the right one.

Rules
- A correlation id is worth as much as it is unique: two transactions under one id, and neither is taken.
- Transactions that another one spawned (`historical`, `autosubmit`) carry its id as well, and are not meant.
- One without an outcome of the contract is not finished.
- One that was processed before the submission was sent is another's, whatever its id; clocks may differ by a minute.
- What is taken is checked again when it is read whole: id, correlation id, outcome, and of whom it speaks.
"""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.exchange import OUTCOMES
from gateway.operations import OPERATIONS, OperationName
from gateway.recovery.subject import Subject, agrees

_LIST: Final = OPERATIONS[OperationName.LIST_TRANSACTIONS].path
_GET: Final = OPERATIONS[OperationName.GET_TRANSACTION].path
_CLOCKS_DIFFER_S: Final = 60.0
_LIMIT: Final = 10
_SUBMITTED: Final = frozenset({"new", "duplicate"})


class There(Struct, frozen=True):
    """There is exactly one, under this id of the upstream's."""

    transaction_id: str


class NotThere(Struct, frozen=True):
    """There is none yet."""


class Ambiguous(Struct, frozen=True):
    """There are several, or one that cannot be this submission's: the correlation id was used again."""


class Unreadable(Struct, frozen=True):
    """The list says nothing that can be read."""


Listed = There | NotThere | Ambiguous | Unreadable


def list_target(correlation_id: str, sent_at: float) -> str:
    """Return the target that lists what there is under an id; `sent_at` in seconds since 1970."""
    since = datetime.fromtimestamp(sent_at - _CLOCKS_DIFFER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{_LIST}?correlationId={correlation_id}&startDateTime={since}&limit={_LIMIT}"


def get_target(transaction_id: str) -> str:
    """Return the target that reads one transaction."""
    return _GET.replace("{id}", transaction_id)


def read_list(body: bytes, correlation_id: str, sent_at: float) -> Listed:
    """Read a list of transactions."""
    document = _read(body)
    if not isinstance(document, list):
        return Unreadable()
    found = [one for one in document if isinstance(one, dict) and _is_meant(one, correlation_id)]
    if not found:
        return NotThere()
    if len(found) > 1 or not _is_recent(found[0], sent_at):
        return Ambiguous()
    number = found[0].get("id")
    return There(number) if isinstance(number, str) and _is_segment(number) else Unreadable()


def is_answer(body: bytes, there: There, correlation_id: str, sent_at: float, subject: Subject) -> bool:
    """Whether a transaction that was read whole is the answer to the submission."""
    document = _read(body)
    return (
        isinstance(document, dict)
        and document.get("id") == there.transaction_id
        and _is_meant(document, correlation_id)
        and _is_recent(document, sent_at)
        and agrees(subject, document)
    )


def _read(body: bytes) -> Any:  # noqa: ANN401 - whatever the upstream sends
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _is_meant(document: dict[str, Any], correlation_id: str) -> bool:
    kind, status = document.get("sourceType"), document.get("status")
    outcome = status.get("value") if isinstance(status, dict) else None
    return (
        document.get("correlationId") == correlation_id
        and isinstance(kind, str)
        and kind in _SUBMITTED
        and isinstance(outcome, str)
        and outcome in OUTCOMES
    )


def _is_recent(document: dict[str, Any], sent_at: float) -> bool:
    try:
        processed = datetime.fromisoformat(document["processedDate"])
    except (KeyError, TypeError, ValueError):
        return False
    instant = processed if processed.tzinfo is not None else processed.replace(tzinfo=UTC)
    return instant.timestamp() >= sent_at - _CLOCKS_DIFFER_S


def _is_segment(number: str) -> bool:
    return number.isascii() and number.replace("-", "").replace("_", "").isalnum()
