"""The log: one JSON object a line on stdout.

Rules
- Fields come from an allow-list, never from what happens to be at hand. No path, query, header, body or
  exception text is ever logged: each of them may name a patient.
- No more lines of requests are written in a second than were agreed on, of good ones and of failures apart: an
  outage must not drown a disk, nor its few failures go under in a flood of good ones. What is left out is counted.
- A failure is logged by the class of its exception and our own code, never by its words: foreign exceptions
  quote URLs, headers and values.
"""

import asyncio
import logging
import math
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.exchange import CallRecord, Record, Recovery, RecoveryRecord
from gateway.operations import QUESTIONS

_SERVER_ERROR: Final = 500
_REFUSED: Final = 400
MAX_WAITING_BYTES: Final = 4_194_304
_RETRY_S: Final = 0.05
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
LEVELS: Final = ("debug", "info", "warning", "error")
FIELDS: Final = frozenset(
    {
        *("event", "level", "timestamp", "operation", "caller", "identified_by", "policy", "method", "status", "code"),
        *("correlation_id", "trace_id", "duration_s", "upstream_s", "upstream_status", "upstream_calls"),
        *("token_wait_s", "request_bytes", "reply_bytes", "is_complete", "error", "reason", "result", "notice"),
        *("listen", "admin_listen", "policies", "callers", "version", "in_flight", "drained", "redis", "dropped"),
        "issuer",
        *("dedup", "dedup_reason", "dedup_age_s", "follow_s", "own_s", "budget_s", "budget_used", "payer", "left_s"),
        *("timed_out_by", "recovery", "outcome", "trace", "skipped", "digest", "flights", "answers"),
        *("audit_last", "lost"),
        *("side", "tls"),
    },
)


class Log:
    """Writes what happens, in lines of its level and above."""

    def __init__(self, level: str, stream: BinaryIO, requests_per_s: float, now: Callable[[], float]) -> None:
        self._lines = _Lines(stream, self._left_out)
        self._allowances = {level: _Allowance(requests_per_s, now) for level in LEVELS}
        self._on_skipped: Callable[[int], None] | None = None
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        events: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.BytesLogger(cast("BinaryIO", self._lines)),
            wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
            processors=[_rendered],
        )
        self.debug, self.info, self.warning, self.error = events.debug, events.info, events.warning, events.error

    def takes(self, level: str) -> bool:
        """Whether there is room for a line of a request; ask before it is made, for half of its price is its making."""
        if level not in self._levels:
            return False
        if self._allowances[level].take():
            return True
        self._left_out(1)
        return False

    def record(self, level: str, fields: EventDict) -> None:
        """Write the line of a request or a call: there is one for each, so structlog's detours are left out."""
        allowance = self._allowances[level]
        if allowance.skipped:
            fields["skipped"], allowance.skipped = allowance.skipped, 0
        self._lines.write(orjson.dumps(fields, option=_OPTIONS))

    def on_skipped(self, tell: Callable[[int], None]) -> None:
        """Have it told how many lines are not written."""
        self._on_skipped = tell

    def _left_out(self, count: int) -> None:
        if self._on_skipped is not None:
            self._on_skipped(count)


class _Allowance:
    """So many lines in a second, and as many at once; `skipped` were left out since the last one."""

    def __init__(self, per_s: float, now: Callable[[], float]) -> None:
        self._per_s = per_s
        self._now = now
        self._left = per_s
        self._at = now()
        self.skipped = 0

    def take(self) -> bool:
        """Return whether there is room for one more."""
        if self._per_s == math.inf:
            return True
        now = self._now()
        self._left = min(self._left + (now - self._at) * self._per_s, self._per_s)
        self._at = now
        if self._left < 1:
            self.skipped += 1
            return False
        self._left -= 1
        return True


def open_log(
    level: str,
    stream: BinaryIO | None = None,
    *,
    requests_per_s: float = math.inf,
    now: Callable[[], float] = time.monotonic,
) -> Log:
    """Return a log that writes to stdout, and silence every other logger of the process."""
    # A handler that writes nothing: with none at all, Python prints foreign warnings to stderr by itself.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    return Log(level, stream or sys.stdout.buffer, requests_per_s, now)


def log_record(log: Log, record: Record) -> None:
    """Write the line of one finished request: a warning where the answer is a failure of ours or the upstream's."""
    level = "warning" if record.status >= _SERVER_ERROR or not record.is_complete else "info"
    if not log.takes(level):
        return
    dedup = record.dedup
    log.record(
        level,
        {
            "event": "request",
            "level": level,
            "timestamp": datetime.now(UTC),
            "operation": record.operation,
            "caller": record.caller,
            "identified_by": record.identified_by,
            "policy": record.policy,
            "method": record.method,
            "status": record.status,
            "code": record.code,
            "correlation_id": record.correlation_id,
            "trace_id": record.trace_id,
            "duration_s": _rounded(record.duration_s),
            "upstream_s": _rounded(record.upstream_s) if record.upstream_s is not None else None,
            "upstream_status": record.upstream_status,
            "upstream_calls": record.upstream_calls,
            "token_wait_s": record.token_wait_s and _rounded(record.token_wait_s),
            "follow_s": _rounded(record.follow_s) if record.follow_s is not None else None,
            "own_s": _rounded(record.own_s),
            "budget_s": record.budget_s,
            "budget_used": _rounded(record.duration_s / record.budget_s) if record.budget_s else None,
            "payer": record.payer,
            "timed_out_by": record.timed_out_by,
            "recovery": record.recovery,
            "left_s": _rounded(record.left_s) if record.left_s is not None else None,
            "dedup": dedup.kind if dedup is not None else None,
            "dedup_reason": dedup.reason if dedup is not None else None,
            "dedup_age_s": _rounded(dedup.age_s) if dedup is not None and dedup.age_s is not None else None,
            "request_bytes": record.request_bytes,
            "reply_bytes": record.reply_bytes,
            "is_complete": record.is_complete,
            "trace": record.trace.trace_id if record.trace is not None else None,
        },
    )


def log_recovery(log: Log, record: RecoveryRecord) -> None:
    """Write the line of a cut submission that was looked for, whether or not anybody still waits for it."""
    level = "info" if record.recovery is Recovery.RECOVERED else "warning"
    if not log.takes(level):
        return
    log.record(
        level,
        {
            "event": "recovery",
            "level": level,
            "timestamp": datetime.now(UTC),
            "operation": record.operation,
            "caller": record.caller,
            "payer": record.payer,
            "recovery": record.recovery,
            "timed_out_by": record.timed_out_by,
            "correlation_id": record.correlation_id,
            "trace_id": record.trace_id,
            "duration_s": _rounded(record.duration_s),
            "trace": record.trace.trace_id if record.trace is not None else None,
        },
    )


def _rounded(seconds: float) -> float:
    """Cut to microseconds: a third of the price of `round`, and a line has five of them."""
    return int(seconds * 1e6) / 1e6


def log_call(log: Log, call: CallRecord) -> None:
    """Write the line of an upstream call whose request has its line already, and could not say how it ended."""
    is_good = call.status is not None and call.status < _REFUSED and not call.timed_out_by
    is_lookup = call.operation not in QUESTIONS  # of a recovery, which has a line of its own
    level = "info" if is_good else "warning"
    if call.is_awaited or (is_lookup and is_good) or not log.takes(level):
        return
    log.record(
        level,
        {
            "event": "call",
            "level": level,
            "timestamp": datetime.now(UTC),
            "operation": call.operation,
            "caller": call.caller,
            "payer": call.payer,
            "upstream_status": call.status,
            "outcome": call.outcome,
            "timed_out_by": call.timed_out_by,
            "correlation_id": call.correlation_id,
            "trace_id": call.trace_id,
            "upstream_s": _rounded(call.duration_s),
            "trace": call.trace.trace_id if call.trace is not None else None,
        },
    )


class _Lines:
    """Writes what is logged within one tick of the event loop at once, and never waits for whoever reads it.

    A pipe that nobody empties would stop the whole process. So no more is written than it takes at once
    (PIPE_BUF at a time, when it is writable), the rest is kept up to `MAX_WAITING_BYTES`, and beyond that lines
    are dropped and counted: the first line that is kept again says how many.
    """

    def __init__(self, stream: BinaryIO, on_dropped: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_dropped = on_dropped
        self._file = _pipe_of(stream)
        self._waiting = bytearray()
        self._is_scheduled = False
        self._dropped = 0

    def write(self, line: bytes, /) -> None:
        """Write the line with its tick, or at once where no loop runs: before and after serving."""
        if len(self._waiting) + len(line) > MAX_WAITING_BYTES:
            self._dropped += 1
            self._on_dropped(1)
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
            part = bytes(self._waiting if self._file is None else self._whole_lines())
            self._stream.write(part)
            self._stream.flush()
            del self._waiting[: len(part)]
        if self._waiting:
            with suppress(RuntimeError):  # no loop any more: what nobody reads at the very end is lost
                self._schedule(partial(asyncio.get_running_loop().call_later, _RETRY_S))

    def _whole_lines(self) -> bytearray:
        """As many lines as a pipe takes at once: the audit trail's may come in between."""
        end = self._waiting.rfind(b"\n", 0, select.PIPE_BUF) + 1
        return self._waiting[: end or select.PIPE_BUF]

    def _takes_more(self) -> bool:
        return self._file is None or bool(self._file.poll(0))


def _pipe_of(stream: BinaryIO) -> "select.poll | None":
    """Return what tells whether a pipe or a socket takes more; a file always does."""
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):  # systemd gives a socket
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
    return orjson.dumps(line, option=_OPTIONS)
