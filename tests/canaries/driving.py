"""What is done to a gateway: every way to ask, with canaries wherever a caller may put them, and every way to answer.

Rules
- Callers are raw sockets: what they send is what stands here, and what they get is kept byte for byte.
- `x-scenario` tells the upstream how to answer; it passes, and is no part of a question.
"""

import asyncio
import base64
import json
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from gateway.operations import TOKEN_PATH
from tests.callers.platform import token_now
from tests.canaries.planted import (
    BORN,
    BORN_DASHED,
    BRIEF_SECRET,
    CALLER_SECRET,
    COOKIE,
    FAMILY,
    GIVEN,
    GROUP,
    HASTY_SECRET,
    ISSUER_WORDS,
    MEMBER,
    OTHER_SECRET,
    PLAN,
    SHADOW_SECRET,
    SSN,
    STRANGER_SECRET,
    TOKEN,
    UPSTREAM_COOKIE,
)
from tests.dedup.test_x12 import interchange
from tests.scripted import Request, reply

SUBMIT: Final = "/rcm/eligibility/v1"
X12: Final = f"{SUBMIT}/real-time/x12"
QUERY: Final = f"?memberId={MEMBER}&name={quote(GIVEN, safe='')}+{FAMILY}&born={BORN_DASHED}&ssn={SSN}"
PATIENCE_S: Final = 20.0

HEADERS: Final = (
    f"Cookie: session={COOKIE}; member={MEMBER}",
    f"Referer: http://portal.invalid/{FAMILY}{QUERY}",
    f"User-Agent: portal/{MEMBER}",
    f"x-{FAMILY}: {SSN}",
    f"x-patient: {GIVEN} {FAMILY}, {BORN}",
    f"x-optum-correlation-id: {MEMBER} {SSN}",
    f"traceparent: 00-{SSN}-{BORN}-{MEMBER}",
    f"Prefer: wait={SSN}, respond-async={MEMBER}",
)


def question(about: str, **more: object) -> bytes:
    """A body about the canaries' patient; another `about` is another question."""
    patient = {"memberId": MEMBER, "firstName": GIVEN, "lastName": FAMILY, "dateOfBirth": BORN, "ssn": SSN}
    return json.dumps({"tradingPartnerServiceId": MEMBER, "about": about, "subscriber": patient, **more}).encode()


def x12_question() -> bytes:
    patient = f"NM1*IL*1*{FAMILY}*{GIVEN.upper()}****MI*{MEMBER}"
    return interchange(patient, f"DMG*D8*{BORN}*F", f"REF*SY*{SSN}", "DTP*291*D8*20260102").encode()


def request(  # noqa: PLR0913 - each may be wrong by itself
    method: str = "POST",
    target: str = SUBMIT,
    body: bytes = b"",
    *headers: str,
    secret: str | None = CALLER_SECRET,
    version: str = "HTTP/1.1",
    framing: str | None = None,
    scenario: str = "",
) -> bytes:
    """A request with canaries in every header; without a framing it has a Content-Length."""
    lines = (
        f"{method} {target} {version}",
        "Host: gateway.invalid",
        f"Authorization: Bearer {secret}" if secret is not None else "",
        "Content-Type: application/json",
        "Connection: close",
        f"Content-Length: {len(body)}" if framing is None else framing,
        f"x-scenario: {scenario}",
        *HEADERS,
        *headers,
    )
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n" + body


BASIC: Final = base64.b64encode(f"{FAMILY}:{STRANGER_SECRET}".encode()).decode()


def token_request(*headers: str, grant_type: str = "client_credentials") -> bytes:
    """A request for a token by somebody whom nobody knows."""
    document = {"grant_type": grant_type, "client_id": FAMILY, "client_secret": STRANGER_SECRET, "member": MEMBER}
    return request("POST", TOKEN_PATH, json.dumps(document).encode(), *headers, secret=None)


# --- the upstream ---------------------------------------------------------------------------------------------------

FACT: Final = {
    "id": "t-1",
    "correlationId": "c-1",
    "status": {"value": "eligible"},
    "subscriber": {"plan": PLAN, "group": GROUP},
}
ANSWER_HEADERS: Final = (
    "Content-Type: application/json",
    f"Set-Cookie: session={UPSTREAM_COOKIE}; Path=/; Domain=127.0.0.1",
    f"x-optum-trace-id: {GROUP} {PLAN}",
    f"link: <https://upstream.invalid/{GROUP}>",
    f"x-{GROUP}: {PLAN}",
)
SAID: Final = json.dumps({"title": f"{PLAN} has no {GROUP}"}).encode()


def answered(status: str = f"200 {PLAN}", body: bytes | None = None, *headers: str) -> bytes:
    """A whole answer with canaries in its reason phrase, its headers and its body."""
    return reply(status, json.dumps(FACT).encode() if body is None else body, (*ANSWER_HEADERS, *headers))


def _head(*lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 200 {PLAN}", *ANSWER_HEADERS, *lines)).encode() + b"\r\n\r\n"


_OTHER_FACT: Final = FACT | {"id": "t-2", "status": {"value": "ineligible"}, "subscriber": {"plan": f"{GROUP} anew"}}
_UNSTATED: Final = FACT | {"status": {"value": PLAN}}
ANSWERS: Final[Mapping[str, bytes]] = {
    "changed": answered(body=json.dumps(_OTHER_FACT).encode()),
    "unstated": answered(body=json.dumps(_UNSTATED).encode()),
    "refused": answered(f"422 {PLAN}", SAID),
    "broken down": answered(f"500 {PLAN}", SAID),
    "cut by a gateway": answered(f"504 {GROUP}", SAID),
    "elsewhere": answered(f"302 {PLAN}", b"", f"Location: https://upstream.invalid/{GROUP}"),
    "unauthorized": answered("401 Unauthorized", SAID),
    "switched": f"HTTP/1.1 101 {PLAN}\r\nUpgrade: {GROUP}\r\nConnection: upgrade\r\n\r\n".encode(),
    "garbage": f"{PLAN} {GROUP}\r\n\r\n".encode(),
    "bad header": f"HTTP/1.1 200 OK\r\n{GROUP} {PLAN}\x00\r\n\r\n".encode(),
    "oversized header": _head(f"x-more: {GROUP * 2000}", "Content-Length: 0"),
    "bad length": _head(f"Content-Length: {GROUP}"),
    "two lengths": _head("Content-Length: 5", "Content-Length: 7") + SAID,
    "bad chunk": _head("Transfer-Encoding: chunked") + f"{GROUP}\r\n{PLAN}\r\n".encode(),
    "bad encoding": answered("200 OK", SAID, "Content-Encoding: gzip"),
    "speaks on": answered() + answered(),
    "large": answered(body=json.dumps(FACT | {"padding": GROUP * 40_000}).encode()),
}
CUT: Final[Mapping[str, bytes]] = {
    "cut at once": b"",
    "cut in the head": f"HTTP/1.1 200 {PLAN}\r\nx-{GROUP}: ".encode(),
    "cut in the body": _head("Content-Length: 5000") + SAID,
}
CUT_LATE: Final = _head("Content-Length: 900000") + GROUP.encode() * 30_000
PLAIN: Final = reply(body=b'{"id": "t-0", "correlationId": "c-0", "status": {"value": "eligible"}}')


@dataclass(slots=True)
class Answering:
    """Answers each request as its scenario says; what is held waits for `release`, what is cut late for `cut`.

    What the gateway asks for itself has no scenario: `look_up`, where set, answers that.
    """

    release: asyncio.Event = field(default_factory=asyncio.Event)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    look_up: Callable[[Request], bytes] | None = None

    async def __call__(self, asked: Request, writer: asyncio.StreamWriter) -> None:
        (scenario,) = asked.values("x-scenario") or [""]
        match scenario:
            case "" if self.look_up is not None:
                writer.write(self.look_up(asked))
            case "plain":
                writer.write(PLAIN)
            case "held":
                await self.release.wait()
                writer.write(answered())
            case "late":
                await asyncio.sleep(PATIENCE_S)
            case "cut late":
                writer.write(CUT_LATE)
                await self.cut.wait()
                writer.transport.abort()
            case "cut by a gateway" as name:
                await asyncio.sleep(0.3)  # what comes at once is no cut
                writer.write(ANSWERS[name])
            case name if name in CUT:
                writer.write(CUT[name])
                await writer.drain()
                writer.close()
            case name:
                writer.write(ANSWERS.get(name, answered()))


TOKENS: Final[Mapping[str, bytes]] = {
    "issued": reply(body=json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode()),
    "refused": reply(f"401 {ISSUER_WORDS}", f'{{"error": "{TOKEN} {ISSUER_WORDS}"}}'.encode(), (f"x-a: {TOKEN}",)),
    "down": reply(f"500 {ISSUER_WORDS}", f"{ISSUER_WORDS} {TOKEN}".encode(), (f"x-{ISSUER_WORDS}: {TOKEN}",)),
    "garbage": reply(body=f'{{"access_token": "{TOKEN} {ISSUER_WORDS}", '.encode()),
    "no header": reply(body=json.dumps({"access_token": f"{TOKEN}\r\n{ISSUER_WORDS}"}).encode()),
    "no http": f"{ISSUER_WORDS} {TOKEN}\r\n\r\n".encode(),
}

# --- callers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Got:
    """What a caller got: a whole reply as it stood on the wire, or as much of it as came."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1]) if self.raw else 0

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def code(self) -> str:
        """The code of a problem, or of a refused request for a token; none where the upstream answered."""
        if b'"error_description"' in self.body and b"\r\nCache-Control: no-store\r\n" in self.raw:
            return str(json.loads(self.body)["error"])
        if b"\r\nContent-Type: application/problem+json\r\n" not in self.raw.partition(b"\r\n\r\n")[0] + b"\r\n":
            return ""
        document: dict[str, Any] = json.loads(self.body)
        return str(document["code"])


async def ask(url: str, raw: bytes, *, half_close: bool = False) -> Got:
    """Send it on a connection of its own, and read the reply, or as much of it as comes."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await _open(url)
        try:
            writer.write(raw)
            if half_close:
                writer.write_eof()
            return Got(await _reply(reader))
        finally:
            writer.transport.abort()


async def _reply(reader: asyncio.StreamReader, on_head: Callable[[], object] = lambda: None) -> bytes:
    """Read to the end of what the head announces: aiohttp goes on for 10 s with what nobody will send it."""
    read = bytearray()
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        read += await reader.readuntil(b"\r\n\r\n")
        on_head()
        length = re.search(rb"\r\ncontent-length: ([0-9]+)\r\n", bytes(read).lower())
        end = len(read) + int(length[1]) if length is not None else None
        while (end is None or len(read) < end) and (part := await reader.read(65_536)):
            read += part
    return bytes(read)


async def ask_for_long(url: str, raw: bytes, on_head: Callable[[], object]) -> Got:
    """Send it, and say when the reply has begun."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await _open(url)
        writer.write(raw)
        try:
            return Got(await _reply(reader, on_head))
        finally:
            writer.transport.abort()


async def leave(url: str, raw: bytes, when: Callable[[], Any]) -> None:
    """Send it, and be gone as soon as `when` returns."""
    _, writer = await _open(url)
    writer.write(raw)
    await writer.drain()
    await when()
    writer.transport.abort()


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


def deaf(port: int) -> list[socket.socket]:
    """A listener that accepts nobody, with its queue full: a connection to it is never opened."""
    listener = socket.create_server(("127.0.0.1", port), backlog=0)
    queue = [listener]
    for _ in range(3):
        one = socket.socket()
        one.settimeout(0)
        one.connect_ex(("127.0.0.1", port))
        queue.append(one)
    return queue


@dataclass(frozen=True, slots=True)
class Asked:
    """One way to ask, and what the gateway itself makes of it; without a code the upstream's answer comes back."""

    raw: bytes
    status: int
    code: str = ""
    half_close: bool = False


def _scenario(name: str, status: int, code: str = "") -> Asked:
    return Asked(request(body=question(name), scenario=name), status, code)


def _refusals() -> Mapping[str, Asked]:
    head = request("GET", f"{SUBMIT}/transactions{QUERY}", framing="")
    begin, end = head[:-2], b"\r\n\r\n"
    large = f"Transfer-Encoding: chunked\r\nx-more: {MEMBER}"
    return {
        "unknown path": Asked(request("GET", f"/patients/{FAMILY}/{MEMBER}{QUERY}", framing=""), 404, "unknown_path"),
        "wrong method": Asked(request("PATCH", f"{SUBMIT}{QUERY}", question("patch")), 405, "wrong_method"),
        "own method": Asked(request(FAMILY.upper(), f"/{MEMBER}", framing=""), 400, "not_http"),
        "no policy": Asked(request("GET", f"{SUBMIT}/coverage-discovery/{MEMBER}", framing=""), 403, "no_policy"),
        "another's subtenant": Asked(
            request("POST", SUBMIT, question("subtenant"), f"x-optum-subtenant-id: {MEMBER}"), 403, "foreign_subtenant"
        ),
        "a platform's token": Asked(
            request(body=question("platform"), secret=token_now(sub=MEMBER, name=FAMILY, ssn=SSN)),
            503,
            "issuer_unavailable",
        ),
        "stranger": Asked(request(body=question("stranger"), secret=STRANGER_SECRET), 401, "unauthenticated"),
        "two secrets": Asked(request("GET", X12, b"", f"x-api-key: {OTHER_SECRET}"), 401, "unauthenticated"),
        "token for a stranger": Asked(token_request(), 401, "invalid_client"),
        "token by Basic": Asked(token_request(f"Authorization: Basic {BASIC}"), 400, "invalid_request"),
        "token of another grant": Asked(token_request(grant_type=MEMBER), 400, "unsupported_grant_type"),
        "no token request": Asked(
            request(target=TOKEN_PATH, body=f"{GIVEN} {SSN}".encode(), secret=None), 400, "invalid_request"
        ),
        "absolute form": Asked(request("GET", f"http://{FAMILY}.invalid/{MEMBER}", framing=""), 400),
        "authority form": Asked(request("CONNECT", f"{FAMILY}.invalid:443", framing=""), 400),
        "no path": Asked(request("GET", f"{MEMBER}/{FAMILY}", framing=""), 400),
        "other version": Asked(request("GET", f"/{MEMBER}", framing="", version="HTTP/3.7"), 400),
        "word for a version": Asked(request("GET", f"/{MEMBER}", framing="", version=FAMILY), 400, "not_http"),
        "no request": Asked(f"{FAMILY} {GIVEN}\r\n\r\n".encode(), 400, "not_http"),
        "TLS": Asked(b"\x16\x03\x01\x02\x00" + MEMBER.encode() * 30 + end, 400, "not_http"),
        "NUL in a name": Asked(begin + f"Authoriz\0ation: {SSN}".encode() + end, 400, "not_http"),
        "NUL in a value": Asked(begin + f"x-a: {SSN}\0{MEMBER}".encode() + end, 400, "not_http"),
        "no colon": Asked(begin + f"{MEMBER} {SSN}".encode() + end, 400, "not_http"),
        "blank in a name": Asked(begin + f"x {MEMBER} : {SSN}".encode() + end, 400, "not_http"),
        "no UTF-8": Asked(begin + b"x-a: \xff" + MEMBER.encode() + end, 400, "ambiguous_request"),
        "oversized line": Asked(f"GET /{MEMBER * 1000} HTTP/1.1\r\n\r\n".encode(), 431, "head_too_large"),
        "oversized value": Asked(begin + f"x-a: {MEMBER * 1000}".encode() + end, 431, "head_too_large"),
        "slow head": Asked(begin + f"x-a: {MEMBER}".encode(), 408, "head_too_slow"),
        "underscore": Asked(begin + f"x_{MEMBER}: {SSN}".encode() + end, 400, "ambiguous_request"),
        "many headers": Asked(begin + f"x-a: {SSN}\r\n".encode() * 500 + b"\r\n", 400, "not_http"),
        "upgrade": Asked(
            request("GET", f"/{MEMBER}", b"", f"Upgrade: websocket, {MEMBER}", framing=""), 400, "ambiguous_request"
        ),
        "bad length": Asked(request(framing=f"Content-Length: {SSN}"), 400, "not_http"),
        "two framings": Asked(request(framing="Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        "other coding": Asked(request(framing=f"Transfer-Encoding: {MEMBER}, chunked"), 400),
        "bad chunk": Asked(request(framing=large) + f"{MEMBER}\r\n{SSN}".encode(), 400),
        "torn body": Asked(request(framing="Content-Length: 5000") + question("torn"), 0, half_close=True),
        "slow body": Asked(request(framing="Content-Length: 5000") + question("slow"), 408, "body_too_slow"),
        "large body": Asked(request(body=question("large", more=MEMBER * 9000)), 413, "body_too_large"),
        "large chunk": Asked(
            request(framing=large) + b"15f90\r\n" + (MEMBER * 9000)[:90_000].encode() + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
        "expectation": Asked(request("POST", SUBMIT, b"{}", f"Expect: {MEMBER}"), 417, "expectation_unknown"),
    }


def _answers() -> Mapping[str, Asked]:
    return {
        "led": _scenario("led", 200),
        "led again": _scenario("led", 200),
        "bypassed": Asked(
            request("POST", SUBMIT, question("led"), "x-optum-eligibility-disable-value-add: deduplication"),
            200,
        ),
        "X12": Asked(request(target=X12, body=x12_question()), 200),
        "X12 again": Asked(request(target=X12, body=x12_question()), 200),
        "torn X12": Asked(request(target=X12, body=x12_question()[:150]), 200),
        "shadowed": Asked(request(body=question("shadow"), secret=SHADOW_SECRET), 200),
        "shadowed again": Asked(request(body=question("shadow"), secret=SHADOW_SECRET, scenario="changed"), 200),
        "not canonical": Asked(request(body=f'{{"a": "{MEMBER}", "a": "{SSN}"}}'.encode()), 200),
        "no JSON": Asked(request(body=f"{GIVEN} {FAMILY}".encode()), 200),
        "a chunked question": Asked(
            request(framing="Transfer-Encoding: chunked")
            + b"%x\r\n%s\r\n0\r\nx-trailer: %s\r\n\r\n" % (len(b := question("chunks")), b, SSN.encode()),
            200,
        ),
        "looked up": Asked(request("GET", f"{SUBMIT}/transactions/{MEMBER}{QUERY}", framing=""), 200),
        "listed": Asked(request("GET", f"{SUBMIT}/transactions{QUERY}", framing=""), 200),
        "forwarded": Asked(request("GET", f"/extra/{FAMILY}/{MEMBER}{QUERY}", framing=""), 200),
        "unstated": _scenario("unstated", 200),
        "refused": _scenario("refused", 422),
        "broken down": _scenario("broken down", 500),
        "cut by a gateway": _scenario("cut by a gateway", 504),
        "elsewhere": _scenario("elsewhere", 302),
        "bad encoding": _scenario("bad encoding", 200),
        "speaks on": _scenario("speaks on", 200),
        "large": _scenario("large", 200),
        **{
            name: _scenario(name, 502, "upstream_broken")
            for name in (
                *("switched", "garbage", "bad header", "oversized header", "bad length", "two lengths", "bad chunk"),
                *("cut at once", "cut in the head", "cut in the body"),
            )
        },
        "late": Asked(request(body=question("late"), secret=BRIEF_SECRET, scenario="late"), 504, "upstream_timeout"),
        "hasty": Asked(request(body=question("hasty"), secret=HASTY_SECRET, scenario="late"), 504, "answer_pending"),
    }


REFUSALS: Final = _refusals()
ANSWERED_ASKS: Final = _answers()
