"""Which headers pass.

Facts
- Hop-by-hop headers end at each hop, and so does every header that `Connection` names (RFC 9110, 7.6.1).
- Names are compared without case (RFC 9110, 5.1). Some servers also read "_" as "-", so an underscore twin
  of a header that the gateway answers for is a forgery as well.

Rules
- A protected header is dropped wherever it came from, before the gateway's own value is added: dropping
  only when there is a value to add would let the forged one through on the day there is none.
- Whoever names a subtenant that is not its own is refused: the answer of another one is not what was asked for.
- A caller may not delete end-to-end headers by naming them in `Connection`.
- A value whose bytes are not UTF-8, or are control characters, cannot be sent on as it came: inward the request
  is refused, outward the header is dropped, for the answer is paid for.
- Repeats of a header are spelled as its first: aiohttp would take "X-A" and "x-a" for a value and its replacement.
- The body is framed anew on each side, so Content-Length and Transfer-Encoding never pass.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from multidict import CIMultiDict

from gateway.exchange import CORRELATION_ID, Headers, HeadersView, Inbound, Reply, as_anyone_reads
from gateway.policy.callers import CallerEntry
from gateway.policy.model import HeadersClause
from gateway.policy.values import HOP_BY_HOP, PROTECTED_HEADERS

Pairs = list[tuple[str, str]]

_NO_CONTROL: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
SUBTENANT_ID: Final = "x-optum-subtenant-id"
_STOPS_OUTWARD: Final = HOP_BY_HOP | {"content-length", CORRELATION_ID}
_KEPT_THOUGH_NAMED: Final = frozenset({"cache-control", "date", "link", "location", "traceparent", "tracestate"})
_KEPT_PREFIXES: Final = ("accept", "content-", "x-optum-")


def outbound_headers(
    inbound: Inbound,
    clause: HeadersClause,
    *,
    subtenant: str | None,
    correlation_id: str,
    decided: Iterable[str] = (),
) -> Pairs:
    """Return the headers that go upstream, without the token and the framing; repeats are spelled as the first.

    What an earlier step has `decided` is not passed on.
    """
    stopped = clause.touched | _named_by_connection(inbound.headers) | {name.lower() for name in decided}
    spelling: dict[bytes, str] = {}
    passed = [
        (spelling.setdefault(name.lower(), name.decode("ascii")), value.decode("utf-8"))
        for name, value in inbound.raw_headers
        if (read := as_anyone_reads(name)) not in PROTECTED_HEADERS and read not in stopped
    ]
    passed += clause.set.items()
    passed.append((CORRELATION_ID, correlation_id))
    if subtenant is not None:
        passed.append((SUBTENANT_ID, subtenant))
    return passed


class SpeaksFor(Struct, frozen=True):
    """The request is made on behalf of this subtenant, or of none."""

    subtenant: str | None


class Foreign(Struct, frozen=True):
    """The request names a subtenant that its caller may not speak for, or more than one."""


def choose_subtenant(inbound: HeadersView, clause: HeadersClause, caller: CallerEntry) -> SpeaksFor | Foreign:
    """Decide on whose behalf a request is made: what the caller may name and named once, else what is configured."""
    match clause.subtenant:
        case "from-caller":
            configured = caller.subtenant
        case "none":
            configured = None
        case fixed:
            configured = fixed
    named = inbound.getall(SUBTENANT_ID, ())
    if not named:
        return SpeaksFor(configured)
    (first, *others) = named
    if others or first not in {configured, *caller.subtenant_choices, *clause.subtenant_choices}:
        return Foreign()
    return SpeaksFor(first)


def reply_headers(upstream: Reply, correlation_id: str) -> Headers:
    """Return the headers that go back to the caller: the upstream's, and the caller's own correlation id."""
    named = _named_by_connection(upstream.headers)
    passed = [
        (name.decode("ascii"), value.decode("utf-8"))
        for name, value in upstream.raw_headers
        if (read := as_anyone_reads(name)) not in _STOPS_OUTWARD and read not in named and _can_be_sent(value)
    ]
    passed.append((CORRELATION_ID, correlation_id))
    return CIMultiDict(passed)


def _can_be_sent(value: bytes) -> bool:
    has_control = bool(value.translate(None, _NO_CONTROL))
    return not has_control and (value.isascii() or is_utf8(value.decode("utf-8", "surrogateescape")))


def is_utf8(value: str) -> bool:
    """Whether a header value's bytes were UTF-8: any other byte arrives as a lone surrogate (PEP 383)."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _named_by_connection(headers: HeadersView) -> frozenset[str]:
    if "connection" not in headers:
        return frozenset()
    values = headers.getall("connection")
    names = {name.strip().lower().replace("_", "-") for value in values for name in value.split(",")}
    return frozenset(name for name in names if name not in _KEPT_THOUGH_NAMED and not name.startswith(_KEPT_PREFIXES))
