"""The log: one JSON object a line on stdout.

Rules
- Fields come from an allow-list, never from what happens to be at hand. No path, query, header, body or
  exception text is ever logged: each of them may name a patient.
- A failure is logged by the class of its exception and our own code, never by its words: foreign exceptions
  quote URLs, headers and values.
"""

import asyncio
import logging
import sys
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.exchange import Record

Log = structlog.typing.FilteringBoundLogger

_SERVER_ERROR: Final = 500
LEVELS: Final = ("debug", "info", "warning", "error")
FIELDS: Final = frozenset(
    {
        *("event", "level", "timestamp", "operation", "caller", "policy", "method", "status", "code"),
        *("correlation_id", "trace_id", "duration_s", "upstream_s", "upstream_status", "upstream_calls"),
        *("token_wait_s", "request_bytes", "reply_bytes", "is_complete", "error", "reason", "result", "notice"),
        *("listen", "admin_listen", "policies", "callers", "version", "in_flight", "drained", "redis"),
    },
)


def open_log(level: str, stream: BinaryIO | None = None) -> Log:
    """Return a log that writes to stdout, and silence every other logger of the process."""
    # A handler that writes nothing: with none at all, Python prints foreign warnings to stderr by itself.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    log: Log = structlog.wrap_logger(
        structlog.BytesLogger(cast("BinaryIO", _LinesOfATick(stream or sys.stdout.buffer))),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        cache_logger_on_first_use=True,
    )
    return log


def log_record(log: Log, record: Record) -> None:
    """Write the line of one finished request: a warning where the answer is a failure of ours or the upstream's."""
    write = log.warning if record.status >= _SERVER_ERROR or not record.is_complete else log.info
    write(
        "request",
        operation=record.operation,
        caller=record.caller,
        policy=record.policy,
        method=record.method,
        status=record.status,
        code=record.code,
        correlation_id=record.correlation_id,
        trace_id=record.trace_id,
        duration_s=round(record.duration_s, 6),
        upstream_s=round(record.upstream_s, 6) if record.upstream_s is not None else None,
        upstream_status=record.upstream_status,
        upstream_calls=record.upstream_calls,
        token_wait_s=round(record.token_wait_s, 6),
        request_bytes=record.request_bytes,
        reply_bytes=record.reply_bytes,
        is_complete=record.is_complete,
    )


class _LinesOfATick:
    """Writes what is logged within one tick of the event loop at once: a system call a tick, not one a request."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def write(self, line: bytes, /) -> None:
        if not self._lines:
            try:
                asyncio.get_running_loop().call_soon(self._write_out)
            except RuntimeError:  # no loop: before and after serving
                self._stream.write(line)
                self._stream.flush()
                return
        self._lines.append(line)

    def flush(self) -> None:
        """Do nothing: the tick writes."""

    def _write_out(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write(b"".join(lines))
            self._stream.flush()


def _only_allowed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if not FIELDS.issuperset(event):
        return {name: value for name, value in event.items() if name in FIELDS}
    return event


def _dump(event: dict[str, Any], **_options: object) -> bytes:
    return orjson.dumps(event)
