"""What an answer is to those who did not ask for it themselves: followers, and whoever asks again.

Rules
- An answer is a fact about a patient only if it is a 200, whole, readable in one way, names its transaction and states
  an outcome. Everything else is handed to those who wait for it, byte for byte, and to nobody later.
- A shared fact says what it is: `sourceType` is `duplicate`, `sourceId` the transaction that it came from, the
  correlation id that of whoever gets it. All other bytes are the upstream's own.
- Of the headers only those pass that describe the answer; a header that nobody thought of stays with the leader.
"""

import re
from enum import StrEnum
from typing import Final

import lz4.block
import msgspec
import orjson
from msgspec import Struct
from multidict import CIMultiDict

from gateway.dedup.canonical import NotCanonical, read_object
from gateway.exchange import CORRELATION_ID, Headers, Reply

SHARE_MAX_BYTES: Final = 4_194_304  # the largest answers known are a few hundred KB
_SHARED_HEADERS: Final = (
    *("Content-Type", "Content-Encoding", "Content-Language", "Retry-After", "link"),
    *("x-optum-trace-id", "x-optum-tenant-id", "x-optum-subtenant-id"),
)
_PACKED_MAX_BYTES: Final = 2 * SHARE_MAX_BYTES  # a body, and a few headers
_FORMAT: Final = b"\x03"  # of what `pack` writes: another one is unreadable, and that is a miss
_OK: Final = 200
_BEFORE_VALUE: Final = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_OPENINGS: Final = (b"{", b",")
_END: Final = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")
_DUPLICATE: Final = "duplicate"
# What two answers to one question may differ in without saying anything else about the patient.
_VOLATILE: Final = frozenset({"id", "sourceType", "sourceId", "correlationId", "processedDate", "x12-271"})


class Unpackable(ValueError):
    """These bytes were not written by `pack`."""


class Shared(Struct, frozen=True, kw_only=True, tag="shared"):
    """An answer as others get it. Between two parts of the body stands the correlation id of whoever gets it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    parts: tuple[bytes, ...]
    outcome: str = ""
    is_upstream_duplicate: bool = False

    def __repr__(self) -> str:
        return f"Shared(status={self.status!r}, outcome={self.outcome!r})"

    def body(self, correlation_id: str) -> bytes:
        """Return the body for one of them; a well-formed id needs no escapes."""
        return f'"{correlation_id}"'.encode().join(self.parts)

    def reply(self, correlation_id: str) -> Reply:
        """Return the reply to one of them."""
        headers: Headers = CIMultiDict(self.headers)
        headers[CORRELATION_ID] = correlation_id
        return Reply(status=self.status, reason=self.reason, headers=headers, body=self.body(correlation_id))


class NoAnswer(Struct, frozen=True, tag="no_answer"):
    """The leader got no answer: the code of its problem, and the id under which the upstream may know the request."""

    code: str
    correlation_id: str
    retry_after_s: int | None = None


class NotShareable(Struct, frozen=True, tag="not_shareable"):
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
    packed: bytes = lz4.block.compress(_PACK.encode((answered_at, landing)))
    return _FORMAT + packed


def unpack(packed: bytes) -> tuple[Landing, float]:
    """Return the landing, and when it was. Raises Unpackable."""
    # The size stands in front, and is allocated before anything is read.
    if packed[:1] != _FORMAT or int.from_bytes(packed[1:5], "little") > _PACKED_MAX_BYTES:
        raise Unpackable
    try:
        answered_at, landing = _UNPACK.decode(lz4.block.decompress(memoryview(packed)[1:]))
    except (lz4.block.LZ4BlockError, ValueError):  # msgspec's own errors are ValueErrors
        raise Unpackable from None
    return landing, answered_at


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
    try:
        one, two = (
            {name: value for name, value in orjson.loads(body).items() if name not in _VOLATILE}
            for body in (earlier.body(""), fresh.body)
        )
    except orjson.JSONDecodeError:  # 1e999, for instance: JSON, and more than a float holds
        return Difference.DETAILS
    return Difference.NONE if one == two else Difference.DETAILS


class _Fact(Struct, frozen=True):
    """A 200 that states an outcome. `places`: where the value of each top-level member begins and ends."""

    body: bytes
    places: dict[str, tuple[int, int]]
    outcome: str
    is_duplicate: bool

    def __repr__(self) -> str:
        return f"_Fact(outcome={self.outcome!r})"

    def parts(self) -> tuple[bytes, ...]:
        """Cut the text where the correlation id belongs, and say where the answer comes from."""
        body, places = self.body, self.places
        begin, end = places["id"]
        stated = {"sourceType": b'"%b"' % _DUPLICATE.encode(), "sourceId": body[begin:end]}
        missing = b"".join(b'"%b":%b,' % (name.encode(), value) for name, value in stated.items() if name not in places)
        opening = body.index(b"{") + 1
        edits: list[tuple[int, int, bytes | None]] = [(opening, opening, missing)]
        edits += [(*places[name], value) for name, value in stated.items() if name in places]
        if "correlationId" in places:
            edits.append((*places["correlationId"], None))
        edits.sort(key=lambda edit: edit[0])
        parts: list[list[bytes]] = [[]]
        done = 0
        for begin, end, value in edits:
            parts[-1].append(body[done:begin])
            if value is None:
                parts.append([])
            else:
                parts[-1].append(value)
            done = end
        parts[-1].append(body[done:])
        return tuple(b"".join(part) for part in parts)


def _fact(reply: Reply) -> _Fact | None:
    if not reply.headers.get("Content-Type", "").lower().startswith("application/json"):
        return None
    body = reply.body
    try:
        if not body.isascii():
            body.decode("utf-8")
        members = _MEMBERS.decode(body)
        places = _places(body, members)
        if places is None:
            return None
        number = orjson.loads(bytes(members["id"]))
        status = read_object(bytes(members["status"]))["value"]
        kind = orjson.loads(bytes(members.get("sourceType", b"null")))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError, NotCanonical):
        return None
    if not isinstance(number, str) or not number or type(status) is not str:  # a number is a str of another kind
        return None
    return _Fact(body, places, status, kind == _DUPLICATE)


def _places(body: bytes, members: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]] | None:
    """Return where the values stand; None where a key stands twice: two readers might see two answers."""
    places: dict[str, tuple[int, int]] = {}
    at = 0
    for name, raw in members.items():
        begin = _value_begins(body, at, name)
        value = bytes(raw)
        if not body.startswith(value, begin):
            return None
        at = begin + len(value)
        places[name] = begin, at
    return places if _END.fullmatch(body, at) is not None else None


def _value_begins(body: bytes, at: int, name: str) -> int:
    """Return where the value of the next member begins, if that is of this name; else where nothing can stand."""
    compact = b'"%b":' % name.encode()
    begin = at + 1 + len(compact)
    if body.startswith(compact, at + 1) and body[at : at + 1] in _OPENINGS and body[begin : begin + 1] > b" ":
        return begin
    before = _BEFORE_VALUE.match(body, at)
    return before.end() if before is not None and orjson.loads(before[1]) == name else len(body) + 1


_PACK: Final = msgspec.msgpack.Encoder()
_UNPACK: Final = msgspec.msgpack.Decoder(tuple[float, Landing])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
