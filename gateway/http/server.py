"""aiohttp's server, but for what it says and adds by itself.

Facts (aiohttp 3.14)
- What its parser refuses, it answers by itself, quoting the offending line: a token, perhaps, or a name. So
  its error answer is replaced by a fixed one, and it has no logger that anybody reads.
- It adds headers of its own to a reply that has none under their names.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from gateway.errors import Internal, NotHttp
from gateway.http.sockets import Sockets
from gateway.problem import GatewayError
from gateway.tls import certificate_names

_KEEP_ALIVE_S: Final = 300.0  # longer than any front proxy's: it is the proxy that should close


class Request(web.BaseRequest):
    """A request whose reply carries no header that aiohttp thought of by itself."""

    unwanted: tuple[str, ...] = ("Server",)
    on_left: Callable[[], None] | None = None
    certificate_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> "Request":
        """Build it as aiohttp's own factory does."""
        request = cls(message, payload, protocol, writer, task, asyncio.get_running_loop())
        if isinstance(protocol, _Connection):
            request.certificate_names = protocol.certificate_names
            protocol.asks(request)
        return request

    def is_over(self) -> None:
        """Note that the connection is idle, unless there is more on it; nobody is told any more that it was left."""
        self.on_left = None
        if isinstance(self.protocol, _Connection):
            self.protocol.rests()

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        for name in self.unwanted:
            response.headers.popall(name, None)


class _Connection(RequestHandler):
    """aiohttp's connection, but for what it says when it cannot read a request."""

    __slots__ = ("_asked", "_is_over", "_on_made", "_refuse", "_sockets", "certificate_names")

    def __init__(
        self,
        manager: web.Server,
        refuse: Callable[[GatewayError], web.Response],
        sockets: Sockets,
        on_made: Callable[[], None],
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp's own code asks `if access_log`
            auto_decompress=False,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        self._refuse = refuse
        self._sockets = sockets
        self._on_made = on_made
        self._is_over = False
        self._asked: Request | None = None
        self.certificate_names: tuple[str, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, and know whose certificate was verified."""
        super().connection_made(transport)
        self._on_made()
        self._sockets.opened(self)
        self.certificate_names = certificate_names(transport.get_extra_info("peercert"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more, and tell the request that is being worked on."""
        self._sockets.closed(self)
        if self._asked is not None and self._asked.on_left is not None:
            self._asked.on_left()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close it at once, for others need its socket."""
        if self.transport is not None:
            self.transport.abort()

    def asks(self, request: Request) -> None:
        """Note that there is a request on it."""
        self._asked = request
        self._sockets.asks(self)

    def rests(self) -> None:
        """Note that there is none, if the connection is still there."""
        self._asked = None
        if self.transport is not None:
            self._sockets.rests(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer with fixed words; aiohttp's own quote the line that it could not read."""
        self._is_over = True
        if exc is not None:
            exc.__traceback__ = exc.__context__ = None  # its frames hold megabytes of what was sent
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun: there is no place for another")
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return self._refuse(Internal() if is_ours else NotHttp())

    def data_received(self, data: bytes) -> None:
        """Read on, unless what came before could not be read: aiohttp would parse, and keep, all the rest."""
        if self._is_over:
            if self.transport is not None:
                self.transport.abort()
            return
        super().data_received(data)


class Server(web.Server):
    """A factory of `_Connection`s."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        refuse: Callable[[GatewayError], web.Response],
        sockets: Sockets,
    ) -> None:
        super().__init__(handle, request_factory=Request.of)
        self._refuse = refuse
        self._sockets = sockets

    def __call__(self) -> RequestHandler:
        """Return what serves one connection."""
        return self.after(_nothing)

    def after(self, on_made: Callable[[], None]) -> RequestHandler:
        """Return what serves one connection; whoever made it is told when it is served, and counted as such."""
        return _Connection(self, self._refuse, self._sockets, on_made)


def _nothing() -> None:
    pass
