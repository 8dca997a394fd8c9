"""Send a request upstream, once, and read the answer.

Facts (aiohttp 3.14)
- GET, PUT and DELETE are silently sent again on a connection that had been kept alive and was just closed;
  POST never is. So a paid request is sent once, whatever happens, unless no connection could be opened.
- yarl rewrites what it parses: "%7E" becomes "~", a lone "?" vanishes. A URL that is built with the whole
  target as its encoded path is parsed by nobody, and leaves byte for byte.
- A cookie jar, redirects and proxies from the environment would each carry one caller's state to another.

Rules
- The connection pool has no limit of its own: what runs out are sockets, those of callers as well.
- A connection is not used again after 8 s of idling, so that the upstream is not found to have closed it.
- An answer is read whole up to 256 KiB, then passed on as it arrives.
- Each call has one record, when it has ended: also a call whose caller has long been answered or has left.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from gateway.errors import (
    Overloaded,
    UpstreamBroken,
    UpstreamConnectTimeout,
    UpstreamNotTrusted,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.exchange import TRACE_ID, UNKNOWN, CallRecord, Exchange, Outbound, Reply, Trace
from gateway.headers.correlation import well_formed
from gateway.http.sockets import Sockets
from gateway.in_flight import InFlight
from gateway.policy.model import Timeout
from gateway.problem import GatewayError
from gateway.telemetry import timeouts

TRACEPARENT: Final = "traceparent"
BUFFER_BYTES: Final = 262_144
_KEEP_ALIVE_S: Final = 8.0
_DNS_CACHE_S: Final = 30
_CONNECT_ATTEMPTS: Final = 2
_NEVER_ROUND_S: Final = 86_400.0  # aiohttp rounds long timeouts up to whole seconds; ours are exact
_AUTOMATIC_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def open_session(sockets: Sockets, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return a session that adds nothing, remembers nothing, follows nothing, and believes whom `tls` believes."""
    return aiohttp.ClientSession(
        connector=_Connector(
            sockets,
            ssl=tls,
            limit=0,
            keepalive_timeout=_KEEP_ALIVE_S,
            ttl_dns_cache=_DNS_CACHE_S,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        raise_for_status=False,
    )


class _Connection(ResponseHandler):
    """A connection that is closed when it speaks without having been asked.

    Danger: aiohttp keeps what arrives on an idle connection and takes it for the answer to the next request, which
    is another caller's. A late second answer or an idle 408 would go to somebody whom it does not concern.
    """

    def __init__(self, sockets: Sockets, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._sockets = sockets
        self.is_idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sockets.upstream += 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._sockets.upstream -= 1
        super().connection_lost(exc)

    def set_response_params(self, **params: Any) -> None:  # noqa: ANN401 - whatever aiohttp passes
        self.is_idle = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if not self.is_idle or not data:  # aiohttp itself calls with nothing, to go on with what it has
            super().data_received(data)
        elif self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """A connector of `_Connection`s."""

    def __init__(self, sockets: Sockets, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        super().__init__(**options)
        connection: Callable[..., ResponseHandler] = _Connection
        self._factory = partial(connection, sockets, loop=asyncio.get_running_loop())

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:  # noqa: ANN401
        if isinstance(protocol, _Connection):
            protocol.is_idle = True
        super()._release(key, protocol, should_close=should_close)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallObservers:
    """Where instants come from, and who is told how a call ended."""

    now: Callable[[], float]
    on_call: Callable[[CallRecord], None]
    begin_trace: Callable[[Trace | None], Trace | None] = lambda _: None
    on_distrust: Callable[[BaseException], None] = lambda _: None


@dataclass(slots=True)
class _Seen:
    """What was seen of an answer."""

    status: int | None = None
    trace_id: str = ""
    body: bytes = b""
    code: str = ""
    trace: Trace | None = None


class Upstream:
    """The last station inward: behind it is the Enhanced Eligibility API."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        sockets: Sockets,
        in_flight: InFlight,
        observers: CallObservers,
    ) -> None:
        self._session = session
        self._sockets = sockets
        self._base = URL(base_url)
        self._prefix = self._base.raw_path.rstrip("/")
        self._in_flight = in_flight
        self._now = observers.now
        self._on_call = observers.on_call
        self._begin_trace = observers.begin_trace
        self._on_distrust = observers.on_distrust
        self._limits_of: dict[tuple[float, float], aiohttp.ClientTimeout] = {}

    async def __call__(self, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Send, and return the upstream's answer, whatever its status.

        Raises the `Upstream…` errors, and Overloaded where there is no socket left.
        """
        if not self._sockets.has_call_left:
            self._sockets.make_room()
        if not self._sockets.has_call_left:
            raise Overloaded(retry_after_s=1)
        url = URL.build(
            scheme=self._base.scheme,
            authority=self._base.raw_authority,
            path=self._prefix + outbound.raw_target,
            encoded=True,
        )
        limits = self._limits(exchange.governing.timeout)
        began_at = self._now()
        exchange.waits(began_at)
        exchange.upstream_calls += 1
        exchange.timed_out_by = ""
        self._sockets.calls += 1
        seen = _Seen(trace=self._begin_trace(exchange.trace))
        if seen.trace is not None:
            outbound.headers[TRACEPARENT] = seen.trace.header
        try:
            response = await self._request(outbound, url, limits)
            exchange.upstream_status = seen.status = response.status
            seen.trace_id = well_formed(response.headers.get(TRACE_ID, ""))
            if response.status < HTTPStatus.OK:  # 101, which nobody asked for, or no status at all
                response.close()
                raise UpstreamBroken
            try:
                body, is_whole = await _read_first(response)
                seen.body = body
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = _as_error(error)
            self._on_distrust(error)
            seen.status, seen.code = None, problem.code
            raise problem from error
        finally:
            self._sockets.calls -= 1
            self._ended(exchange, seen, began_at)
        return Reply(
            status=response.status,
            reason=reason if (reason := response.reason or "").isascii() and reason.isprintable() else "",
            headers=CIMultiDict(response.headers),
            raw_headers=response.raw_headers,
            body=body,
            rest=None if is_whole else _rest(response),
        )

    def _ended(self, exchange: Exchange, seen: _Seen, began_at: float) -> None:
        now = self._now()
        exchange.resumes(now)
        elapsed_s = exchange.upstream_s = now - began_at
        outcome = timeouts.outcome_of(seen.status, seen.body)
        if not seen.trace_id and seen.status is not None and seen.status >= HTTPStatus.BAD_REQUEST:
            seen.trace_id = timeouts.trace_id_of(seen.body)
        exchange.upstream_trace_id = seen.trace_id
        marks = exchange.governing.timeout
        timed_out_by = (
            timeouts.after_answer(seen.status, seen.body, outcome, elapsed_s, marks)
            if seen.status is not None
            else timeouts.after_error(seen.code, elapsed_s, marks)
        )
        exchange.timed_out_by = timed_out_by or ""
        self._on_call(
            CallRecord(
                operation=exchange.operation_name,
                caller=exchange.caller.name if exchange.caller is not None else UNKNOWN,
                payer=exchange.payer,
                status=seen.status,
                outcome=outcome,
                timed_out_by=exchange.timed_out_by,
                correlation_id=exchange.correlation_id,
                trace_id=seen.trace_id,
                duration_s=elapsed_s,
                is_awaited=exchange in self._in_flight.waiting,
                trace=seen.trace or exchange.trace,
            )
        )

    def _limits(self, timeout: Timeout) -> aiohttp.ClientTimeout:
        limits = self._limits_of.get((timeout.connect, timeout.answer))
        if limits is None:
            limits = self._limits_of[timeout.connect, timeout.answer] = aiohttp.ClientTimeout(
                total=timeout.answer,
                sock_connect=timeout.connect,
                ceil_threshold=_NEVER_ROUND_S,
            )
        return limits

    async def _request(self, outbound: Outbound, url: URL, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        missing = [name for name in _AUTOMATIC_HEADERS if name not in outbound.headers]
        for attempt in range(1, _CONNECT_ATTEMPTS + 1):
            try:
                return await self._session.request(
                    outbound.method,
                    url,
                    headers=outbound.headers,
                    skip_auto_headers=missing or None,
                    data=outbound.body or None,
                    allow_redirects=False,
                    timeout=limits,
                )
            except aiohttp.ClientSSLError:
                raise
            except aiohttp.ClientConnectorError:
                # No connection, so no byte has left: the one failure after which anything may be sent again.
                if attempt == _CONNECT_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


async def _read_first(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Return the body, or its first part, and whether that was all."""
    length = response.content_length
    if length is not None and length <= BUFFER_BYTES:
        return await response.read(), True
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BUFFER_BYTES:
            return bytes(body), False
    return bytes(body), True


async def _rest(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Pass on what is still arriving. Raises UpstreamBroken or UpstreamTimeout where it is cut off."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _as_error(error) from error
    finally:
        response.close()


def _as_error(error: BaseException) -> GatewayError:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UpstreamConnectTimeout()
        case aiohttp.ClientSSLError():
            return UpstreamNotTrusted()
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable()
        case TimeoutError():  # aiohttp's own timeouts are TimeoutErrors as well
            return UpstreamTimeout()
        case _:
            return UpstreamBroken()
