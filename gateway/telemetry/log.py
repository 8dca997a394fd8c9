"""The log: one JSON object a line on stdout.

Rules
- Fields come from an allow-list, never from what happens to be at hand. No path, query, header, body or
  exception text is ever logged: each of them may name a patient.
- A failure is logged by the class of its exception and our own code, never by its words: foreign exceptions
  quote URLs, headers and values.
"""

import asyncio
import logging
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.exchange import Record

_SERVER_ERROR: Final = 500
MAX_WAITING_BYTES: Final = 4_194_304
_RETRY_S: Final = 0.05
LEVELS: Final = ("debug", "info", "warning", "error")
FIELDS: Final = frozenset(
    {
        *("event", "level", "timestamp", "operation", "caller", "policy", "method", "status", "code"),
        *("correlation_id", "trace_id", "duration_s", "upstream_s", "upstream_status", "upstream_calls"),
        *("token_wait_s", "request_bytes", "reply_bytes", "is_complete", "error", "reason", "result", "notice"),
        *("listen", "admin_listen", "policies", "callers", "version", "in_flight", "drained", "redis", "dropped"),
        *("dedup", "dedup_reason", "dedup_age_s"),
    },
)


class Log:
    """Writes what happens, in lines of its level and above."""

    def __init__(self, level: str, stream: BinaryIO) -> None:
        self._lines = _Lines(stream)
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        events: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.BytesLogger(cast("BinaryIO", self._lines)),
            wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
            processors=[_rendered],
        )
        self.debug, self.info, self.warning, self.error = events.debug, events.info, events.warning, events.error

    def request(self, level: str, fields: EventDict) -> None:
        """Write the line of a request: there is one for each, so structlog's detours are left out."""
        if level in self._levels:
            self._lines.write(_line("request", level, fields))


def open_log(level: str, stream: BinaryIO | None = None) -> Log:
    """Return a log that writes to stdout, and silence every other logger of the process."""
    # A handler that writes nothing: with none at all, Python prints foreign warnings to stderr by itself.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    return Log(level, stream or sys.stdout.buffer)


def log_record(log: Log, record: Record) -> None:
    """Write the line of one finished request: a warning where the answer is a failure of ours or the upstream's."""
    dedup = record.dedup
    log.request(
        "warning" if record.status >= _SERVER_ERROR or not record.is_complete else "info",
        {
            "operation": record.operation,
            "caller": record.caller,
            "policy": record.policy,
            "method": record.method,
            "status": record.status,
            "code": record.code,
            "correlation_id": record.correlation_id,
            "trace_id": record.trace_id,
            "duration_s": round(record.duration_s, 6),
            "upstream_s": round(record.upstream_s, 6) if record.upstream_s is not None else None,
            "upstream_status": record.upstream_status,
            "upstream_calls": record.upstream_calls,
            "token_wait_s": round(record.token_wait_s, 6),
            "dedup": dedup.kind if dedup is not None else None,
            "dedup_reason": dedup.reason if dedup is not None else None,
            "dedup_age_s": dedup.age_s if dedup is not None else None,
            "request_bytes": record.request_bytes,
            "reply_bytes": record.reply_bytes,
            "is_complete": record.is_complete,
        },
    )


class _Lines:
    """Writes what is logged within one tick of the event loop at once, and never waits for whoever reads it.

    A pipe that nobody empties would stop the whole process. So no more is written than it takes at once
    (PIPE_BUF at a time, when it is writable), the rest is kept up to `MAX_WAITING_BYTES`, and beyond that lines
    are dropped and counted: the first line that is kept again says how many.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._file = _pipe_of(stream)
        self._waiting = bytearray()
        self._is_scheduled = False
        self._dropped = 0

    def write(self, line: bytes, /) -> None:
        """Write the line with its tick, or at once where no loop runs: before and after serving."""
        if len(self._waiting) + len(line) > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        if self._dropped:
            gap = {"event": "lines dropped", "level": "warning", "dropped": self._dropped}
            self._waiting += orjson.dumps(gap, option=orjson.OPT_APPEND_NEWLINE)
            self._dropped = 0
        self._waiting += line
        if not self._is_scheduled:
            try:
                self._schedule(asyncio.get_running_loop().call_soon)
            except RuntimeError:
                self._write_out()

    def flush(self) -> None:
        """Do nothing: the tick writes."""

    def _schedule(self, call: Callable[[Callable[[], None]], object]) -> None:
        call(self._write_out)
        self._is_scheduled = True

    def _write_out(self) -> None:
        self._is_scheduled = False
        while self._waiting and self._takes_more():
            part = bytes(self._waiting if self._file is None else self._waiting[: select.PIPE_BUF])
            self._stream.write(part)
            self._stream.flush()
            del self._waiting[: len(part)]
        if self._waiting:
            with suppress(RuntimeError):  # no loop any more: what nobody reads at the very end is lost
                self._schedule(partial(asyncio.get_running_loop().call_later, _RETRY_S))

    def _takes_more(self) -> bool:
        return self._file is None or bool(self._file.poll(0))


def _pipe_of(stream: BinaryIO) -> "select.poll | None":
    """Return what tells whether a pipe takes more; a file always does."""
    try:
        number = stream.fileno()
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            return None
    except OSError:
        return None
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return poll


def _rendered(_logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    name = event.pop("event")
    return _line(name, method, {field: value for field, value in event.items() if field in FIELDS})[:-1]


def _line(event: str, level: str, fields: EventDict) -> bytes:
    line = {**fields, "event": event, "level": level, "timestamp": datetime.now(UTC)}
    return orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
