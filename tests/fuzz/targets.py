"""What is thrown bytes at: everything that reads what a caller sent, and what must hold whatever it was.

Each target takes bytes, raises nothing, and asserts what it promises. `SEEDS` are good examples to begin with.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from gateway.callers.grant import Credentials, Unclear, read_request
from gateway.callers.identify import Callers, Identified, NotIdentified, Presented
from gateway.callers.issuers import Keys
from gateway.callers.tokens import Tokens
from gateway.dedup.canonical import FieldRules, NotCanonical, canonical_json, differences, write
from gateway.dedup.fingerprint import read_question
from gateway.dedup.x12 import canonical_x12
from gateway.exchange import Exchange, Record, Reply
from gateway.headers.correlation import choose_correlation_id, well_formed
from gateway.headers.prefer import shortened_s
from gateway.headers.traceparent import trace_of
from gateway.http.ingress import Ingress, Limits, Observers
from gateway.http.server import Server
from gateway.http.sockets import Sockets
from gateway.in_flight import InFlight
from gateway.policy.callers import Caller, CallerEntry, Issuer
from gateway.telemetry.payer import payer_of
from tests.callers.platform import AUDIENCE, ISSUER, NOW, RSA, SUBJECT, published, token
from tests.dedup.test_x12 import interchange

RULES: Final = FieldRules(
    ignored=frozenset({"controlNumber", "a.b"}),
    case_folded=frozenset({"firstName"}),
    sets=frozenset({"serviceTypeCodes"}),
)


def as_json(data: bytes) -> None:
    """A body has one meaning or none, and blanks around it do not change it."""
    with suppress(NotCanonical):
        meaning = canonical_json(data, RULES)
        again = canonical_json(b" %b\r\n" % data, RULES)
        assert list(differences(meaning, again)) == []
        assert write(meaning) == write(again)
        assert isinstance(json.loads(write(meaning)), dict)
    payer_of(data, frozenset({"60054"}))


def as_x12(data: bytes) -> None:
    """An interchange has one meaning or none, and blanks around its segments do not change it."""
    text = data.decode("utf-8", "replace")
    with suppress(NotCanonical):
        assert canonical_x12(text) == canonical_x12(f" \r\n{text}")
    with suppress(NotCanonical):
        read_question(json.dumps({"x12": text}).encode(), RULES, is_x12=True)


_TOKENS: Final = Tokens([("kid", bytes(32))])
_BILLING: Final = Caller(name="billing", entry=CallerEntry(secret_sha256="0" * 64))  # of no secret that anybody has
_POD: Final = Caller(name="pod", entry=CallerEntry(subjects=(f"cluster/{SUBJECT}",)))
_OWN: Final = _TOKENS.issue("billing", "0" * 64, NOW, "id-1").encode()
_PLATFORMS: Final = token().encode()
_KEYS: Final = Keys.read(published(RSA)) or Keys()
_CALLERS: Final = Callers(
    {"billing": _BILLING, "pod": _POD},
    _TOKENS,
    {"cluster": Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="/keys.json")},
    lambda _: _KEYS,
)


def as_token(data: bytes) -> None:
    """Nobody is let in but by what was issued, byte for byte but for the last bits of a part's base64."""
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    found = _CALLERS.identify(Presented([f"Bearer {text}"]), NOW)
    if isinstance(found, Identified):
        assert text.strip().rpartition(".")[0].encode() in {one.rpartition(b".")[0] for one in (_OWN, _PLATFORMS)}
    _CALLERS.identify(Presented([text], [text], [text]), NOW)
    Keys.read(data)


def as_token_request(data: bytes) -> None:
    """A request for a token is read or is not; nobody has these credentials."""
    head, _, body = data.partition(b"\n")
    kind, _, authorization = head.decode("utf-8", "surrogateescape").partition("|")
    match read_request(kind, body, [authorization] if authorization else []):
        case Credentials(caller, secrets):
            assert _CALLERS.having(caller, secrets) is None
        case Unclear(error):
            assert error in {"invalid_request", "unsupported_grant_type"}


def as_headers(data: bytes) -> None:
    """What is taken over from a header is well formed, or is not taken over."""
    values = data.decode("utf-8", "surrogateescape").split("\n")
    chosen = choose_correlation_id(values, lambda: "fresh")
    assert chosen == "fresh" or chosen == well_formed(values[0])
    assert 0 < shortened_s(125.0, values) <= 125.0
    trace_of(values)
    found = _CALLERS.identify(Presented(values, values, values), NOW)
    assert isinstance(found, NotIdentified) or len(set(values)) == 1


class _Wire(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_reading(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


@dataclass(slots=True)
class _Answering:
    """Answers whatever is let in, and knows how often."""

    let_in: int = 0
    records: list[Record] = field(default_factory=list)
    defects: list[BaseException] = field(default_factory=list)

    async def admit(self, exchange: Exchange, /) -> None:
        assert exchange.inbound.raw_target.startswith("/")

    async def answer(self, _: Exchange, /) -> Reply:
        self.let_in += 1
        return Reply(status=200, reason="OK", headers=CIMultiDict(), body=b"answered")


def as_connection(data: bytes) -> None:
    """Whatever comes over a connection, in whichever pieces: no 500, no defect, and one answer for each let in."""
    asyncio.run(_talk(data))


async def _talk(data: bytes) -> None:
    loop = asyncio.get_running_loop()
    answering = _Answering()
    observers = Observers(
        now=loop.time, new_id=lambda: "id", on_record=answering.records.append, on_defect=answering.defects.append
    )
    ingress = Ingress(
        answering,
        Limits(body_bytes=4096, body_s=5.0, head_s=5.0, idle_s=5.0),
        Sockets(10),
        InFlight(),
        observers,
    )
    server: Server = ingress.server()
    connection, wire = server(), _Wire()
    connection.connection_made(wire)
    at = data[0] * len(data) // 256 if data else 0
    for piece in (data[:at], data[at:]):
        if piece and not wire.is_closed:
            connection.data_received(piece)
        for _ in range(6):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    await server.shutdown(0.01)
    assert answering.defects == []
    assert re.search(rb"HTTP/[0-9.]+ 5", wire.written) is None
    assert wire.written.count(b"answered") <= answering.let_in
    assert not wire.written or wire.written.startswith(b"HTTP/")


Target = Callable[[bytes], None]
TARGETS: Final[Mapping[str, Target]] = {
    target.__name__.removeprefix("as_"): target
    for target in (as_connection, as_json, as_x12, as_token, as_token_request, as_headers)
}
_QUESTION: Final = b'{"subscriber": {"memberId": "1", "firstName": "Ada"}, "serviceTypeCodes": ["1", "30"], "n": 1.0}'
SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "connection": (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}GET /b HTTP/1.0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nx: y\r\n\r\n",
    ),
    "json": (_QUESTION, b'{"a": {"b": 1, "c": null}, "big": 123456789012345678901234567890}', b"[]", b"{}"),
    "x12": (interchange("NM1*IL*1*SAMPLE*ADA****MI*1", "DMG*D8*19700101*F").encode(),),
    "token": (_OWN, _PLATFORMS, published(RSA)),
    "token_request": (
        b'application/json\n{"grant_type": "client_credentials", "client_id": "billing", "client_secret": "s"}',
        b"application/x-www-form-urlencoded\ngrant_type=client_credentials&client_id=billing&client_secret=s%20",
        b"application/x-www-form-urlencoded|Basic YmlsbGluZzpz\ngrant_type=client_credentials",
    ),
    "headers": (b"visit-42", b"wait=30, respond-async", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
}
