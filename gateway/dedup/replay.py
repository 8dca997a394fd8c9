"""What an answer is to those who did not ask for it themselves: followers, and whoever asks again.

Rules
- An answer is a fact about a patient only if it is a 200, whole, readable in one way, names its transaction and states
  an outcome. Everything else is handed to those who wait for it, byte for byte, and to nobody later.
- A shared fact says what it is: `sourceType` is `duplicate`, `sourceId` the transaction that it came from, the
  correlation id that of whoever gets it. All other bytes are the upstream's own.
- Of the headers only those pass that describe the answer; a header that nobody thought of stays with the leader.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson
from multidict import CIMultiDict

from gateway.dedup.canonical import NotCanonical, not_finite, without_duplicates
from gateway.exchange import CORRELATION_ID, Headers, Reply

SHARE_MAX_BYTES: Final = 4_194_304  # the largest answers known are a few hundred KB
_SHARED_HEADERS: Final = (
    *("Content-Type", "Content-Encoding", "Content-Language", "Retry-After", "link"),
    *("x-optum-trace-id", "x-optum-tenant-id", "x-optum-subtenant-id"),
)
_FORMAT: Final = b"\x01"  # of what `pack` writes: another one is unreadable, and that is a miss
_COMPRESSION: Final = 1
_OK: Final = 200
_BLANK: Final = frozenset(" \t\r\n")
_DUPLICATE: Final = "duplicate"
# What two answers to one question may differ in without saying anything else about the patient.
_VOLATILE: Final = frozenset({"id", "sourceType", "sourceId", "correlationId", "processedDate", "x12-271"})


class Unpackable(ValueError):
    """These bytes were not written by `pack`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """An answer as others get it. Between two parts of the body stands the correlation id of whoever gets it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    parts: tuple[bytes, ...] = field(repr=False)
    outcome: str = ""
    is_upstream_duplicate: bool = False

    def body(self, correlation_id: str) -> bytes:
        """Return the body for one of them; a well-formed id needs no escapes."""
        return f'"{correlation_id}"'.encode().join(self.parts)

    def reply(self, correlation_id: str) -> Reply:
        """Return the reply to one of them."""
        headers: Headers = CIMultiDict(self.headers)
        headers[CORRELATION_ID] = correlation_id
        return Reply(status=self.status, reason=self.reason, headers=headers, body=self.body(correlation_id))


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The leader got no answer: the code of its problem, and the id under which the upstream may know the request."""

    code: str
    correlation_id: str
    retry_after_s: int | None = None


class NotShareable:
    """The answer was too large to be shared: each asks for itself."""


Landing = Shared | NoAnswer | NotShareable


def share(reply: Reply) -> Shared:
    """Return an answer as others get it; its body must be whole."""
    headers = tuple((name, value) for name in _SHARED_HEADERS for value in reply.headers.getall(name, ()))
    fact = _fact(reply) if reply.status == _OK and "Content-Encoding" not in reply.headers else None
    if fact is None:
        return Shared(status=reply.status, reason=reply.reason, headers=headers, parts=(reply.body,))
    return Shared(
        status=reply.status,
        reason=reply.reason,
        headers=headers,
        parts=fact.parts(),
        outcome=fact.outcome,
        is_upstream_duplicate=fact.is_duplicate,
    )


def pack(landing: Landing, answered_at: float) -> bytes:
    """Return the bytes of a landing and of when it was, for `unpack`."""
    head: dict[str, Any] = {"at": answered_at}
    body = b""
    match landing:
        case Shared():
            head |= {
                "status": landing.status,
                "reason": landing.reason,
                "headers": landing.headers,
                "lengths": [len(part) for part in landing.parts],
                "outcome": landing.outcome,
            }
            body = b"".join(landing.parts)
        case NoAnswer():
            head |= {"code": landing.code, "correlation_id": landing.correlation_id, "wait": landing.retry_after_s}
        case NotShareable():
            pass
    return _FORMAT + zlib.compress(orjson.dumps(head) + b"\n" + body, _COMPRESSION)


def unpack(packed: bytes) -> tuple[Landing, float]:
    """Return the landing, and when it was. Raises Unpackable."""
    if packed[:1] != _FORMAT:
        raise Unpackable
    try:
        line, _, body = zlib.decompress(packed[1:]).partition(b"\n")
        head = orjson.loads(line)
        return _landing(head, body), float(head["at"])
    except (zlib.error, ValueError, TypeError, KeyError):
        raise Unpackable from None


def _landing(head: dict[str, Any], body: bytes) -> Landing:
    if "code" in head:
        return NoAnswer(head["code"], head["correlation_id"], head["wait"])
    if "status" not in head:
        return NotShareable()
    parts: list[bytes] = []
    begin = 0
    for length in head["lengths"]:
        parts.append(body[begin : begin + length])
        begin += length
    return Shared(
        status=head["status"],
        reason=head["reason"],
        headers=tuple((name, value) for name, value in head["headers"]),
        parts=tuple(parts),
        outcome=head["outcome"],
    )


class Difference(StrEnum):
    """What would have been different, had an earlier answer been replayed instead of asking again."""

    NONE = "none"
    DETAILS = "details"
    OUTCOME = "outcome"
    NO_ANSWER = "no_answer"


def difference(earlier: Shared, fresh: Reply) -> Difference:
    """Compare an earlier fact with a fresh answer to the same question, but for what numbers and dates them."""
    fact = _fact(fresh) if fresh.status == _OK else None
    if fact is None:
        return Difference.NO_ANSWER
    if fact.outcome != earlier.outcome:
        return Difference.OUTCOME
    one, two = (
        {name: member.value for name, member in members.items() if name not in _VOLATILE}
        for members in (dict(_members(earlier.body("").decode())), fact.members)
    )
    return Difference.NONE if one == two else Difference.DETAILS


@dataclass(frozen=True, slots=True)
class _Member:
    """One top-level member of a JSON object: where its value stands, and what it is."""

    begin: int
    end: int
    value: object


@dataclass(frozen=True, slots=True)
class _Fact:
    """A 200 that states an outcome."""

    text: str
    members: dict[str, _Member]
    outcome: str

    @property
    def is_duplicate(self) -> bool:
        kind = self.members.get("sourceType")
        return kind is not None and kind.value == _DUPLICATE

    def parts(self) -> tuple[bytes, ...]:
        """Cut the text where the correlation id belongs, and say where the answer comes from."""
        text, members = self.text, self.members
        stated = {"sourceType": f'"{_DUPLICATE}"', "sourceId": text[members["id"].begin : members["id"].end]}
        missing = "".join(f'"{name}":{value},' for name, value in stated.items() if name not in members)
        opening = text.index("{") + 1
        edits: list[tuple[int, int, str | None]] = [(opening, opening, missing)]
        edits += [(members[name].begin, members[name].end, value) for name, value in stated.items() if name in members]
        if "correlationId" in members:
            edits.append((members["correlationId"].begin, members["correlationId"].end, None))
        parts: list[str] = [""]
        done = 0
        for begin, end, value in sorted(edits, key=lambda edit: edit[0]):
            parts[-1] += text[done:begin]
            if value is None:
                parts.append("")
            else:
                parts[-1] += value
            done = end
        parts[-1] += text[done:]
        return tuple(part.encode() for part in parts)


def _fact(reply: Reply) -> _Fact | None:
    if not reply.headers.get("Content-Type", "").lower().startswith("application/json"):
        return None
    try:
        text = reply.body.decode("utf-8")
        members: dict[str, _Member] = {}
        for name, member in _members(text):
            if name in members:
                return None  # two readers might see two answers
            members[name] = member
    except (ValueError, RecursionError, NotCanonical):
        return None
    number, status = members.get("id"), members.get("status")
    if number is None or not isinstance(number.value, str) or not number.value:
        return None
    if status is None or not isinstance(status.value, dict) or not isinstance(status.value.get("value"), str):
        return None
    return _Fact(text, members, status.value["value"])


def _members(text: str) -> Iterator[tuple[str, _Member]]:
    """Yield the top-level members of a JSON object in a text, with their places. Raises ValueError."""
    at = _expect(text, _skip(text, 0), "{")
    while True:
        at = _skip(text, at)
        if not text.startswith('"', at):
            raise ValueError("no member")
        name, at = _DECODER.raw_decode(text, at)
        begin = _skip(text, _expect(text, _skip(text, at), ":"))
        value, at = _DECODER.raw_decode(text, begin)
        yield name, _Member(begin, at, value)
        at = _skip(text, at)
        if not text.startswith(",", at):
            break
        at += 1
    if _skip(text, _expect(text, at, "}")) != len(text):
        raise ValueError("more than one value")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _expect(text: str, at: int, sign: str) -> int:
    if not text.startswith(sign, at):
        raise ValueError(f"no {sign}")
    return at + 1


_DECODER: Final = json.JSONDecoder(object_pairs_hook=without_duplicates, parse_constant=not_finite)
