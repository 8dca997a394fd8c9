"""The trail of one process: a queue, and a thread that writes it.

Rules
- Nobody who is served waits for it: a full disk, a frozen pipe or a dead file system holds up that thread alone.
- What cannot be written is kept, up to `BOUND` entries. Beyond that it is lost, counted, and told by an entry where it
  would have stood. The entry of a request that must be audited is kept beyond that as well: no more of them are let in
  meanwhile, so they are at most as many as are in flight.
- Entries are linked when they are written, in the order in which they came.
"""

import asyncio
import errno
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from gateway.audit.chain import CONTINUED, LOST, NO_TIP, START, STOP, Tip, linked
from gateway.audit.entries import of_event
from gateway.audit.target import NoTrail, Tail, Target
from gateway.sealing import Mac

BOUND: Final = 20_000  # some 14 MB, and half a minute of 700 requests a second
_TOO_MANY: Final = BOUND // 2
_BATCH_S: Final = 0.02  # each waking of the thread takes the GIL from the loop: once for all of so long
_IDLE_S: Final = 1.0
_RETRY_S: Final = 0.25
_STALL_S: Final = 5.0
_LAST_S: Final = 3.0
_FULL: Final = "full"
_ENDED: Final = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes: what a heading says."""

    replica: str
    version: str
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where instants come from, and who is told; all but `on_lost` are called in the thread that writes."""

    now: Callable[[], float]
    wall_now: Callable[[], datetime]
    on_written: Callable[[int], None]
    on_lost: Callable[[str, int], None]
    on_trouble: Callable[[str], object]
    on_again: Callable[[], object]


class End(NamedTuple):
    """How a trail ended: its last entry, and how many could not be written any more."""

    tip: Tip
    lost: int


class Trail:
    """Takes entries, in the loop's thread."""

    def __init__(self, target: Target, mac: Mac, origin: Origin, sources: Sources, bound: int = BOUND) -> None:
        self._target = target
        self._mac = mac
        self._origin = origin
        self._sources = sources
        self._bound = bound
        self._waiting: deque[bytes] = deque()
        self._unsaid = 0
        self._tip = NO_TIP
        self._part = 0  # of the first one that waits, so many bytes are written
        self._heading = ""  # the first one that waits is one of this kind
        self._is_failing = False
        self._is_kept = True  # what was written would outlive the machine
        self._progress_at = sources.now()
        self._wake = threading.Event()
        self._pause = threading.Event()
        self._is_ending = False
        self._gives_up = False
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)

    def open(self) -> None:
        """Begin. Raises OSError where nothing can be written there."""
        tail = self._target.open()
        self._tip = tail.tip
        self._begin(START, tail)
        self._thread.start()
        self._wake.set()

    @property
    def tip(self) -> Tip:
        """The last entry that was written."""
        return self._tip

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return len(self._waiting)

    @property
    def is_available(self) -> bool:
        """Whether it is written as it should be: nothing fails, nothing stands still, and there is room."""
        waiting = len(self._waiting)
        is_stalled = waiting > 0 and self._sources.now() - self._progress_at > _STALL_S
        return not self._is_failing and waiting < min(_TOO_MANY, self._bound) and not is_stalled

    def say(self, entry: bytes, *, must_be_kept: bool = False) -> None:
        """Add an entry, unless there is no room."""
        if self._is_ending:
            self._sources.on_lost(_ENDED, 1)
            return
        if len(self._waiting) >= self._bound and not must_be_kept:
            self._unsaid += 1
            self._sources.on_lost(_FULL, 1)
            return
        if self._unsaid:
            self._waiting.append(of_event(LOST, self._sources.wall_now(), lost=self._unsaid, reason=_FULL))
            self._unsaid = 0
        if not self._waiting:
            self._progress_at = self._sources.now()
        self._waiting.append(entry)
        if not self._wake.is_set():
            self._wake.set()

    def look(self) -> None:
        """Have it looked at now whether the file was moved away."""
        self._wake.set()

    async def close(self) -> End:
        """Write what waits, and a last word; what cannot be written within a few seconds is lost."""
        self.say(of_event(STOP, self._sources.wall_now()), must_be_kept=True)
        self._is_ending = True
        self._wake.set()
        self._pause.set()
        await asyncio.to_thread(self._thread.join, _LAST_S)
        self._gives_up = True
        lost = len(self._waiting)
        if lost:
            self._sources.on_lost(_ENDED, lost)
        if not self._thread.is_alive():
            if self._part:
                self._target.take_back(self._part)
            self._target.close()
        return End(self._tip, lost)

    # --- in the thread that writes -----------------------------------------------------------------------------

    def _work(self) -> None:
        while not (self._is_ending and not self._waiting) and not self._gives_up:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            try:
                self._renew()
                self._empty()
            except Exception as error:  # noqa: BLE001 - whatever stands there must not end the thread, and the trail with it
                self._failed(error)
                self._wake.set()
                threading.Event().wait(_RETRY_S) if self._is_ending else self._pause.wait(_RETRY_S)
            else:
                self._succeeded()
                self._pause.wait(_BATCH_S)

    def _renew(self) -> None:
        if not self._target.is_moved:
            return
        former = self._target
        rest = 0 if not self._part or former.take_back(self._part) else self._part
        self._part = 0
        tail = former.open()
        if tail.tip not in {NO_TIP, self._tip}:
            raise NoTrail(errno.EEXIST, "another trail stands in its place")
        self._begin(CONTINUED, Tail(self._tip, tail.torn or rest))

    def _begin(self, kind: str, tail: Tail) -> None:
        """Have a heading stand first of all that waits, in the place of one that was not written."""
        kind = self._heading or kind
        heading = of_event(
            kind,
            self._sources.wall_now(),
            kid=self._origin.kid,
            replica=self._origin.replica,
            version=self._origin.version,
            after=str(tail.tip) if tail.tip.seq else "",
            torn=tail.torn,
        )
        if self._heading:
            self._waiting[0] = heading
        else:
            self._waiting.appendleft(heading)
        self._heading = kind

    def _empty(self) -> None:
        while self._waiting and not self._gives_up:
            lines, tips = self._linked()
            written = self._target.write(b"".join(lines)[self._part :])
            if not written:
                self._wake.set()
                return
            self._advance(lines, tips, written)
        if not self._is_kept:
            self._target.keep()
            self._is_kept = True

    def _linked(self) -> tuple[list[bytes], list[Tip]]:
        lines: list[bytes] = []
        tips: list[Tip] = []
        tip, size = self._tip, 0
        for index in range(len(self._waiting)):
            line, tip = linked(self._mac, tip, self._waiting[index])
            size += len(line)
            if lines and size > self._target.at_once_bytes:
                break
            lines.append(line)
            tips.append(tip)
        return lines, tips

    def _advance(self, lines: list[bytes], tips: list[Tip], written: int) -> None:
        done, count = self._part + written, 0
        for line, tip in zip(lines, tips, strict=True):
            if done < len(line):
                break
            done -= len(line)
            self._waiting.popleft()
            self._tip, self._heading = tip, ""
            count += 1
        self._part, self._is_kept = done, False
        self._progress_at = self._sources.now()
        self._sources.on_written(count)

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            with suppress(RuntimeError):  # the loop is closed
                self._sources.on_trouble(_reason(error))

    def _succeeded(self) -> None:
        if self._is_failing:
            self._is_failing = False
            with suppress(RuntimeError):
                self._sources.on_again()


def _reason(error: Exception) -> str:
    if isinstance(error, NoTrail):
        return "NO_TRAIL"
    return errno.errorcode.get(error.errno or 0, "OTHER") if isinstance(error, OSError) else "OTHER"
