"""What the simulator remembers between requests, and what it counts.

Rules
- One world per reset: whoever still works on a request keeps the world in which it arrived, so that a
  late end of one test never shows up in the next.
- Every store is bounded and drops its oldest.
- No clock and no sockets: instants come in as arguments.
"""

import base64
import hashlib
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final, Generic, Protocol, TypeVar

from gateway.simulator.faults import Faults
from gateway.simulator.records import Discovery, Transaction

_LOGGED_BYTES: Final = 64 * 1024 * 1024
"""A thousand bodies may be large: the log also keeps to so many bytes."""


class _Kept(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...


Record = TypeVar("Record", bound=_Kept)


class Shelf(Generic[Record]):
    """Records in the order in which they came, found by id and by correlation id."""

    __slots__ = ("_by_correlation", "_by_id", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: OrderedDict[str, Record] = OrderedDict()
        self._by_correlation: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, record: Record) -> None:
        """Keep a record, in the place of the one with its id if there is one."""
        self._by_id[record.id] = record
        self._by_correlation.setdefault(record.correlation_id, {})[record.id] = None
        if len(self._by_id) > self._most:
            _, oldest = self._by_id.popitem(last=False)
            kin = self._by_correlation[oldest.correlation_id]
            del kin[oldest.id]
            if not kin:
                del self._by_correlation[oldest.correlation_id]

    def get(self, record_id: str) -> Record | None:
        """Find a record."""
        return self._by_id.get(record_id)

    def ordered(self, correlation_id: str | None, *, oldest_first: bool) -> Iterator[Record]:
        """Walk over the records, or over those of one correlation id."""
        ids = self._by_id if correlation_id is None else self._by_correlation.get(correlation_id, {})
        for record_id in ids if oldest_first else reversed(ids):
            yield self._by_id[record_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An API request exactly as it came off the wire."""

    operation: str
    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def document(self) -> dict[str, Any]:
        """Write it so that every byte can be compared."""
        return {
            "operation": self.operation,
            "method": self.method,
            "target": self.target,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "body": base64.b64encode(self.body).decode("ascii"),
            "sha256": hashlib.sha256(self.body).hexdigest(),
        }


class RequestLog:
    """The newest requests."""

    __slots__ = ("_bytes", "_most", "_requests")

    def __init__(self, most: int) -> None:
        self._most = most
        self._requests: deque[Received] = deque()
        self._bytes = 0

    def add(self, request: Received) -> None:
        """Keep a request."""
        self._requests.append(request)
        self._bytes += len(request.body)
        while len(self._requests) > self._most or self._bytes > _LOGGED_BYTES:
            self._bytes -= len(self._requests.popleft().body)

    def newest(self, count: int) -> list[Received]:
        """Give the last `count`, oldest of them first."""
        return list(self._requests)[max(0, len(self._requests) - count) :]


@dataclass(slots=True)
class Counters:
    """What happened, as tests read it. `received` and `answered` are by operation."""

    received: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    answered_by_status: Counter[str] = field(default_factory=Counter)
    faults_fired: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    in_flight_max: int = 0
    disconnects: int = 0
    unauthorized: int = 0
    gateway_cuts: int = 0
    submissions_started: int = 0
    submissions_processed: int = 0
    duplicates_answered: int = 0
    discoveries_started: int = 0
    discoveries_ended: int = 0
    tokens_issued: int = 0
    token_requests_refused: int = 0
    callback_tokens_fetched: int = 0
    callbacks_attempted: int = 0
    callbacks_delivered: int = 0
    callbacks_unauthorized: int = 0
    callbacks_given_up: int = 0
    callbacks_not_allowed: int = 0

    def enter(self, operation: str) -> None:
        """Count a request in."""
        self.received[operation] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def document(self) -> dict[str, Any]:
        """Write every counter."""
        found = {counter.name: getattr(self, counter.name) for counter in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in found.items()}

    def answer(self, operation: str, status: int) -> None:
        """Count a request whose whole answer went out."""
        self.answered[operation] += 1
        self.answered_by_status[str(status)] += 1


class World:
    """Everything that a reset throws away."""

    __slots__ = ("_recent", "chance", "counters", "discoveries", "faults", "requests", "transactions")

    def __init__(self, *, seed: int, stored_records: int, stored_requests: int) -> None:
        # Not a secret: latencies are drawn from it, and a seed must repeat them.
        self.chance = random.Random(seed)  # noqa: S311
        self.counters = Counters()
        self.faults = Faults()
        self.requests = RequestLog(stored_requests)
        self.transactions: Shelf[Transaction] = Shelf(stored_records)
        self.discoveries: Shelf[Discovery] = Shelf(stored_records)
        self._recent: dict[bytes, tuple[str, float]] = {}

    def remember(self, key: bytes, transaction: Transaction, now_s: float) -> None:
        """Remember when a materially identical request was last answered."""
        if len(self._recent) >= 2 * max(1_000, len(self.transactions)):
            self._recent = {k: v for k, v in self._recent.items() if self.transactions.get(v[0]) is not None}
        self._recent[key] = (transaction.id, now_s)

    def earlier(self, key: bytes, now_s: float, window_s: float) -> Transaction | None:
        """Find the transaction that this one would repeat."""
        transaction_id, at_s = self._recent.get(key, ("", 0.0))
        return self.transactions.get(transaction_id) if transaction_id and now_s - at_s < window_s else None
