"""The traffic port with TLS: from a connection that was accepted to one that is served.

Facts (uvloop 0.23, asyncio of Python 3.11)
- A listener that is given a context keeps it for ever, and says nothing of handshakes that fail, or are never ended.
- Between `connection_made` and `start_tls` uvloop reads on, also where reading was paused: what comes is lost.
So connections are accepted here, and each is given the context that is in force when it comes.

Rules
- A handshake ends within HANDSHAKE_S. Until then its connection is idle: it makes room for those who ask.
- One that fails is counted by its reason, and leaves no line in the log: whoever scans ports would write it.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web

from gateway.http.server import Server
from gateway.http.sockets import Sockets
from gateway.tls import HandshakeFailure, handshake_failure

HANDSHAKE_S: Final = 10.0
_GOODBYE_S: Final = 3.0  # for the caller to say that it has heard that we close
_PAUSE_S: Final = 0.2
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # an IPv6 address of localhost without IPv6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What a listener with TLS needs: the context in force, and who is told of handshakes that fail."""

    context: Callable[[], ssl.SSLContext]
    sockets: Sockets
    on_failed: Callable[[HandshakeFailure], None]
    handshake_s: float = HANDSHAKE_S


class TlsSite(web.TCPSite):
    """A listener with TLS: `start` returns when it accepts, and `stop` when it does so no more."""

    def __init__(self, runner: web.ServerRunner, host: str, port: int, *, backlog: int, tls: Tls) -> None:
        super().__init__(runner, host, port, backlog=backlog)
        self._address = host, port
        self._tls = tls
        self._acceptor: _Acceptor | None = None

    async def start(self) -> None:
        """Listen, and accept. Raises OSError where an address cannot be had."""
        await web.BaseSite.start(self)
        server = self._runner.server
        if not isinstance(server, Server):
            raise TypeError("found another server, expected the ingress's")
        listeners = await _listeners(*self._address, self._backlog)
        self._acceptor = _Acceptor(listeners, server, self._tls)
        self._server = self._acceptor  # type: ignore[assignment] # what it has of a server is what a site needs

    async def stop(self) -> None:
        """Accept nobody more; handshakes that have begun go on."""
        await super().stop()
        if self._acceptor is not None:
            await self._acceptor.closed()

    async def end(self) -> None:
        """Break off the handshakes that are still under way."""
        if self._acceptor is not None:
            await self._acceptor.end()


class _Acceptor:
    """Accepts on some sockets until it is closed."""

    def __init__(self, listeners: Iterable[socket.socket], server: Server, tls: Tls) -> None:
        self.sockets = tuple(listeners)
        self._new_connection = server.after
        self._tls = tls
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        for listener in self.sockets:
            task = asyncio.get_running_loop().create_task(self._accept(listener))
            task.add_done_callback(partial(_close, listener))
            self._accepting.append(task)

    def close(self) -> None:
        """Accept nobody more."""
        for task in self._accepting:
            task.cancel()

    async def closed(self) -> None:
        """Return when nobody more is accepted."""
        await asyncio.gather(*self._accepting, return_exceptions=True)

    async def end(self) -> None:
        """Return when no handshake is under way any more: they are broken off."""
        for task in tuple(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:  # it has left already
                continue
            except OSError:  # no descriptor left; who has waited until there is one is accepted then
                await asyncio.sleep(_PAUSE_S)
                continue
            task = loop.create_task(_Handshake(self._tls).make(connection, self._new_connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)


class _Handshake:
    """A connection from when it was accepted to when it is served."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._task: asyncio.Task[None] | None = None
        self._is_counted = False

    def abort(self) -> None:
        """Break it off, for others need its socket."""
        if self._task is not None:
            self._task.cancel()

    async def make(
        self, connection: socket.socket, new_connection: Callable[[Callable[[], None]], asyncio.Protocol]
    ) -> None:
        """Return when it has been made, or has failed; then the connection counts for itself, or no more."""
        self._task = asyncio.current_task()
        self._is_counted = True
        self._tls.sockets.opened(self)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: new_connection(self._is_over),
                connection,
                ssl=self._tls.context(),
                ssl_handshake_timeout=self._tls.handshake_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except asyncio.CancelledError:
            self._tls.on_failed(HandshakeFailure.NO_ROOM)
        except OSError as error:  # ssl's errors are OSErrors too
            self._tls.on_failed(handshake_failure(error))
        finally:
            self._is_over()

    def _is_over(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._tls.sockets.closed(self)


def _close(listener: socket.socket, _: object) -> None:
    listener.close()


async def _listeners(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return a socket that listens for each address of a host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    trouble: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            listener = socket.create_server(address[:2], family=family, backlog=backlog)
        except OSError as error:
            trouble = error
            if error.errno in _NOT_HERE:
                continue
            for other in listeners:
                other.close()
            raise
        listener.setblocking(False)  # noqa: FBT003 - the library takes no name
        listeners.append(listener)
    if not listeners:
        raise trouble or OSError(errno.EADDRNOTAVAIL, "no such address")
    return listeners
