"""Hostile and odd messages, by class, each with what must become of it.

Our own, along the classes of RFC 9112, of AWS' http-desync-guardian and of narf's http-garden.
"""

import gzip
from dataclasses import dataclass
from typing import Final

PATH: Final = "/rcm/eligibility/v1/coverage-discovery"
LINE: Final = f"GET {PATH} HTTP/1.1"
BOMB: Final = gzip.compress(bytes(50_000_000), mtime=0)
GZIPPED: Final = gzip.compress(b"{}", mtime=0)


@dataclass(frozen=True, slots=True)
class Refused:
    """Answered with the status and closed; nothing of it, nor of what follows, is sent on."""

    status: int = 400


@dataclass(frozen=True, slots=True)
class Passes:
    """Sent on once, with this target and body; the next request on the connection too, unless it closes."""

    body: bytes = b""
    target: str = PATH
    closes: bool = False
    having: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that is read, and that is nobody's: answered here, and the next one on its connection is sent on."""

    status: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Not answered as it stands; when its sender is done with it, nothing was sent on."""


Verdict = Refused | Passes | Answered | Unfinished


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    raw: bytes
    verdict: Verdict


REFUSED: Final = Refused()


def raw(*lines: str | bytes, body: bytes = b"") -> bytes:
    """A message of these lines; text is latin-1."""
    return b"".join((x if isinstance(x, bytes) else x.encode("latin-1")) + b"\r\n" for x in lines) + b"\r\n" + body


def get(*headers: str | bytes, line: str | bytes = LINE, host: str = "Host: x") -> bytes:
    return raw(line, *([host] if host else []), *headers)


def to(target: str | bytes) -> bytes:
    return get(line=b"GET " + (target if isinstance(target, bytes) else target.encode("latin-1")) + b" HTTP/1.1")


def post(*headers: str | bytes, body: bytes = b"{}", version: str = "HTTP/1.1") -> bytes:
    return raw(f"POST {PATH} {version}", "Host: x", *headers, body=body)


def sized(*headers: str | bytes, body: bytes = b"{}") -> bytes:
    return post(f"Content-Length: {len(body)}", *headers, body=body)


def chunked(body: bytes, *headers: str | bytes) -> bytes:
    return post("Transfer-Encoding: chunked", *headers, body=body)


def rows(build: object, verdict: Verdict, *values: str | bytes) -> list[tuple[str, bytes, Verdict]]:
    assert callable(build)
    return [(repr(value)[:100], build(value), verdict) for value in values]


def line(value: str | bytes) -> bytes:
    return get(line=value)


def version(value: str) -> bytes:
    return get(line=f"GET {PATH} {value}")


def host(value: str) -> bytes:
    return get(host=value)


def length(value: str | bytes) -> bytes:
    return post(b"Content-Length: " + (value if isinstance(value, bytes) else value.encode("latin-1")))


def coding(value: str | bytes) -> bytes:
    one = value if isinstance(value, bytes) else value.encode("latin-1")
    return post(b"Transfer-Encoding: " + one, body=b"2\r\n{}\r\n0\r\n\r\n")


def sized_coding(value: str) -> bytes:
    return coding(f"{value}\r\nContent-Length: 12")


CHUNK: Final = b"2\r\n{}\r\n"
LAST: Final = b"0\r\n\r\n"
LARGE: Final = 1_048_577
OWN_NAMES: Final = "x!#$%&'*+.^`|~"

_TABLE: Final[dict[str, list[tuple[str, bytes, Verdict]]]] = {
    "request line": [
        ("plain", get(), Passes()),
        ("one empty line before", b"\r\n" + get(), Passes()),
        *rows(line, Passes(), f"GET  {PATH} HTTP/1.1", f"GET {PATH}   HTTP/1.1"),  # RFC 9112, 3: words
        ("two empty lines before", b"\r\n\r\n" + get(), Passes()),
        *rows(
            line,
            REFUSED,
            *(f"GET\t{PATH}\tHTTP/1.1", f" GET {PATH} HTTP/1.1", f"GET \t{PATH} HTTP/1.1", f"GET {PATH} \tHTTP/1.1"),
            *(f"GET {PATH} HTTP/1.1 ", f"GET {PATH} HTTP/1.1 x", f"GET {PATH}", f"GET {PATH} ", "GET", "GET HTTP/1.1"),
            *(f"get {PATH} HTTP/1.1", f"GeT {PATH} HTTP/1.1", f"GETX {PATH} HTTP/1.1", f"FOO {PATH} HTTP/1.1"),
            *(f"{PATH} HTTP/1.1", f"GET{PATH} HTTP/1.1", f"(GET) {PATH} HTTP/1.1", f"GET, {PATH} HTTP/1.1"),
            *(f"G\x00ET {PATH} HTTP/1.1", f"GET {PATH}\x00 HTTP/1.1", f"\x0bGET {PATH} HTTP/1.1", "HTTP/1.1 200 OK"),
            *(f"\xef\xbb\xbfGET {PATH} HTTP/1.1", f"GET {PATH} HTTP/1.1\r", f"GET {PATH} HTTP/1.1\rX: y", ":"),
            *(
                f"GET {PATH} HTTP/1.1\nX: y",
                f"GET {PATH}\x0cHTTP/1.1",
                f"GET\xa0{PATH} HTTP/1.1",
                f"GET {PATH} X HTTP/1.1",
            ),
            *(f"SETUP {PATH} RTSP/1.0", f"SOURCE {PATH} ICE/1.0", f"GET {PATH} ICE/1.0", f"GET {PATH} RTSP/1.0"),
            *(f"POST {PATH} RTSP/1.1", f"GET {PATH} RTSP/1.1", f"GET {PATH} ICE/1.1"),
        ),
    ],
    "versions": [
        ("1.0", version("HTTP/1.0"), Passes(closes=True)),
        ("1.0 that stays", get("Connection: keep-alive", line=f"GET {PATH} HTTP/1.0"), Passes()),
        *rows(
            version,
            REFUSED,
            *("HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/1", "HTTP/1.", "HTTP/.1"),
            *("HTTP/1.01", "HTTP/01.1", "HTTP/11.1", "HTTP/1.10", "HTTP/1,1", "HTTP/1.1.1", "HTTP/ 1.1", "HTTP /1.1"),
            *(
                "http/1.1",
                "Http/1.1",
                "HTTPS/1.1",
                "HTTP/1.x",
                "HTTP/-1.1",
                "HTTP/+1.1",
                "HTTP1.1",
                "HTTP",
                "1.1",
                "/1.1",
            ),
        ),
    ],
    "targets": [
        ("a query", to(f"{PATH}?a=b"), Passes(target=f"{PATH}?a=b")),
        ("an empty query", to(f"{PATH}?"), Passes(target=f"{PATH}?")),
        ("two question marks", to(f"{PATH}??a=?"), Passes(target=f"{PATH}??a=?")),
        ("encoded things in a query", to(f"{PATH}?%00=%2e%2e%2F%zz%"), Passes(target=f"{PATH}?%00=%2e%2e%2F%zz%")),
        ("dots and slashes in a query", to(f"{PATH}?/../..//"), Passes(target=f"{PATH}?/../..//")),
        ("a URL in a query", to(f"{PATH}?http://x/y"), Passes(target=f"{PATH}?http://x/y")),
        ("an odd id", to(f"{PATH}/a~!$&'()*+,;=:@%7E"), Passes(target=f"{PATH}/a~!$&'()*+,;=:@%7E")),
        *rows(
            to,
            REFUSED,
            *(f"http://x{PATH}", f"https://x{PATH}", f"HTTP://x{PATH}", f"http://{PATH}", f"http:{PATH}", "x:443", "*"),
            *(
                f"//x{PATH}",
                f"//{PATH}",
                f"{PATH}#a",
                f"{PATH}?a#b",
                f"{PATH}\\a",
                f"\\{PATH}",
                f"{PATH}?\\",
                "",
                "?a=b",
            ),
            *("a", f"{PATH}\x7f", f"{PATH}\x01", f"{PATH}?\x80", f"{PATH}/\xe9", f"{PATH}?\xff", f"ftp://x{PATH}", "."),
        ),
        *rows(
            to,
            Answered(404),
            *(f"/..{PATH}", f"/.{PATH}", f"{PATH}/..", f"{PATH}/.", f"{PATH}/%2e%2e", f"{PATH}/%2E", f"{PATH}/..;a"),
            *(
                f"{PATH}/a%2fb",
                f"{PATH}/a%2Fb",
                f"{PATH}/a%5cb",
                f"{PATH}/a%00b",
                f"{PATH}/a/b",
                f"{PATH}/",
                f"{PATH}//",
            ),
            *(
                f"/{PATH[1:].upper()}",
                "/",
                "/rcm//eligibility/v1",
                "/%72cm/eligibility/v1",
                f"{PATH};a=b",
                f"{PATH}%20",
            ),
            *(f"{PATH}/%2e%2e%2ftransactions", f"{PATH}/%c0%af..", f"{PATH}/%zz", f"{PATH}/%"),
        ),
    ],
    "methods": [
        *[
            (name, raw(f"{name} {PATH} HTTP/1.1", "Host: x"), Answered(405))
            for name in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "M-SEARCH", "MKCOL", "LOCK")
        ],
        ("HEAD with a body", raw(f"HEAD {PATH} HTTP/1.1", "Host: x", "Content-Length: 2", body=b"{}"), REFUSED),
        ("TRACE with a body", raw(f"TRACE {PATH} HTTP/1.1", "Host: x", "Content-Length: 2", body=b"{}"), REFUSED),
        ("OPTIONS *", raw("OPTIONS * HTTP/1.1", "Host: x"), REFUSED),
        ("CONNECT", raw("CONNECT x:443 HTTP/1.1", "Host: x:443"), REFUSED),
        ("CONNECT to here", raw(f"CONNECT {PATH} HTTP/1.1", "Host: x"), REFUSED),
        ("CONNECT with a body", raw("CONNECT x:443 HTTP/1.1", "Host: x", "Content-Length: 2", body=b"{}"), REFUSED),
        ("PRI", raw(f"PRI {PATH} HTTP/1.1", "Host: x"), REFUSED),
    ],
    "host": [
        *rows(host, Passes(), "Host:", "Host: ", "Host:x", "Host:\tx\t", "hOST: x", "Host: x:80", "Host: x:"),
        *rows(host, Passes(), "Host: [::1]:80", "Host: 127.0.0.1", "Host: a_b", "Host: \tx", "Host: x%41"),
        ("none", get(host=""), REFUSED),
        ("none in 1.0", get(host="", line=f"GET {PATH} HTTP/1.0"), Passes(closes=True)),
        *rows(
            host,
            REFUSED,
            *("Host: x\r\nHost: x", "Host: x\r\nHost: y", "Host: x\r\nhost:", "Host : x", " Host: x", "\tHost: x"),
            *("Host: a b", "Host: x/y", "Host: u@x", "Host: http://x", "Host: x:99999999", "Host: x:y", "Host: [::1"),
            *(
                "Host: ::1",
                "Host: x#",
                "Host: x?y",
                "Host: x\\y",
                "Host: x, y",
                "Host: \x00",
                "Host: x\r\n y",
                "Host\x00: x",
            ),
            *("Host: \xe9", 'Host: "x"', "Host: <x>", "Host: x%4"),
        ),
    ],
    "Content-Length": [
        ("none", raw(f"POST {PATH} HTTP/1.1", "Host: x"), Passes()),
        ("zero", post("Content-Length: 0", body=b""), Passes()),
        ("zero with GET", get("Content-Length: 0"), Passes()),
        ("blanks around it", post("Content-Length: \t 2 \t"), Passes(b"{}")),
        ("no blank", post("Content-Length:2"), Passes(b"{}")),
        ("any case", post("cONTENT-lENGTH: 2"), Passes(b"{}")),
        ("any bytes", sized(body=bytes(range(256))), Passes(bytes(range(256)))),
        ("a request as a body", sized(body=get()), Passes(get())),
        ("a chunked body as a body", sized(body=CHUNK + LAST), Passes(CHUNK + LAST)),
        ("with GET", get("Content-Length: 2") + b"{}", REFUSED),
        ("with GET, in 1.0", get("Content-Length: 2", line=f"GET {PATH} HTTP/1.0") + b"{}", REFUSED),
        *rows(
            length,
            REFUSED,
            *("+2", "-2", "-0", "2,2", "2, 2", "2;", "2 2", "0x2", "2.0", "2e0", "two", "02", "00002", "2_0", "\x0b2"),
            *(
                "2\x00",
                "",
                "\xb2",
                "99999999999999999999",
                "18446744073709551618",
                "4294967298x",
                "0" * 5000 + "2",
                "2\x0c",
            ),
            *("2\r\nContent-Length: 2", "2\r\nContent-Length: 3", "0\r\nContent-Length: 2", "2\r\ncontent-length: 02"),
            *("2\r\n 2", "\r\n 2", "2\rX: y", "2\nX: y", "2\r\nContent_Length: 0", "2\r\nContent-Length : 0"),
        ),
        ("a blank before the colon", post("Content-Length : 2"), REFUSED),
        ("a tab before the colon", post("Content-Length\t: 2"), REFUSED),
        ("a NUL in its name", post("Content-\x00Length: 2"), REFUSED),
        ("shorter than the body", post("Content-Length: 1"), REFUSED),
        ("larger than the body", post("Content-Length: 3"), Unfinished()),
        ("over the cap", post(f"Content-Length: {LARGE}"), Refused(413)),
    ],
    "Transfer-Encoding": [
        *rows(coding, Passes(b"{}"), "chunked", "Chunked", "CHUNKED", "chunked ", "\t chunked"),
        ("any case", post("tRANSFER-eNCODING: chunked", body=CHUNK + LAST), Passes(b"{}")),
        ("empty", chunked(LAST), Passes()),
        *rows(
            coding,
            REFUSED,
            *(
                "",
                "gzip",
                "gzip, chunked",
                "chunked, gzip",
                "identity",
                "identity, chunked",
                "chunked, identity",
                "cow",
            ),
            *(
                "chunked, chunked",
                "chunked,",
                ",chunked",
                "chunked;q=1",
                "xchunked",
                "chunkedx",
                '"chunked"',
                "'chunked'",
            ),
            *(
                "chunked chunked",
                "chun ked",
                "chunked\x00",
                "\x0bchunked",
                "chunked\x0b",
                "chunked\x7f",
                "\xa0chunked",
                "chunk",
            ),
            *("chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity", "\r\n chunked"),
            *(
                "identity\r\nTransfer-Encoding: chunked",
                "chunked\r\nTransfer_Encoding: x",
                "gzip\r\ntransfer-encoding: chunked",
            ),
            *("chunked\r\nContent-Length: 12", "chunked\r\nContent-Length: 0", "chunked\r\nContent-Length: x"),
            *(
                "chunked\t",
                "chunked\nX: y",
                "chunked\rX: y",
                "x\nTransfer-Encoding: chunked",
                "x\r\n\tchunked",
            ),
        ),
        ("gzip and a length", sized_coding("gzip"), REFUSED),
        ("identity and a length", sized_coding("identity"), REFUSED),
        ("after a length", post("Content-Length: 12", "Transfer-Encoding: chunked", body=CHUNK + LAST), REFUSED),
        ("a blank before the colon", post("Transfer-Encoding : chunked", body=CHUNK + LAST), REFUSED),
        ("a blank before the name", post(" Transfer-Encoding: chunked", body=CHUNK + LAST), REFUSED),
        ("folded into the header before", post("X: y", " Transfer-Encoding: chunked", body=CHUNK + LAST), REFUSED),
        ("in 1.0", post("Transfer-Encoding: chunked", body=CHUNK + LAST, version="HTTP/1.0"), REFUSED),
        ("with GET", get("Transfer-Encoding: chunked") + LAST, REFUSED),
        ("after a bare LF", post("X: y\nTransfer-Encoding: chunked", body=CHUNK + LAST), REFUSED),
        ("after a bare CR", post("X: y\rTransfer-Encoding: chunked", body=CHUNK + LAST), REFUSED),
        ("TE ends here", get("TE: trailers, gzip;q=0.5", "Connection: TE"), Passes(without=("te",))),
    ],
    "chunks": [
        *rows(
            chunked,
            Passes(b"{}"),
            *(CHUNK + LAST, b"1\r\n{\r\n1\r\n}\r\n" + LAST, b"0002\r\n{}\r\n" + LAST, b"2;a=b\r\n{}\r\n" + LAST),
            *(
                b"2;a\r\n{}\r\n" + LAST,
                b'2;a="b c";d\r\n{}\r\n' + LAST,
            ),
        ),
        ("a last one with an extension", chunked(CHUNK + b"0;a=b\r\n\r\n"), Passes(b"{}", closes=True)),
        ("a last one of three zeros", chunked(CHUNK + b"000\r\n\r\n"), Passes(b"{}", closes=True)),
        ("hex in both cases", chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + LAST), Passes(b"0123456789" * 2)),
        ("a last chunk within", chunked(b"5\r\n" + LAST + b"\r\n" + LAST), Passes(LAST)),
        *rows(
            chunked,
            REFUSED,
            *(b"0x2\r\n{}\r\n" + LAST, b"+2\r\n{}\r\n" + LAST, b"-2\r\n{}\r\n" + LAST, b" 2\r\n{}\r\n" + LAST),
            *(
                b"2 \r\n{}\r\n" + LAST,
                b"2\t\r\n{}\r\n" + LAST,
                b"2\n{}\r\n" + LAST,
                b"2\r{}\r\n" + LAST,
                b"\r\n{}\r\n" + LAST,
            ),
            *(
                b"g\r\n{}\r\n" + LAST,
                b"2g\r\n{}\r\n" + LAST,
                b"2,2\r\n{}\r\n" + LAST,
                b"2_\r\n{}\r\n" + LAST,
                b"2.\r\n{}\r\n" + LAST,
            ),
            *(b"2;\x00\r\n{}\r\n" + LAST, b"2;a\n{}\r\n" + LAST, b"2;a\r{}\r\n" + LAST, b"2;a=\n\r\n{}\r\n" + LAST),
            *(
                b"2\r\n{}" + LAST,
                b"2\r\n{}\n" + LAST,
                b"2\r\n{}\r" + LAST,
                b"2\r\n{}x\r\n" + LAST,
                b"1\r\n{}\r\n" + LAST,
            ),
            *(b"\xb2\r\n{}\r\n" + LAST, b"2\x00\r\n{}\r\n" + LAST, b"2\r\r\n{}\r\n" + LAST, b"\x002\r\n{}\r\n" + LAST),
            *(CHUNK + b"0\n\n", CHUNK + b"0\r\r", b"FFFFFFFFFFFFFFFFF\r\n{}", b"10000000000000002\r\n{}\r\n" + LAST),
            *(CHUNK + b"-0\r\n\r\n", CHUNK + b"0x0\r\n\r\n", b"two\r\n{}\r\n" + LAST),
        ),
        ("no last one", chunked(CHUNK), Unfinished()),
        ("half a last one", chunked(CHUNK + b"0\r\n"), Unfinished()),
        ("half a chunk", chunked(b"5\r\n{}"), Unfinished()),
        ("a chunk over the cap", chunked(b"100001\r\n" + b" " * LARGE + b"\r\n" + LAST), Refused(413)),
        ("chunks over the cap", chunked((b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 3 + LAST), Refused(413)),
        ("an extension without end", chunked(b"2;" + b"a" * 9_000_000 + b"\r\n{}\r\n" + LAST), Refused(413)),
    ],
    "trailers": [
        ("one", chunked(CHUNK + b"0\r\nX-T: y\r\n\r\n"), Passes(b"{}", closes=True, without=("x-t",))),
        ("that would be framing", chunked(CHUNK + b"0\r\nContent-Length: 9\r\n\r\n"), REFUSED),
        ("that would be a coding", chunked(CHUNK + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), REFUSED),
        ("that would be a host", chunked(CHUNK + b"0\r\nHost: y\r\n\r\n"), Passes(b"{}", closes=True)),
        (
            "that would identify",
            chunked(CHUNK + b"0\r\nx-api-key: y\r\n\r\n"),
            Passes(b"{}", closes=True, without=("x-api-key",)),
        ),
        (
            "announced",
            chunked(CHUNK + b"0\r\nX-T: y\r\n\r\n", "Trailer: X-T"),
            Passes(b"{}", closes=True, without=("trailer", "x-t")),
        ),
        *rows(
            chunked,
            REFUSED,
            *(CHUNK + b"0\r\nno colon\r\n\r\n", CHUNK + b"0\r\nX : y\r\n\r\n", CHUNK + b"0\r\n: y\r\n\r\n"),
            *(
                CHUNK + b"0\r\nX: y\n\r\n",
                CHUNK + b"0\r\nX: y\r\r\n",
                CHUNK + b"0\r\nX: \x00\r\n\r\n",
                CHUNK + b"0\r\n X: y\r\n\r\n",
            ),
            *(CHUNK + b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n",),
        ),
        ("a long one", chunked(CHUNK + b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n"), Refused(431)),
        ("unfinished", chunked(CHUNK + b"0\r\nX: y\r\n"), Unfinished()),
    ],
    "header syntax": [
        *rows(
            get,
            Passes(),
            "X:",
            "X: ",
            "X:y",
            "X:\ty \t",
            f"{OWN_NAMES}: y",
            "X: a\tb",
            "X: y:z",
            'X: "',
            "-: y",
            "9: y",
        ),
        ("UTF-8", get("X: é".encode()), Passes(having=("X: é",))),
        ("repeats", get("X: a", "x: b"), Passes(having=("X: a", "X: b"))),
        *rows(
            get,
            REFUSED,
            *(
                "X : y",
                "X\t: y",
                ": y",
                ":",
                "X",
                "X y",
                "X\x00: y",
                "X: \x00",
                "X: a\rb",
                "X: a\nb",
                "X: a\r\n b",
                "X:\r\n y",
            ),
            *(
                "X: a\r\n\tb",
                "X(: y",
                "X): y",
                "X,: y",
                "X{: y",
                "X@: y",
                "X/: y",
                "X[: y",
                "X?: y",
                "X=: y",
                "X\\: y",
                '"X": y',
            ),
            *(
                "X;: y",
                "X<: y",
                "\xe9: y",
                "X: \xff",
                "X: \xe9",
                "X: \x7f",
                "X: \x01",
                "X: \x0b",
                "X: \x1b[2J",
                "X: y\r",
                "X\r: y",
            ),
            *("X: y\n", "\x85X: y", "X\x7f: y", "\xa0X: y", "X: \xed\xa0\x80", "X: \xc0\xaf", "X: \x08"),
        ),
        ("a blank before the first", raw(LINE, " X: y", "Host: x"), REFUSED),
        ("a tab before the first", raw(LINE, "\tX: y", "Host: x"), REFUSED),
        ("lines of LF", get().replace(b"\r\n", b"\n"), REFUSED),
        ("lines of CR", get().replace(b"\r\n", b"\r"), REFUSED),
        ("lines of LF CR", get().replace(b"\r\n", b"\n\r"), REFUSED),
        ("a last line of LF", get()[:-2] + b"\n", REFUSED),
        ("half a head", get()[:-2], Unfinished()),
        ("half a line", get()[:20], Unfinished()),
        ("half a name", get()[:-2] + b"X-A", Unfinished()),
    ],
    "underscores": [
        *rows(
            get,
            REFUSED,
            *(
                "X_A: y",
                "_: y",
                "X-A_: y",
                "Content_Length: 2",
                "Transfer_Encoding: chunked",
                "x_optum_subtenant_id: y",
            ),
            *("x_api_key: y", "x-optum_correlation-id: y", "Host_: x", "traceparent_: y"),
        ),
    ],
    "Connection": [
        (
            "names a header",
            get("X-Drop: y", "X-Keep: y", "Connection: X-Drop"),
            Passes(without=("x-drop",), having=("X-Keep: y",)),
        ),
        ("names many", get("A: 1", "B: 2", "Connection: a , B,,"), Passes(without=("a", "b"))),
        ("twice", get("A: 1", "B: 2", "Connection: a", "connection: b"), Passes(without=("a", "b"))),
        ("closes and names", get("A: 1", "Connection: close, A"), Passes(without=("a",), closes=True)),
        ("closes", get("Connection: close"), Passes(closes=True)),
        ("names the framing", sized("Connection: Content-Length"), Passes(b"{}")),
        ("names the coding", chunked(CHUNK + LAST, "Connection: Transfer-Encoding"), Passes(b"{}")),
        ("names the host", get("Connection: Host"), Passes()),
        (
            "names the type",
            sized("Content-Type: a/b", "Connection: Content-Type"),
            Passes(b"{}", having=("Content-Type: a/b",)),
        ),
        ("names an API's header", get("x-optum-a: y", "Connection: x-optum-a"), Passes(having=("x-optum-a: y",))),
        ("names the identity", get("Connection: x-optum-correlation-id, Authorization"), Passes()),
        ("nonsense", get("Connection: ,;,=,"), Passes()),
        ("Keep-Alive", get("Keep-Alive: timeout=5", "Connection: keep-alive"), Passes(without=("keep-alive",))),
        ("Proxy-Connection", get("Proxy-Connection: close"), Passes(without=("proxy-connection",), closes=True)),
        ("closes, and more follows at once", get("Connection: close") + get(), REFUSED),
        ("closes, and an empty line follows", get("Connection: close") + b"\r\n", Passes(closes=True)),
        ("Proxy-Authorization", get("Proxy-Authorization: Basic x"), Passes(without=("proxy-authorization",))),
    ],
    "Expect": [
        ("100-continue", sized("Expect: 100-continue"), Passes(b"{}", without=("expect",))),
        ("100-Continue", sized("expect: 100-Continue"), Passes(b"{}", without=("expect",))),
        ("100-continue with GET", get("Expect: 100-continue"), Passes(without=("expect",))),
        (
            "100-continue in 1.0",
            post("Content-Length: 2", "Expect: 100-continue", version="HTTP/1.0"),
            Passes(b"{}", closes=True),
        ),
        *rows(sized, Answered(417), "Expect: x", "Expect:", "Expect: 100-continue, x", "Expect: 200-ok"),
    ],
    "Upgrade": [
        *rows(
            get, REFUSED, "Upgrade: websocket", "upgrade: WebSocket", "Upgrade: h2c, websocket", "Upgrade: websocket/13"
        ),
        ("websocket, and Connection", get("Upgrade: websocket", "Connection: Upgrade"), REFUSED),
        ("websocket, with a body", sized("Upgrade: websocket", "Connection: Upgrade"), REFUSED),
        ("websocket, second", get("Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade"), REFUSED),
        ("an old websocket", get("Upgrade: x", "Sec-WebSocket-Key1: y", "Connection: Upgrade"), REFUSED),
        (
            "h2c",
            get("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings"),
            Passes(closes=True, without=("upgrade", "http2-settings")),
        ),
        ("h2c with a body", sized("Upgrade: h2c", "Connection: Upgrade"), Passes(b"{}", closes=True)),
        ("h2c with chunks", chunked(CHUNK + LAST, "Upgrade: h2c", "Connection: Upgrade"), Passes(b"{}", closes=True)),
        ("h2c without Connection", get("Upgrade: h2c"), Passes(without=("upgrade",))),
        ("TLS", get("Upgrade: TLS/1.0", "Connection: Upgrade"), Passes(closes=True, without=("upgrade",))),
        ("nothing", get("Upgrade:", "Connection: Upgrade"), Passes(without=("upgrade",))),
    ],
    "other protocols": [
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", REFUSED),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), REFUSED),
        ("SSL 2", b"\x80\x2e\x01\x00\x02" + bytes(40), REFUSED),
        ("PROXY 1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get(), REFUSED),
        ("PROXY 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + get(), REFUSED),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", REFUSED),
        ("SMTP", b"EHLO x\r\nMAIL FROM:<a@b>\r\n", REFUSED),
        ("Redis", b"*1\r\n$4\r\nPING\r\n", REFUSED),
        ("memcached", b"get x\r\n", REFUSED),
        ("FastCGI", b"\x01\x01\x00\x01\x00\x08\x00\x00" + bytes(8), REFUSED),
        ("NULs", bytes(100), REFUSED),
        ("high bytes", b"\xff" * 100, REFUSED),
        ("JSON", b'{"a": 1}\r\n\r\n', REFUSED),
        ("a reply", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", REFUSED),
    ],
    "limits": [
        ("a target of 8190 bytes", to(f"{PATH}?".ljust(8190, "a")), Passes(target=f"{PATH}?".ljust(8190, "a"))),
        ("a target of 8191 bytes", to(f"{PATH}?".ljust(8191, "a")), Refused(431)),
        ("a target of 100 kB", to(f"{PATH}?".ljust(100_000, "a")), Refused(431)),
        ("a field of 8190 bytes", get("X: ".ljust(8191, "y")), Passes()),
        ("a field of 9000 bytes", get("X: ".ljust(9000, "y")), Refused(431)),
        ("a name of 9000 bytes", get("X" * 9000 + ": y"), Refused(431)),
        ("128 fields", get(*(f"X-{n}: y" for n in range(127))), Passes()),
        ("129 fields", get(*(f"X-{n}: y" for n in range(128))), REFUSED),
        ("1000 fields", get(*["X: y"] * 1000), REFUSED),
        ("a head of 32 kB", get(*(f"X-{n}: ".ljust(8000, "y") for n in range(4))), Passes()),
        ("a head of 40 kB", get(*(f"X-{n}: ".ljust(8000, "y") for n in range(5))), Refused(431)),
        ("a head of 200 kB", get(*(f"X-{n}: ".ljust(8000, "y") for n in range(25))), Refused(431)),
        ("a thousand empty lines before", b"\r\n" * 1000 + get(), Passes()),
        ("a body at the cap", sized(body=b" " * (LARGE - 1)), Passes(b" " * (LARGE - 1))),
    ],
    "Content-Encoding": [
        ("gzip", sized("Content-Encoding: gzip", body=GZIPPED), Passes(GZIPPED, having=("Content-Encoding: gzip",))),
        ("gzip that is none", sized("Content-Encoding: gzip"), Passes(b"{}", having=("Content-Encoding: gzip",))),
        ("unknown", sized("Content-Encoding: x"), Passes(b"{}", having=("Content-Encoding: x",))),
        (
            "a bomb",
            sized("Content-Encoding: gzip", body=BOMB),
            Passes(BOMB),
        ),
    ],
}

MESSAGES: Final = [
    Message(f"{group}: {name}", message, verdict) for group, cases in _TABLE.items() for name, message, verdict in cases
]
