"""The traffic port: from bytes to an Inbound, from a Reply to bytes, and one record for each request.

Facts (aiohttp 3.14)
- The low-level `web.Server` costs a quarter less than `web.Application`, and does not answer `Expect`.
- A caller who leaves does not cancel the handler (`handler_cancellation` is off), and must not: the answer
  is paid for.

Rules
- Whatever happens, the caller gets one reply with its correlation id, and telemetry gets one record.
- A request that is refused before its body was read closes the connection: nobody may find a second request
  in the body of the first.
- While sockets are scarce every reply closes its connection: idle ones shall not keep a call from being made.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPMethod
from typing import Final, Protocol

from aiohttp import web
from aiohttp.http import HttpVersion11
from msgspec.structs import replace
from multidict import CIMultiDict

from gateway.callers.grant import MAX_BYTES as TOKEN_BYTES
from gateway.errors import (
    AmbiguousRequest,
    BodyTooLarge,
    BodyTooSlow,
    BodyTorn,
    ExpectationUnknown,
    Internal,
    Overloaded,
    Stopped,
)
from gateway.exchange import CORRELATION_ID, TRACE_ID, UNKNOWN, DecisionKind, Exchange, Inbound, Record, Reply, Trace
from gateway.headers.correlation import choose_correlation_id, well_formed
from gateway.headers.traceparent import trace_of
from gateway.http.replies import AT_ONCE_BYTES, in_parts, in_time, problem_reply, response_of
from gateway.http.server import Patience, Request, Server
from gateway.http.sockets import Sockets
from gateway.http.strict import is_unambiguous
from gateway.in_flight import InFlight
from gateway.problem import GatewayError
from gateway.telemetry import timeouts

_KNOWN_METHODS: Final = frozenset(HTTPMethod)
_CLOSE: Final = frozenset({AmbiguousRequest.code, BodyTooLarge.code, BodyTooSlow.code, BodyTorn.code})
_AIOHTTP_DEFAULTS: Final = ("Server", "Content-Type")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process takes upon itself."""

    body_bytes: int
    body_s: float
    head_s: float
    idle_s: float
    stall_s: float = 30.0  # a caller that takes nothing for so long gives its place to others


@dataclass(frozen=True, slots=True, kw_only=True)
class Observers:
    """Where instants and fresh ids come from, and who is told how a request ended."""

    now: Callable[[], float]
    new_id: Callable[[], str]
    on_record: Callable[[Record], None]
    on_defect: Callable[[BaseException], None]
    begin_trace: Callable[[Trace | None], Trace | None] = lambda inbound: inbound
    tag_of: Callable[[Exchange], str] = lambda _: ""


@dataclass(slots=True)
class _Sent:
    """How a reply left; `had_left`: the caller had, before there was one."""

    code: str = ""
    body_bytes: int = 0
    is_complete: bool = False
    had_left: bool = False


class Pipeline(Protocol):
    """What answers requests: `admit` decides by the head alone, `answer` has the body as well."""

    async def admit(self, exchange: Exchange, /) -> None:
        """Raise GatewayError for whoever may not ask."""

    async def answer(self, exchange: Exchange, /) -> Reply:
        """Return the reply. Raises GatewayError."""
        ...


class Ingress:
    """Serves the traffic port."""

    def __init__(
        self,
        pipeline: Pipeline,
        limits: Limits,
        sockets: Sockets,
        in_flight: InFlight,
        observers: Observers,
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._sockets = sockets
        self._observers = observers
        self._in_flight = in_flight
        self._waiting = in_flight.waiting
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._is_stopping = False
        self.stopped = 0  # who was told that there will be no answer here
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        """Requests being worked on."""
        return len(self._waiting)

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._is_draining

    def drain(self) -> None:
        """From now on every reply asks its connection to close."""
        self._is_draining = True

    def stop(self) -> None:
        """Tell whoever still waits that there will be no answer here."""
        self._is_stopping = True
        for task in self._tasks.values():
            task.cancel()

    async def idle(self) -> None:
        """Return when no request is being worked on."""
        await self._idle.wait()

    def server(self) -> Server:
        """Return the protocol factory to listen with."""
        limits = self._limits
        patience = Patience(
            head_s=limits.head_s, idle_s=limits.idle_s, stall_s=limits.stall_s, body_bytes=limits.body_bytes
        )
        return Server(self._handle, self._refuse, self._sockets, patience)

    async def _handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        inbound = Inbound(
            method=raw.method,
            raw_target=raw.raw_path,
            headers=raw.headers,
            raw_headers=raw.raw_headers,
            body=b"",
            certificate_names=raw.certificate_names if isinstance(raw, Request) else (),
            certificate_ends_at=raw.certificate_ends_at if isinstance(raw, Request) else math.inf,
        )
        exchange = Exchange(
            inbound=inbound,
            correlation_id=choose_correlation_id(
                raw.headers.getall(CORRELATION_ID, ()),
                self._observers.new_id,
            ),
            started_at=self._observers.now(),
            trace=self._observers.begin_trace(trace_of(raw.headers.getall("traceparent", ()))),
        )
        self._waiting.add(exchange)
        self._tasks[exchange] = raw.task
        self._idle.clear()
        if isinstance(raw, Request):
            raw.on_left = partial(self._left, exchange)
        reply: Reply | None = None
        sent = _Sent(code=Stopped.code)
        is_last = True
        try:
            reply, sent.code = await self._reply(raw, exchange)
            sent.had_left = exchange.left_at is not None
            response = await self._send(raw, exchange, reply, sent)
            is_last = not response.keep_alive
            return response
        finally:
            replied = reply or problem_reply(Stopped(), exchange.correlation_id)
            self._observers.on_record(self._record(exchange, replied, sent))
            if isinstance(raw, Request):
                raw.is_over(is_last=is_last)
            self._in_flight.answered(exchange)
            del self._tasks[exchange]
            if not self._waiting:
                self._idle.set()

    def _left(self, exchange: Exchange) -> None:
        exchange.left_at = self._observers.now()
        self._in_flight.on_left(exchange)

    async def _reply(self, raw: web.BaseRequest, exchange: Exchange) -> tuple[Reply, str]:
        """Return the reply, and the code of the problem if it is one."""
        try:
            self._check(raw)
            # Before the body: whoever may not ask is told so without being read.
            await self._pipeline.admit(exchange)
            exchange.waits(self._observers.now())
            body = await self._read_body(raw, TOKEN_BYTES if exchange.asks_for_token else self._limits.body_bytes)
            exchange.resumes(self._observers.now())
            exchange.inbound = replace(exchange.inbound, body=body)
            return await self._pipeline.answer(exchange), ""
        except GatewayError as error:
            self.stopped += isinstance(error, Stopped)
            if isinstance(raw, Request) and isinstance(error, BodyTooSlow | BodyTorn):
                raw.leaves()
            return problem_reply(error, exchange.correlation_id), error.code
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            raw.task.uncancel()
            self.stopped += 1
            return problem_reply(Stopped(), exchange.correlation_id), Stopped.code
        except Exception as defect:  # noqa: BLE001 - the caller is owed a reply, whatever we did wrong
            self._observers.on_defect(defect)
            return problem_reply(Internal(), exchange.correlation_id), Internal.code

    def _check(self, raw: web.BaseRequest) -> None:
        if not is_unambiguous(raw.method, raw.raw_path, raw.version, raw.headers):
            raise AmbiguousRequest
        if self._sockets.is_full:
            raise Overloaded(retry_after_s=1)
        if raw.content_length is not None and raw.content_length > self._limits.body_bytes:
            raise BodyTooLarge

    async def _read_body(self, raw: web.BaseRequest, most_bytes: int) -> bytes:
        try:
            if "Expect" in raw.headers:
                await _continue(raw)
            if raw.content.is_eof():
                body = raw.content.read_nowait()
                if len(body) > most_bytes:
                    raise BodyTooLarge
                return body
            async with asyncio.timeout(self._limits.body_s):
                parts = bytearray()
                async for part in raw.content.iter_any():
                    parts += part
                    if len(parts) > most_bytes:
                        raise BodyTooLarge
                return bytes(parts)
        except TimeoutError:
            raise BodyTooSlow from None
        except (web.RequestPayloadError, OSError):
            raise BodyTorn from None

    async def _send(
        self,
        raw: web.BaseRequest,
        exchange: Exchange,
        reply: Reply,
        sent: _Sent,
    ) -> web.StreamResponse:
        if isinstance(raw, Request):
            raw.unwanted = tuple(name for name in _AIOHTTP_DEFAULTS if name not in reply.headers)
        rest: AsyncIterator[bytes] | None = reply.rest
        if rest is None and len(reply.body) > AT_ONCE_BYTES and raw.method != "HEAD":
            rest = in_parts(reply.body)  # written at once, it would wait for ever for a caller that takes nothing
        response = response_of(reply, is_whole=rest is None)
        is_ended_by_closing = reply.rest is not None and raw.version != HttpVersion11
        if is_ended_by_closing or self._closes(raw, sent):
            response.force_close()
        try:
            await response.prepare(raw)
            if rest is None:
                sent.body_bytes = len(reply.body)
            else:
                exchange.waits(self._observers.now())  # for whoever is slower: the upstream, or the caller
                await self._stream(response, reply.body if reply.rest is not None else b"", rest, sent)
            await in_time(response.write_eof(), self._limits.stall_s)
            sent.is_complete = True
        except ConnectionError:
            pass  # the caller has left, and the record says so
        except (GatewayError, ValueError) as error:
            # Nothing can be said any more: the only honest thing is that the caller sees a torn reply.
            sent.code = error.code if isinstance(error, GatewayError) else Internal.code
            if raw.transport is not None:
                raw.transport.abort()
        finally:
            await reply.discard()
        return response

    def _closes(self, raw: web.BaseRequest, sent: _Sent) -> bool:
        """Whether nothing more may come on this connection."""
        return (
            self._is_draining
            or not self._sockets.has_call_left
            or not raw.content.is_eof()
            or sent.code in _CLOSE
            or (isinstance(raw, Request) and raw.ends)
        )

    async def _stream(
        self,
        response: web.StreamResponse,
        first: bytes,
        rest: AsyncIterator[bytes],
        sent: _Sent,
    ) -> None:
        await self._write(response, first, sent)
        async for part in rest:
            await self._write(response, part, sent)

    async def _write(self, response: web.StreamResponse, part: bytes, sent: _Sent) -> None:
        await in_time(response.write(part), self._limits.stall_s)
        sent.body_bytes += len(part)

    def _record(self, exchange: Exchange, reply: Reply, sent: _Sent) -> Record:
        now = self._observers.now()
        exchange.resumes(now)
        dedup, duration_s = exchange.dedup, now - exchange.started_at
        return Record(
            operation=exchange.operation_name,
            caller=exchange.caller.name if exchange.caller is not None else UNKNOWN,
            identified_by=exchange.identified_by,
            policy=exchange.policy.name if exchange.policy is not None else "",
            method=exchange.inbound.method if exchange.inbound.method in _KNOWN_METHODS else UNKNOWN,
            status=reply.status,
            code=sent.code,
            correlation_id=exchange.correlation_id,
            trace_id=well_formed(reply.headers.get(TRACE_ID, "")) or exchange.upstream_trace_id,
            duration_s=duration_s,
            upstream_s=exchange.upstream_s,
            upstream_status=exchange.upstream_status,
            upstream_calls=exchange.upstream_calls,
            token_wait_s=exchange.token_wait_s,
            follow_s=exchange.follow_s if dedup is not None and dedup.kind is DecisionKind.FOLLOW else None,
            own_s=max(duration_s - exchange.waited_s, 0.0),
            budget_s=exchange.budget_s,
            payer=exchange.payer,
            timed_out_by=timeouts.of_request(
                sent.code, reply.status, reply.body, had_left=sent.had_left, by_call=exchange.timed_out_by
            ),
            recovery=exchange.recovery,
            left_s=exchange.left_at - exchange.started_at if exchange.left_at is not None else None,
            dedup=dedup,
            request_bytes=len(exchange.inbound.body),
            reply_bytes=sent.body_bytes,
            is_complete=sent.is_complete,
            trace=exchange.trace,
            subtenant=exchange.subtenant or "",
            tag=exchange.tag or self._observers.tag_of(exchange),
            must_be_audited=exchange.must_be_audited,
        )

    def _refuse(self, error: GatewayError) -> web.Response:
        """Answer where there is no request to speak of: fixed words, and nothing of what came."""
        inbound = Inbound(method=UNKNOWN, raw_target="", headers=CIMultiDict(), raw_headers=(), body=b"")
        exchange = Exchange(
            inbound=inbound,
            correlation_id=self._observers.new_id(),
            started_at=self._observers.now(),
        )
        reply = problem_reply(error, exchange.correlation_id)
        sent = _Sent(code=error.code, body_bytes=len(reply.body), is_complete=True)
        self._observers.on_record(self._record(exchange, reply, sent))
        response = web.Response(status=reply.status, reason=reply.reason, headers=reply.headers, body=reply.body)
        response.force_close()
        return response


async def _continue(raw: web.BaseRequest) -> None:
    if raw.headers["Expect"].strip().lower() != "100-continue":
        raise ExpectationUnknown
    if raw.version == HttpVersion11 and not raw.content.is_eof():
        await raw.writer.write(_CONTINUE)
        raw.writer.output_size = 0  # or aiohttp believes that a reply has begun
