"""One request and all that is known of it.

Rules
- `Inbound`, `Outbound` and `Reply` are values: what was received, what is sent upstream, what goes back.
- `Exchange` is the one thing that grows while a request passes through the house: steps add facts to it.
- `Record` is the frozen sum of a finished exchange, `CallRecord` of a finished upstream call, which may outlive the
  exchange that made it; metrics and log lines are functions of these two alone.
- Header names keep the case in which they came; they are compared without case (RFC 9110, section 5.1).
- No repr here shows a header value, a body or a target: all three may carry PHI.

Fact: values are msgspec structs, which are made at a fifth of a frozen dataclass's price, and a request makes twenty.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.operations import Operation
from gateway.policy.callers import FORWARDED, Caller
from gateway.policy.model import Policy

UNKNOWN: Final = "unknown"
TOKEN: Final = "token"  # noqa: S105 - the name of what is asked for
OTHER_PAYER: Final = "other"
PAYER_UNAVAILABLE: Final = "payer_unavailable"
OUTCOMES: Final = frozenset(  # of the contract, `status.value`
    {
        *("eligible", "ineligible", PAYER_UNAVAILABLE, "payer_not_in_system", "processing_error", "patient_unknown"),
    },
)
CORRELATION_ID: Final = "x-optum-correlation-id"
TRACE_ID: Final = "x-optum-trace-id"

Headers = CIMultiDict[str]
HeadersView = CIMultiDictProxy[str] | CIMultiDict[str]
RawHeaders = Sequence[tuple[bytes, bytes]]


class Inbound(Struct, frozen=True, kw_only=True):
    """A request as received: raw target, end-to-end and hop-by-hop headers, the whole body.

    `headers` are for asking, `raw_headers` for passing on: aiohttp's view rewrites the case of names it knows.
    `certificate_names` are those of the client certificate that was verified: "dns:…" and "uri:…"; it ends at
    `certificate_ends_at`, in seconds since 1970.
    """

    method: str
    raw_target: str
    headers: HeadersView
    raw_headers: RawHeaders
    body: bytes
    certificate_names: tuple[str, ...] = ()
    certificate_ends_at: float = math.inf

    @property
    def raw_path(self) -> str:
        """The target without its query, byte for byte."""
        return self.raw_target.partition("?")[0]

    def __repr__(self) -> str:
        return f"Inbound(method={self.method!r})"


class Outbound(Struct, frozen=True, kw_only=True):
    """A request as sent upstream: the target is the inbound's, the headers are complete but for framing.

    `headers` belong to this outbound alone: each step adds its own to them.
    """

    method: str
    raw_target: str
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, inbound: Inbound) -> "Outbound":
        """Return the request as it came, still without any header."""
        return cls(method=inbound.method, raw_target=inbound.raw_target, headers=CIMultiDict(), body=inbound.body)

    def __repr__(self) -> str:
        return f"Outbound(method={self.method!r})"


class Reply(Struct, frozen=True, kw_only=True):
    """What goes back: `body` is whole, or the beginning of a body whose `rest` is still arriving.

    `raw_headers` are what the upstream sent, for the step that says which of them go back as `headers`; those belong
    to this reply alone: each step adds its own to them.
    """

    status: int
    reason: str
    headers: Headers
    raw_headers: RawHeaders = ()
    body: bytes
    rest: AsyncGenerator[bytes, None] | None = None

    def __repr__(self) -> str:
        return f"Reply(status={self.status!r}, reason={self.reason!r})"

    async def discard(self) -> None:
        """Let go of a reply that nobody will read: its connection is given back."""
        if self.rest is not None:
            await self.rest.aclose()


class Trace(Struct, frozen=True):
    """Where a request stands in a distributed trace (W3C Trace Context): 32 and 16 lower-case hex digits.

    Without tracing `span_id` is that of whoever asks; with it, our own, and `parent_id` that of whoever asks.
    """

    trace_id: str
    span_id: str
    is_sampled: bool = True
    parent_id: str = ""

    @property
    def header(self) -> str:
        """The value of `traceparent` for whoever is asked within this span."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


class DecisionKind(StrEnum):
    """The four things that deduplication can do with a request."""

    LEAD = "lead"
    FOLLOW = "follow"
    REPLAY = "replay"
    BYPASS = "bypass"


class Recovery(StrEnum):
    """What came of looking for a submission that was cut without an answer.

    UNAVAILABLE: the list could not be read. REUSED: the correlation id may name another submission as well.
    """

    RECOVERED = "recovered"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    REUSED = "reused"


class Decision(Struct, frozen=True, kw_only=True):
    """What deduplication did with a request, or in shadow mode would have done. Every string is from a closed set.

    `outcome` and `difference` are of shadow mode: the outcome that would have been replayed, and what a replay would
    have got wrong. `is_upstream_duplicate`: the upstream itself answered from an earlier transaction.
    """

    mode: str
    kind: DecisionKind
    reason: str = ""
    age_s: float | None = None
    outcome: str = ""
    difference: str = ""
    is_upstream_duplicate: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """One request on its way. All instants and durations are seconds of the loop's clock.

    `tag`: a keyed digest of the question, where the audit trail wants one. `goes_on`: an answer that comes after the
    caller's time is kept for whoever asks again. `waiting_since` and `waited_s`: not the gateway's own time, but that
    of the upstream, the token endpoint, a leader or the caller itself.
    """

    inbound: Inbound
    correlation_id: str
    started_at: float
    operation: Operation | None = None
    is_forwarded: bool = False
    asks_for_token: bool = False
    caller: Caller | None = None
    identified_by: str = ""
    policy: Policy | None = None
    subtenant: str | None = None
    dedup: Decision | None = None
    upstream_s: float | None = None
    upstream_status: int | None = None
    upstream_calls: int = 0
    token_wait_s: float = 0.0
    follow_s: float | None = None
    payer: str = OTHER_PAYER
    tag: str = ""
    must_be_audited: bool = False
    trace: Trace | None = None
    budget_s: float | None = None
    goes_on: bool = False
    timed_out_by: str = ""
    recovery: str = ""
    upstream_trace_id: str = ""
    left_at: float | None = None
    waiting_since: float | None = None
    waited_s: float = 0.0

    def waits(self, now: float) -> None:
        """From now on it is not us who take the time."""
        self.waiting_since = now

    def resumes(self, now: float) -> float:
        """The wait is over, if there was one; return how long it was."""
        if self.waiting_since is None:
            return 0.0
        waited_s, self.waiting_since = now - self.waiting_since, None
        self.waited_s += waited_s
        return waited_s

    @property
    def operation_name(self) -> str:
        """The contract's name, `token`, `forwarded` for a path that a policy forwards, `unknown` for any other."""
        if self.asks_for_token:
            return TOKEN
        if self.operation is not None:
            return self.operation.name.value
        return FORWARDED if self.is_forwarded else UNKNOWN

    @property
    def governing(self) -> Policy:
        """The policy that governs: every step comes after the policy was chosen."""
        if self.policy is None:
            raise LookupError("no policy was chosen yet")
        return self.policy

    @property
    def asking(self) -> Caller:
        """The caller: every step comes after it was identified."""
        if self.caller is None:
            raise LookupError("the caller was not identified yet")
        return self.caller


def as_anyone_reads(raw_name: bytes) -> str:
    """Return a header's name as the laxest reader takes it: without case, and "_" for "-"."""
    return raw_name.lower().replace(b"_", b"-").decode("ascii")


class Forward(Protocol):
    """The rest of the way: everything behind a step, down to the upstream."""

    async def __call__(self, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Send on, and return what came back. Raises GatewayError where nothing did."""
        ...


class Step(Protocol):
    """What carries out one clause: it may change what goes out, what comes back, or answer by itself."""

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Take part in the request; `forward` is the rest of the way."""
        ...


class Record(Struct, frozen=True, kw_only=True):
    """One finished request. Every string here comes from a closed set or is a well-formed id: none is PHI."""

    operation: str
    caller: str
    identified_by: str
    policy: str
    method: str
    status: int
    code: str
    correlation_id: str
    trace_id: str
    duration_s: float
    upstream_s: float | None
    upstream_status: int | None
    upstream_calls: int
    token_wait_s: float
    follow_s: float | None
    own_s: float
    budget_s: float | None
    payer: str
    timed_out_by: str
    recovery: str
    left_s: float | None
    dedup: Decision | None
    request_bytes: int
    reply_bytes: int
    is_complete: bool
    trace: Trace | None
    subtenant: str = ""
    tag: str = ""
    must_be_audited: bool = False


class RecoveryRecord(Struct, frozen=True, kw_only=True):
    """What came of looking for one cut submission; `trace_id` and `timed_out_by` are of the call that was cut."""

    operation: str
    caller: str
    payer: str
    recovery: Recovery
    timed_out_by: str
    correlation_id: str
    trace_id: str
    duration_s: float
    trace: Trace | None


class CallRecord(Struct, frozen=True, kw_only=True):
    """One finished upstream call; `is_awaited` is false where the request that made it has its record already."""

    operation: str
    caller: str
    payer: str
    status: int | None
    outcome: str
    timed_out_by: str
    correlation_id: str
    trace_id: str
    duration_s: float
    is_awaited: bool
    trace: Trace | None
