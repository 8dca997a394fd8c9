"""One request and one reply, free of any HTTP library.

Rules
- A header of the request that comes back in a reply is visible ASCII; anything else is not echoed.
- A reply that the enterprise gateway makes carries the gateway's object and none of the API's headers
  but the subtenant; the API's own errors are a JSON list of sentences.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson
from multidict import CIMultiDictProxy

from gateway.operations import TOKEN_PATH, Found, Lookup, Operation, find

DISABLE_VALUE_ADD: Final = "x-optum-eligibility-disable-value-add"
MOCK_SCENARIOS: Final = "x-optum-rcmelig-mock-scenarios"
CORRELATION_ID: Final = "x-optum-correlation-id"
SUBTENANT_ID: Final = "x-optum-subtenant-id"
TENANT_ID: Final = "x-optum-tenant-id"
TRACE_ID: Final = "x-optum-trace-id"

TOKEN: Final = "token"  # noqa: S105 - the endpoint's name in counters and faults
UNKNOWN: Final = "unknown"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request as it came, before anybody has judged it."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query, as written."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What stands behind the first question mark."""
        return self.target.partition("?")[2]

    @property
    def lookup(self) -> Lookup:
        """Which operation it is, if any."""
        return find(self.method, self.path)

    @property
    def name(self) -> str:
        """The operation's name, "token", or "unknown": as counters and faults use it."""
        return name_of(self.method, self.target)

    @property
    def subtenant_id(self) -> str | None:
        """The subtenant that the request names, if it may be repeated."""
        return echoable(self.headers.get(SUBTENANT_ID))

    @property
    def correlation_id(self) -> str | None:
        """The correlation id that the request brings, if it may be repeated."""
        return echoable(self.headers.get(CORRELATION_ID))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An API request that has been let in."""

    operation: Operation
    path: str
    query: str
    body: bytes
    tenant_id: str
    subtenant_id: str | None
    correlation_id: str
    trace_id: str
    disabled: frozenset[str]
    """The value-adds that the caller switched off."""
    scenario: str
    """Which sandbox scenario is asked for, exactly as written; X12 only."""

    @property
    def record_id(self) -> str:
        """The path's last segment."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    headers: Headers = ()
    content_type: str = "application/json"


def name_of(method: str, target: str) -> str:
    """Name a request as counters and faults do."""
    path = target.partition("?")[0]
    if path == TOKEN_PATH:
        return TOKEN
    lookup = find(method, path)
    return lookup.operation.name.value if isinstance(lookup, Found) else UNKNOWN


def json_reply(status: int, document: object, headers: Headers = ()) -> Reply:
    """Reply with JSON."""
    return Reply(status, orjson.dumps(document), headers)


def refusal(status: int, problems: Iterable[str], headers: Headers = ()) -> Reply:
    """Reply with the API's own kind of error: a list of sentences."""
    return json_reply(status, list(problems), headers)


def gateway_refusal(status: int, error: str, description: str, trace_id: str) -> Reply:
    """Reply with the enterprise gateway's kind of error: an object with a trace id."""
    return json_reply(status, {"error": error, "error_description": description, "traceId": trace_id})


def api_headers(call: Call) -> Headers:
    """Give the headers that every answer of the API itself carries."""
    return (
        (TENANT_ID, call.tenant_id),
        *subtenant_header(call.subtenant_id),
        (CORRELATION_ID, call.correlation_id),
        (TRACE_ID, call.trace_id),
    )


def subtenant_header(subtenant_id: str | None) -> Headers:
    """Echo the subtenant, if one was named."""
    return () if subtenant_id is None else ((SUBTENANT_ID, subtenant_id),)


def echoable(value: str | None) -> str | None:
    """Give a header's value back if it may be repeated in a reply."""
    if value and value.isascii() and value.isprintable():
        return value
    return None
