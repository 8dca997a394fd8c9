"""Whose turn it is: requests that may not come yet wait in their caller's own queue, for a bounded time.

Rules
- A caller holds a place for a request from here until its reply has left and its call has ended, whichever is later:
  whoever waits little must not have more calls under way than others.
- A place that becomes free goes to the callers that wait in turn, one request each: whoever waits for ten does not
  wait behind whoever waits for a thousand.
- Whoever asks for a token is nobody yet, and reads slowly perhaps: a twentieth of the places is for all of them.
- Whoever leaves while it waits is out of the queue at once.
- Over its own limits a caller is refused with 429; where the process has no room for it, with 503.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.callers.limits import Bucket, limit_headers, may_hold_one_more
from gateway.errors import Overloaded, TooManyRequests
from gateway.exchange import Exchange
from gateway.policy.callers import Caller, LimitsClause
from gateway.problem import GatewayError

Place = asyncio.Future[None]
_STRANGERS_SHARE: Final = 20


@dataclass(slots=True, eq=False)
class _Line:
    """The places of one caller, or of all strangers together, and those who wait for one."""

    limits: LimitsClause
    bucket: Bucket | None
    held: int = 0
    waiting: deque[Place] = field(default_factory=deque)


class Turns:
    """Gives places in this process to requests.

    `now` is the clock of what is limited, `measured` that of what is measured; both in seconds.
    """

    def __init__(self, places: int, *, now: Callable[[], float], measured: Callable[[], float]) -> None:
        self._places = places
        self._now = now
        self._measured = measured
        self._lines: dict[str, _Line] = {}
        self._strangers = _Line(LimitsClause(in_flight=max(places // _STRANGERS_SHARE, 1)), None)
        self._queued: dict[_Line, None] = {}  # served in this order; whoever was served goes last
        self._taken = 0
        self._callers: Mapping[str, Caller] = {}
        self._held: dict[Exchange, _Line] = {}
        self._hoping: dict[Exchange, Place] = {}
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, callers: Mapping[str, Caller]) -> None:
        """Let these limits hold from now on; whoever has a place keeps it, and a bucket that is another is full."""
        self._callers = callers
        for name, line in tuple(self._lines.items()):
            if name not in callers and not line.held and not line.waiting:
                del self._lines[name]
            elif name in callers and callers[name].entry.limits != line.limits:
                line.limits = callers[name].entry.limits
                line.bucket = self._bucket(line.limits)
        self._serve()

    @property
    def queued(self) -> int:
        """How many requests wait for their turn."""
        return sum(len(line.waiting) for line in self._queued)

    async def take(self, exchange: Exchange) -> None:
        """Return when the request may go on; one that has its place keeps it. Raises TooManyRequests and Overloaded."""
        if exchange in self._held:
            return
        line = self._line(exchange.caller.name) if exchange.caller is not None else self._strangers
        if line.waiting or not self._may_go(line):
            await self._wait(line, exchange)  # whoever serves has counted the place
        else:
            self._give(line)
        self._held[exchange] = line

    def over(self, exchange: Exchange) -> None:
        """Give the place of a request that is over to whoever is next; it may have had none."""
        line = self._held.pop(exchange, None)
        if line is not None:
            self._take_back(line)

    def left(self, exchange: Exchange) -> None:
        """Let go of a request whose caller has left while it waited."""
        place = self._hoping.get(exchange)
        if place is not None and not place.done():
            place.set_exception(Overloaded(retry_after_s=1))  # which nobody hears

    # --- those who wait -----------------------------------------------------------------------------------------

    async def _wait(self, line: _Line, exchange: Exchange) -> None:
        limits = line.limits
        if len(line.waiting) >= limits.queue or not limits.wait:
            raise self._refusal(line)
        place: Place = asyncio.get_running_loop().create_future()
        line.waiting.append(place)
        self._queued.setdefault(line)
        self._serve()  # perhaps the bucket was filled just now, and its timer has not rung yet
        self._hoping[exchange] = place
        exchange.waits(self._measured())
        try:
            async with asyncio.timeout(limits.wait):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._take_back(line)  # it came in the moment in which nobody waited for it any more
            elif place in line.waiting:
                line.waiting.remove(place)
            if not line.waiting:
                self._queued.pop(line, None)
            if isinstance(error, TimeoutError):
                raise self._refusal(line) from None
            raise
        finally:
            del self._hoping[exchange]
            exchange.resumes(self._measured())

    def _serve(self) -> None:
        """Give away whatever may be given, one request of each caller in turn."""
        is_any_served = True
        while is_any_served:
            is_any_served = False
            for line in tuple(self._queued):
                while line.waiting and line.waiting[0].done():  # has left, and has not come to say so yet
                    line.waiting.popleft()
                if line.waiting and self._may_go(line):
                    self._give(line)
                    line.waiting.popleft().set_result(None)
                    is_any_served = True
                    self._queued[line] = self._queued.pop(line)
                if not line.waiting:
                    del self._queued[line]
        self._arm()

    def _arm(self) -> None:
        """Look again when the first bucket of those who wait has something in it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        waits = [line.bucket.wait_s(now) for line in self._queued if line.bucket is not None]
        if due := [wait_s for wait_s in waits if wait_s > 0]:
            self._timer = asyncio.get_running_loop().call_later(min(due), self._serve)

    # --- places -------------------------------------------------------------------------------------------------

    def _may_go(self, line: _Line) -> bool:
        return self._has_room(line) and not self._is_over_its_limits(line)

    def _has_room(self, line: _Line) -> bool:
        return may_hold_one_more(line.held, self._places - self._taken, len(self._callers))

    def _is_over_its_limits(self, line: _Line) -> bool:
        limit = line.limits.in_flight
        is_too_many = limit is not None and line.held >= limit
        return is_too_many or (line.bucket is not None and line.bucket.wait_s(self._now()) > 0)

    def _give(self, line: _Line) -> None:
        line.held += 1
        self._taken += 1
        if line.bucket is not None:
            line.bucket.take(self._now())

    def _take_back(self, line: _Line) -> None:
        line.held -= 1
        self._taken -= 1
        if self._queued:
            self._serve()

    def _refusal(self, line: _Line) -> GatewayError:
        if not self._is_over_its_limits(line) or line is self._strangers:
            return Overloaded(retry_after_s=1)
        wait_s = line.bucket.wait_s(self._now()) if line.bucket is not None else 0.0
        retry_after_s = max(math.ceil(wait_s), 1)
        return TooManyRequests(retry_after_s=retry_after_s, headers=limit_headers(line.limits, retry_after_s))

    def _line(self, name: str) -> _Line:
        line = self._lines.get(name)
        if line is None:
            limits = self._callers[name].entry.limits
            line = self._lines[name] = _Line(limits, self._bucket(limits))
        return line

    def _bucket(self, limits: LimitsClause) -> Bucket | None:
        return Bucket(limits.rate, limits.burst_size, self._now()) if limits.rate is not None else None
