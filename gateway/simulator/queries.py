"""The lists' filters, order and pages.

Rules
- Filters join with "and"; a repeated or comma-separated `status` joins with "or"; an unknown
  parameter is ignored.
- Names match whatever their case, everything else exactly.
- A page's next link keeps every filter and moves only the offset.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from gateway.simulator.inquiry import Rejected, iso_date
from gateway.simulator.payers import Outcome
from gateway.simulator.records import Discovery, Transaction

_LIMIT: Final = 30
_MOST: Final = 100
_EXACT: Final[dict[str, Callable[[Transaction], str]]] = {
    "correlationId": lambda t: t.correlation_id,
    "memberId": lambda t: t.inquiry.patient.member_id or t.inquiry.subscriber.member_id,
    "payerId": lambda t: t.payer.id,
    "npi": lambda t: t.inquiry.npi,
    "patientAccountNumber": lambda t: t.inquiry.account_number,
    "medicalRecordNumber": lambda t: t.inquiry.medical_record_number,
}
_NAMES: Final[dict[str, Callable[[Transaction], str]]] = {
    "patientFirstName": lambda t: t.inquiry.patient.first_name,
    "patientLastName": lambda t: t.inquiry.patient.last_name,
}

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A list's parameters, understood."""

    pairs: tuple[tuple[str, str], ...]
    values: dict[str, str]
    statuses: frozenset[str]
    start: datetime | None
    end: datetime | None
    oldest_first: bool
    offset: int
    limit: int
    count: bool

    @property
    def correlation_id(self) -> str | None:
        """The one filter that the stores have an index for."""
        return self.values.get("correlationId")

    def within(self, at: datetime) -> bool:
        """Say whether an instant lies in the asked range, both ends included."""
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)


def transactions_query(raw: str) -> Query | Rejected:
    """Read the parameters of the list of transactions."""
    return _query(raw, "processedDate", frozenset(Outcome))


def discoveries_query(raw: str) -> Query | Rejected:
    """Read the parameters of the list of discovery tasks."""
    return _query(raw, "startDateTime", frozenset({"success", "failure", "pending"}))


def transaction_matches(query: Query, transaction: Transaction) -> bool:
    """Say whether a transaction is one that the query asks for."""
    values = query.values
    if query.statuses and transaction.outcome not in query.statuses:
        return False
    if not query.within(transaction.processed_at):
        return False
    if any(name in values and values[name] != read(transaction) for name, read in _EXACT.items()):
        return False
    if any(name in values and values[name].casefold() != read(transaction).casefold() for name, read in _NAMES.items()):
        return False
    born = values.get("patientDateOfBirth")
    return born is None or iso_date(born) == transaction.inquiry.patient.date_of_birth


def discovery_matches(query: Query, task: Discovery) -> bool:
    """Say whether a task is one that the query asks for."""
    if query.statuses and task.status not in query.statuses:
        return False
    if not query.within(task.started_at):
        return False
    return query.correlation_id in {None, task.correlation_id}


def page_of(query: Query, matching: Iterable[Record]) -> tuple[list[Record], bool, int | None]:
    """Cut one page: its records, whether more follow, and the total if it was asked for."""
    if query.count:
        everything = list(matching)
        page = everything[query.offset : query.offset + query.limit]
        return page, query.offset + query.limit < len(everything), len(everything)
    some = list(islice(matching, query.offset, query.offset + query.limit + 1))
    return some[: query.limit], len(some) > query.limit, None


def next_link(path: str, query: Query) -> str:
    """Name the next page, relative to the API's base path."""
    kept = [(name, value) for name, value in query.pairs if name not in {"offset", "limit"}]
    moved = [*kept, ("limit", str(query.limit)), ("offset", str(query.offset + query.limit))]
    return f'<{path}?{urlencode(moved)}>; rel="next"'


def _query(raw: str, sort_field: str, known_statuses: frozenset[str]) -> Query | Rejected:
    try:
        pairs = tuple(parse_qsl(raw, max_num_fields=_MOST))
        values = dict(pairs)
        start, end = _range(values)
        return Query(
            pairs=pairs,
            values=values,
            statuses=_statuses(pairs, known_statuses),
            start=start,
            end=end,
            oldest_first=_oldest_first(values.get("sort", f"-{sort_field}"), sort_field),
            offset=_whole(values, "offset", 0, 0, None),
            limit=_whole(values, "limit", _LIMIT, 1, _MOST),
            count=values.get("returnTotalCount") == "true",
        )
    except ValueError as error:
        return Rejected(400, (f"Bad Request: {error}",))


def _statuses(pairs: tuple[tuple[str, str], ...], known: frozenset[str]) -> frozenset[str]:
    asked = (part.strip() for name, value in pairs if name == "status" for part in value.split(","))
    statuses = frozenset(filter(None, asked))
    if not statuses <= known:
        raise ValueError("'status' must be one of " + ", ".join(sorted(known)))
    return statuses


def _range(values: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    start, end = _instant(values, "startDateTime"), _instant(values, "endDateTime")
    if start is not None and end is not None and start >= end:
        raise ValueError("'startDateTime' must be before 'endDateTime'")
    return start, end


def _oldest_first(sort: str, field: str) -> bool:
    if sort not in {field, f"-{field}"}:
        raise ValueError(f"'sort' must be {field} or -{field}")
    return sort == field


def _whole(values: dict[str, str], name: str, default: int, least: int, most: int | None) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):  # noqa: PLR2004 - no list is longer
        raise ValueError(f"'{name}' must be a whole number")
    number = int(text)
    if number < least or (most is not None and number > most):
        raise ValueError(f"'{name}' must be at least {least}" + ("" if most is None else f" and at most {most}"))
    return number


def _instant(values: dict[str, str], name: str) -> datetime | None:
    text = values.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{name}' must be an ISO 8601 instant") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
