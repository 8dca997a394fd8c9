"""aiohttp's server, but for what it says and adds by itself, and for how long it waits.

Facts (aiohttp 3.14)
- What its parser refuses, it answers by itself, quoting the offending line: a token, perhaps, or a name. So
  its error answer is replaced by a fixed one, and what it would log is not logged.
- It adds headers of its own to a reply that has none under their names.
- It bounds a line, a field and the number of fields, but neither a whole head nor the time that one takes; a body
  whose chunks break off in nonsense is neither ended nor broken, and whoever reads it would wait for its deadline.
- After an `Upgrade` that nobody takes up it drops what came in the same segment, and reads on from the next one.
- The last trailer of a chunked body becomes the first header of the next request on the connection: a caller behind
  the same front proxy would speak with another's credentials.
- Its parser stops when 32 requests wait, and may count one too many: what it has not looked at yet is not known.
- A reply that nobody takes does not keep it from closing, and the closing waits for the reply: for ever.

Rules
- A connection is always up to one of these, each with an end: it has not asked yet, it sends a head, it sends a body
  (whose end the ingress knows), it waits for its reply (and so does a policy), it takes the reply, it is idle.
- After anything that could not be read, nothing more is read from that connection; nor after an offer to upgrade, nor
  after a chunked body, unless the bytes show that it has no trailers and that nothing came together with its end.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.errors import AmbiguousRequest, BodyTooLarge, BodyTorn, HeadTooLarge, HeadTooSlow, Internal, NotHttp
from gateway.http.sockets import Sockets
from gateway.problem import GatewayError
from gateway.tls import certificate_ends_at, certificate_names

_FIRST_S: Final = 60.0  # to ask for the first time: a front proxy may open connections ahead of need
_LINE_BYTES: Final = 8190  # of a target, and of a field: as Apache httpd has it
_FIELDS: Final = 128
_HEAD_BYTES: Final = 32_768  # of all of them together: as nginx has it; 128 fields of 8 kB would be a megabyte
_NO_TRAILERS: Final = b"\r\n0\r\n\r\n"  # a trailer has a colon: no other body that is whole ends like this
# Whatever the parser takes for HTTP as well: it says which version, and not of which protocol.
_FOREIGN: Final = re.compile(rb" (?:RTSP|ICE)/[0-9]\.[0-9]\r?\n")
_PROTOCOL_BYTES: Final = 16
_KNOWN: Final = 30  # of requests that wait: with fewer, the parser has looked at all that came
_FRAMING: Final = 8  # a body in chunks of one byte is six times its size


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a connection may take, in seconds.

    To send a head, from its first byte on; between requests; to take any of its last reply.
    """

    head_s: float
    idle_s: float
    stall_s: float
    body_bytes: int  # the largest body, of which the framing is a multiple


class Request(web.BaseRequest):
    """A request whose reply carries no header that aiohttp thought of by itself."""

    unwanted: tuple[str, ...] = ("Server",)
    on_left: Callable[[], None] | None = None
    certificate_names: tuple[str, ...] = ()
    certificate_ends_at: float = math.inf

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
            request.certificate_ends_at = protocol.certificate_ends_at
            protocol.asks(request)
        return request

    def is_over(self, *, is_last: bool) -> None:
        """Note that the connection is idle, unless there is more on it; nobody is told any more that it was left.

        After the last request nothing of its body is awaited, and the reply is taken soon or not at all.
        """
        self.on_left = None
        if isinstance(self.protocol, _Connection):
            self.protocol.rests(is_last=is_last)

    @property
    def ends(self) -> bool:
        """Whether no request behind it would be read."""
        return isinstance(self.protocol, _Connection) and self.protocol.ends

    def leaves(self) -> None:
        """Do not wait for the rest of a body that was waited for already."""
        if isinstance(self.protocol, _Connection):
            self.protocol.leaves()

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        for name in self.unwanted:
            response.headers.popall(name, None)


class _Connection(RequestHandler):
    """aiohttp's connection, but for what it says when it cannot read a request, and for how long it waits."""

    __slots__ = (
        *(
            "_asked",
            "_is_last",
            "_is_over",
            "_on_made",
            "_patience",
            "_refuse",
            "_sockets",
            "_wire",
            "certificate_ends_at",
            "certificate_names",
        ),
        *("_body", "_body_bytes", "_due_at", "_end", "_ends", "_head_bytes", "_is_chunked", "_is_upgrade", "_timer"),
        *("_is_foreign", "_line"),
    )

    def __init__(
        self,
        manager: web.Server,
        refuse: Callable[[GatewayError], web.Response],
        sockets: Sockets,
        patience: Patience,
        on_made: Callable[[], None],
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp's own code asks `if access_log`
            auto_decompress=False,
            keepalive_timeout=patience.idle_s + _FIRST_S,  # never reached: `_expire` is earlier
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_FIELDS,
        )
        self._refuse = refuse
        self._sockets = sockets
        self._patience = patience
        self._wire: asyncio.Transport | None = None  # also while it is closing
        self._is_over = False  # nothing more is read
        self._is_last = False  # nothing more is read but the rest of a body
        self._ends = False  # with the message that was read last
        self._asked: Request | None = None
        self._body: StreamReader = EMPTY_PAYLOAD  # of the message that was read last
        self._body_bytes = 0
        self._is_chunked = self._is_upgrade = False  # the message that was read last
        self._end = b""  # of what was read
        self._head_bytes = 0  # of a head that has begun and not ended
        self._line = b""  # the end of what was read, in which a protocol's name may be cut
        self._is_foreign = False  # the head that is being read names another protocol
        self._due_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._on_made = on_made
        self.certificate_names: tuple[str, ...] = ()
        self.certificate_ends_at = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, and know whose certificate was verified."""
        super().connection_made(transport)
        self._on_made()
        self._wire = self.transport
        self._sockets.opened(self)
        peer = transport.get_extra_info("peercert")
        self.certificate_names, self.certificate_ends_at = certificate_names(peer), certificate_ends_at(peer)
        self._give(min(_FIRST_S, self._patience.idle_s))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more, and tell the request that is being worked on."""
        self._sockets.closed(self)
        self._wire = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asked is not None and self._asked.on_left is not None:
            self._asked.on_left()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close it at once: others need its socket, or it has had its time."""
        if self._wire is not None:
            self._wire.abort()

    def asks(self, request: Request) -> None:
        """Note that there is a request on it."""
        self._asked = request
        self._due_at = math.inf
        self._sockets.asks(self)

    def rests(self, *, is_last: bool) -> None:
        """Note that there is none, if the connection is still there."""
        self._asked = None
        if self.transport is None:
            return
        self._sockets.rests(self)
        if is_last:
            self._is_last = True
            self._give(self._patience.stall_s)
        else:
            self._give(self._patience.head_s if self._head_bytes else self._patience.idle_s)

    @property
    def ends(self) -> bool:
        """Whether nothing behind the messages that are here would be read."""
        return self._ends and not self._messages

    def leaves(self) -> None:
        """Do not wait for the rest of a body that was waited for already."""
        self._lingering_time = 0.0

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer with fixed words; aiohttp's own quote the line that it could not read."""
        self._is_over = True
        self._give(self._patience.stall_s)
        if exc is not None:
            exc.__traceback__ = exc.__context__ = None  # its frames hold megabytes of what was sent
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun: there is no place for another")
        if isinstance(exc, GatewayError):
            return self._refuse(exc)
        if isinstance(exc, LineTooLong):
            return self._refuse(HeadTooLarge())
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return self._refuse(Internal() if is_ours else NotHttp())

    def log_exception(self, *args: object, **kw: object) -> None:
        """Say nothing: an exception's words may be those of a request, and its end is in the records."""

    def data_received(self, data: bytes) -> None:
        """Read on, unless what came before could not be read: aiohttp would parse, and keep, all the rest."""
        is_body, before = not self._body.is_eof(), self._request_count
        if self._is_over or (self._is_last and not is_body):
            return
        is_within = is_body or self._head_bytes > 0
        super().data_received(data)
        count = self._request_count - before
        if not self._is_foreign and (count or not is_body):
            heads = data if is_within or count != 1 else self._head_of(data)
            self._is_foreign = _FOREIGN.search(self._line + heads) is not None
        self._line = (self._line + data[-_PROTOCOL_BYTES:])[-_PROTOCOL_BYTES:]
        self._end = (self._end + data[-len(_NO_TRAILERS) :])[-len(_NO_TRAILERS) :]
        if count:
            self._has_read(count, data, is_body=is_body)
        elif is_body:
            self._body_bytes += len(data)
            if self._body_bytes > _FRAMING * self._patience.body_bytes + _HEAD_BYTES:
                self._break_body(BodyTooLarge())
        elif data:
            self._reads_head(len(data))
        if self._body.is_eof() and (is_body or count) and self._ends_here():
            self._ends = self._is_over = True

    def _head_of(self, data: bytes) -> bytes:
        """Leave out the body of the one message that begins with this piece, where nothing stands behind it."""
        end = data.find(b"\r\n\r\n") + len(b"\r\n\r\n")
        return data[:end] if len(data) - end == self._messages[-1][1].total_bytes else data

    def _ends_here(self) -> bool:
        """Whether what follows the message that was read last may be misread."""
        is_known = self._end == _NO_TRAILERS and len(self._messages) < _KNOWN
        return self._is_upgrade or (self._is_chunked and not is_known)

    def _has_read(self, count: int, data: bytes, *, is_body: bool) -> None:
        """Look at the messages of which the heads are complete now; `is_body`: one was being read before."""
        self._head_bytes, before, size = 0, self._head_bytes, len(data)
        if self._is_foreign:
            self._keep(max(len(self._messages) - count, 0))
            self._give_up(AmbiguousRequest())
            return
        self._body_bytes = 0
        is_misread = is_body and self._is_chunked
        for index in range(max(len(self._messages) - count, 0), len(self._messages)):
            message, payload = self._messages[index]
            if isinstance(message, _ErrInfo):
                self._break_body(BodyTorn())
                return
            if is_misread:  # together with the end of a chunked body
                self._keep(index)
                self._ends = self._is_over = True
                return
            if before + size > _HEAD_BYTES and _size(message) > _HEAD_BYTES:
                self._keep(index)
                self._give_up(HeadTooLarge())
                return
            self._body, self._is_upgrade = payload, message.upgrade
            self._is_chunked = is_misread = message.chunked
        self._due_at = math.inf
        if self._body is EMPTY_PAYLOAD and not data.endswith(b"\r\n\r\n"):
            self._head_bytes = 1  # the next head has begun

    def _keep(self, count: int) -> None:
        while len(self._messages) > count:
            self._messages.pop()

    def _reads_head(self, size: int) -> None:
        if not self._head_bytes and self._asked is None:
            self._give(self._patience.head_s)
        self._head_bytes += size
        if self._head_bytes > _HEAD_BYTES:
            self._give_up(HeadTooLarge())

    def _break_body(self, error: GatewayError) -> None:
        """Whoever reads the body, or will, is told; nothing more is read."""
        self._is_over = True
        self.leaves()
        if self._body.is_eof():
            return
        if self._asked is None and not self._messages:
            self.abort()
        else:
            self._body.set_exception(error)
            # Whoever was woken by the end of a chunk waits again without having looked.
            self._loop.call_soon(self._body.set_exception, error)

    def _give_up(self, error: GatewayError) -> None:
        """Answer with an error when those before it were answered; nothing more is read."""
        self._is_over = True
        self._due_at = math.inf
        self._messages.append((_ErrInfo(error.status, error, ""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give(self, time_s: float) -> None:
        self._due_at = self._loop.time() + time_s
        if self._timer is None or self._timer.when() > self._due_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due_at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._loop.time() < self._due_at:
            if self._due_at < math.inf:
                self._timer = self._loop.call_at(self._due_at, self._expire)
        elif self._head_bytes and not (self._is_over or self._is_last):
            self._give_up(HeadTooSlow())
        else:
            self.abort()


def _size(message: RawRequestMessage) -> int:
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)


class Server(web.Server):
    """A factory of `_Connection`s."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        refuse: Callable[[GatewayError], web.Response],
        sockets: Sockets,
        patience: Patience,
    ) -> None:
        super().__init__(handle, request_factory=Request.of)
        self._refuse = refuse
        self._sockets = sockets
        self._patience = patience

    def __call__(self) -> RequestHandler:
        """Return what serves one connection."""
        return self.after(_nothing)

    def after(self, on_made: Callable[[], None]) -> RequestHandler:
        """Return what serves one connection; whoever made it is told when it is served, and counted as such."""
        return _Connection(self, self._refuse, self._sockets, self._patience, on_made)


def _nothing() -> None:
    pass
