"""Distributed traces by OpenTelemetry, an optional extra.

Facts
- A span is a function of the same frozen record as metrics and the log line: nothing of the SDK lives while a request
  does, which costs a random number, and one more for each upstream call.
- Export is the SDK's own thread, with a queue that is bounded; whoever collects may be down, slow or absent.

Rules
- The upstream is told the span of the call that it serves. Without tracing `traceparent` passes as it came.
- A request that comes with a trace keeps its flag; of those that come without, a share is sampled.
- Attributes are from closed sets, or well-formed ids, as in the log: no path, query, header, body or exception text.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPMethod
from random import Random
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from gateway.exchange import CallRecord, Record, Trace
from gateway.operations import OPERATIONS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_ROUTES: Final = {name.value: (operation.method, operation.path) for name, operation in OPERATIONS.items()}
_SERVER_ERROR: Final = 500
_EXPORT_S: Final = 5.0
_LAST_EXPORT_S: Final = 3.0
_TRACE_BITS: Final = 128
_SPAN_BITS: Final = 64


class TracingUnavailable(Exception):
    """The extra is not installed."""


@dataclass(frozen=True, slots=True)
class NoTraces:
    """What stands in the place of traces: a trace that comes is told on, and nobody is told of spans."""

    def begin(self, inbound: Trace | None) -> Trace | None:
        """Return the trace as it came."""
        return inbound

    def call(self, _: Trace | None) -> Trace | None:
        """Return none: the header passes as it came."""
        return None

    def on_record(self, record: Record) -> None:
        """Tell nobody."""

    def on_call(self, call: CallRecord) -> None:
        """Tell nobody."""

    async def close(self) -> None:
        """Do nothing."""


class Traces:
    """Makes ids, and tells a collector of the spans of finished requests and calls."""

    def __init__(
        self,
        endpoint: str,
        *,
        share: float,
        version: str,
        chance: Random,
        wall_now: Callable[[], float],
    ) -> None:
        """Begin to export to `endpoint`/v1/traces. Raises TracingUnavailable."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise TracingUnavailable from error
        self._share = share
        self._chance = chance
        self._wall_now = wall_now
        self._resource = Resource.create({"service.name": "eligibility-gateway", "service.version": version})
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
        self._processor = BatchSpanProcessor(exporter)

    def begin(self, inbound: Trace | None) -> Trace:
        """Return the span of a request: a child of what came, or the root of a trace of its own."""
        if inbound is not None:
            return replace(inbound, span_id=self._new_id(_SPAN_BITS), parent_id=inbound.span_id)
        is_sampled = self._chance.random() < self._share
        return Trace(self._new_id(_TRACE_BITS), self._new_id(_SPAN_BITS), is_sampled)

    def call(self, request: Trace | None) -> Trace | None:
        """Return the span of an upstream call of a request."""
        if request is None:
            return None
        return replace(request, span_id=self._new_id(_SPAN_BITS), parent_id=request.span_id)

    def on_record(self, record: Record) -> None:
        """Tell of a finished request."""
        if record.trace is None or not record.trace.is_sampled:
            return
        dedup = record.dedup
        attributes = {
            "http.request.method": record.method if record.method in HTTPMethod.__members__ else "_OTHER",
            "http.response.status_code": record.status,
            "eligibility_gateway.decision": dedup.kind.value if dedup is not None else "",
            "eligibility_gateway.recovery": record.recovery,
        }
        is_error = record.status >= _SERVER_ERROR
        error_type = (record.code or str(record.status)) if is_error else ""
        self._tell(record, record.trace, "SERVER", attributes, error_type, is_error=is_error)

    def on_call(self, call: CallRecord) -> None:
        """Tell of a finished upstream call."""
        if call.trace is None or not call.trace.is_sampled:
            return
        method, _ = _ROUTES.get(call.operation, ("_OTHER", ""))
        attributes: dict[str, Any] = {"http.request.method": method, "eligibility_gateway.outcome": call.outcome}
        if call.status is not None:
            attributes["http.response.status_code"] = call.status
        is_error = call.status is None or call.status >= _SERVER_ERROR
        error_type = call.timed_out_by or (str(call.status or "no_answer") if is_error else "")
        self._tell(call, call.trace, "CLIENT", attributes, error_type, is_error=is_error)

    async def close(self) -> None:
        """Export what there is, for as long as that takes, but not for ever."""
        # A daemon: whoever collects may never answer, and must not keep the process from ending.
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()

        def export() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call] # the SDK types most of itself
            with suppress(RuntimeError):  # the loop has ended first
                loop.call_soon_threadsafe(is_over.set)

        threading.Thread(target=export, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EXPORT_S):
                await is_over.wait()

    def _tell(  # noqa: PLR0913 - one fact each
        self,
        record: Record | CallRecord,
        trace: Trace,
        kind: str,
        attributes: dict[str, Any],
        error_type: str,
        *,
        is_error: bool,
    ) -> None:
        method, route = _ROUTES.get(record.operation, (attributes["http.request.method"], ""))
        common = {
            "http.route": route,
            "error.type": error_type,
            "eligibility_gateway.operation": record.operation,
            "eligibility_gateway.caller": record.caller,
            "eligibility_gateway.payer": record.payer,
            "eligibility_gateway.timed_out_by": record.timed_out_by,
            "eligibility_gateway.correlation_id": record.correlation_id,
        }
        stated = {name: value for name, value in (attributes | common).items() if value != ""}
        name = f"{method} {route}" if route else method
        self._processor.on_end(self._span(name, trace, kind, stated, record.duration_s, is_error=is_error))

    def _span(  # noqa: PLR0913 - one fact each
        self,
        name: str,
        trace: Trace,
        kind: str,
        attributes: dict[str, Any],
        duration_s: float,
        *,
        is_error: bool,
    ) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

        def context(span_id: str, *, is_remote: bool) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(trace.trace_id, 16), int(span_id, 16), is_remote, flags)

        ended_at = self._wall_now()
        return ReadableSpan(
            name=name,
            context=context(trace.span_id, is_remote=False),
            parent=context(trace.parent_id, is_remote=kind == "SERVER") if trace.parent_id else None,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind[kind],
            status=Status(StatusCode.ERROR if is_error else StatusCode.UNSET),
            start_time=int((ended_at - duration_s) * 1e9),
            end_time=int(ended_at * 1e9),
        )

    def _new_id(self, bits: int) -> str:
        return f"{self._chance.getrandbits(bits) or 1:0{bits // 4}x}"
