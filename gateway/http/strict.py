"""What is unambiguous enough to be let in.

Facts (aiohttp 3.14)
- Its parser refuses most malformed messages by itself, and hands these to the handler all the same: absolute-
  and authority-form targets, HTTP/0.9 and 2.0 version lines, `Transfer-Encoding: gzip, chunked`, chunked
  framing in HTTP/1.0, header values that are not UTF-8, and `Upgrade: websocket`.
- A request that runs the handler under HTTP/0.9 is never answered: a check paid for and thrown away.

Rule: whoever stands behind us must read the very same request that we read.
"""

import re
from typing import Final

from gateway.exchange import HeadersView
from gateway.headers.rules import is_utf8

_VERSIONS: Final = frozenset({(1, 0), (1, 1)})
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REFUSED_IN_TARGET: Final = frozenset("#\\")


def is_unambiguous(target: str, version: tuple[int, int], headers: HeadersView) -> bool:
    """Whether the request has one reading: origin-form, HTTP/1.x, one framing, UTF-8 values, no upgrade."""
    if version not in _VERSIONS or not target.startswith("/") or target.startswith("//"):
        return False
    if not target.isascii() or not _REFUSED_IN_TARGET.isdisjoint(target):
        return False
    if "Transfer-Encoding" in headers and not _is_chunked_alone(version, headers):
        return False
    if "Upgrade" in headers and "websocket" in headers["Upgrade"].lower():
        return False  # what the parser would switch to; any other offer is ignored (RFC 9110, 7.8) and ends here
    # One join costs less than a question to each of twenty values.
    values = "".join(headers.values())
    if values.isascii() and values.isprintable():
        return True
    return _CONTROL.search(values) is None and (values.isascii() or is_utf8(values))


def _is_chunked_alone(version: tuple[int, int], headers: HeadersView) -> bool:
    codings = headers.getall("Transfer-Encoding")
    return version == (1, 1) and "Content-Length" not in headers and [c.strip().lower() for c in codings] == ["chunked"]
