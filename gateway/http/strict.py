"""What is unambiguous enough to be let in.

Facts (aiohttp 3.14)
- Its parser refuses most malformed messages by itself, and hands these to the handler all the same: absolute-
  and authority-form targets, HTTP/0.9 and 2.0 version lines, `Transfer-Encoding: gzip, chunked`, chunked
  framing in HTTP/1.0, header values that are not UTF-8, `Content-Length: 010`, any `Host`, `Upgrade: websocket`.
- A request that runs the handler under HTTP/0.9 is never answered: a check paid for and thrown away.

Rules
- Whoever stands behind us must read the very same request that we read.
- Some servers read "_" in a name as "-": a name that holds one is two names.
- Nobody agrees on what a body of GET means (RFC 9110, 9.3.1): who does not read it takes it for the next request.
- An offer of `h2c` is ignored (RFC 9110, 7.8): Java's own client makes one on each new connection.
"""

import re
from typing import Final

from gateway.exchange import HeadersView
from gateway.headers.rules import is_utf8

_VERSIONS: Final = frozenset({(1, 0), (1, 1)})
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REFUSED_IN_TARGET: Final = frozenset("#\\")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,17}")  # some read 010 as 8
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_SWITCHES: Final = "CONNECT"  # its parser would read no further request
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "TRACE"})


def is_unambiguous(method: str, target: str, version: tuple[int, int], headers: HeadersView) -> bool:
    """Whether the request has one reading: origin-form, HTTP/1.x, one framing, plain names, UTF-8 values."""
    if version not in _VERSIONS or method == _SWITCHES or not target.startswith("/") or target.startswith("//"):
        return False
    if not target.isascii() or not _REFUSED_IN_TARGET.isdisjoint(target):
        return False
    if not _is_framed_once(method, version, headers) or _HOST.fullmatch(headers.get("Host", "")) is None:
        return False
    if "Upgrade" in headers and any("websocket" in value.lower() for value in headers.getall("Upgrade")):
        return False  # what the parser would switch to; any other offer is ignored and ends here
    # One join costs less than a question to each of twenty names and values.
    if "_" in "".join(headers.keys()):
        return False
    values = "".join(headers.values())
    if values.isascii() and values.isprintable():
        return True
    return _CONTROL.search(values) is None and (values.isascii() or is_utf8(values))


def _is_framed_once(method: str, version: tuple[int, int], headers: HeadersView) -> bool:
    length = headers.get("Content-Length")
    if "Transfer-Encoding" not in headers:
        return length is None or (
            _LENGTH.fullmatch(length) is not None and (length == "0" or method not in _WITHOUT_BODY)
        )
    codings = [coding.strip().lower() for coding in headers.getall("Transfer-Encoding")]
    return version == (1, 1) and length is None and codings == ["chunked"] and method not in _WITHOUT_BODY
