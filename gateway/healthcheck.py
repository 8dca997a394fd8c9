"""Whether a gateway is ready, asked on its admin port.

Rules
- It is asked every few seconds for as long as a container lives: it imports little, and needs no other setting. So it
  reads GATEWAY_ADMIN_LISTEN itself, as settings.py would.
- It follows neither a redirect nor a proxy: only who was asked can say that it is ready.
"""

import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

VARIABLE: Final = "GATEWAY_ADMIN_LISTEN"
DEFAULT: Final = "127.0.0.1:9090"
LIMIT_S: Final = 3.0
_FILE: Final = f"{VARIABLE}_FILE"
_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get  # noqa: S104 - all addresses are asked at the nearest
_PATH: Final = "/readyz"
_OK: Final = 200
_PORT_MAX: Final = 65535
_READY, _NOT_READY, _USAGE = 0, 1, 2


class _Wrong(Exception):
    """There is nobody to ask; it says what to mend."""


def healthcheck(environment: Mapping[str, str], url: str | None = None) -> int:
    """Ask, and return the exit code: 0 ready, 1 not ready or nobody answers, 2 nobody to ask. Says why on stderr."""
    try:
        host, port, path = _parts(url) if url is not None else (*_admin_address(environment), _PATH)
    except _Wrong as wrong:
        sys.stderr.write(f"{wrong}\n")
        return _USAGE
    shown = f"http://{f'[{host}]' if ':' in host else host}:{port}{path.partition('?')[0]}"
    try:
        status = _status(host, port, path)
    except HTTPException:
        found = "what is no HTTP"
    except TimeoutError:
        found = f"no answer within {LIMIT_S:g} s"
    except (OSError, UnicodeError) as error:  # UnicodeError: of a host's name that cannot be one
        found = f"nobody who answers ({getattr(error, 'strerror', None) or 'no such name'})"
    else:
        if status == _OK:
            return _READY
        found = f"the status {status}"
    sys.stderr.write(f"{shown}: found {found}, expected a gateway that is ready (200)\n")
    return _NOT_READY


def _status(host: str, port: int, path: str) -> int:
    connection = HTTPConnection(host, port, timeout=LIMIT_S)
    # A timeout of the socket is one for each piece that comes; whoever sends them one by one is cut off by this one.
    is_late = threading.Event()
    limit = threading.Timer(LIMIT_S, _cut, [connection, is_late])
    limit.daemon = True
    limit.start()
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, HTTPException):
        if is_late.is_set():
            raise TimeoutError from None
        raise
    finally:
        limit.cancel()
        connection.close()


def _cut(connection: HTTPConnection, is_late: threading.Event) -> None:
    is_late.set()
    with suppress(OSError, AttributeError):  # it has no socket until it is connected
        connection.sock.shutdown(socket.SHUT_RDWR)


def _admin_address(environment: Mapping[str, str]) -> tuple[str, int]:
    named, file = environment.get(VARIABLE), environment.get(_FILE)
    if named is not None and file is not None:
        raise _Wrong(f"{VARIABLE}: found beside {_FILE}, expected one of them")
    if file is not None:
        try:
            named = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise _Wrong(f"{_FILE}: found no file that can be read, expected one") from None
    host, colon, port = (named if named is not None else DEFAULT).rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > _PORT_MAX:
        raise _Wrong(f"{VARIABLE}: found no address, expected HOST:PORT such as {DEFAULT}")
    if int(port) == 0:
        raise _Wrong(f"{VARIABLE}: found port 0, which the system chooses, expected --url")
    host = host.removeprefix("[").removesuffix("]")
    return _THIS_MACHINE(host, host), int(port)


def _parts(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        port = 80 if parts.port is None else parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    is_plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
    if parts.scheme != "http" or not parts.hostname or not is_plain or not port:
        raise _Wrong("--url: found another address, expected http://HOST[:PORT]/PATH without credentials")
    return parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
