"""Flights of one process: one led request and those who follow it.

Rules
- A leader's call belongs to its flight, not to the caller that began it: whoever leaves takes nothing from the others,
  and an answer that nobody waits for any more is kept all the same.
- First this process, then the fleet: of one question one flight in each process asks Redis, the others join it.
- A lease is renewed for as long as the call takes, also where Redis was silent when it was asked for: the claim may
  have been carried out unheard. Who has lost the lease goes on for its own callers, and publishes nothing.
- Nobody fans out: what the leader got, good or bad, is what the others get. Only a leader that died, or was stopped,
  has a successor, and exactly one.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from operator import length_hint
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from gateway.dedup.fleet import Answer, Fleet, Followed, Replayed, Seen, Sources, Terms
from gateway.dedup.replay import SHARE_MAX_BYTES, Landing, NoAnswer, NotShareable, share
from gateway.dedup.store import Lead, Spent, Wait
from gateway.errors import Internal, Overloaded, QuestionSpent, Stopped
from gateway.exchange import Reply
from gateway.problem import GatewayError
from gateway.store import StoreUnavailable

MAX_FOLLOWERS: Final = 20_000
_WAKE: Final = 256  # followers at once: some 20 ms in which nothing else is done
_RENEW_S: Final = 5.0
_LOOK_S: Final = 1.0  # for whoever is to be renewed

Call = Callable[[], Awaitable[Reply]]
T = TypeVar("T")


class Led(Struct, frozen=True):
    """The request led, and this is the upstream's answer; for `kept_s` the same question is answered from it."""

    reply: Reply
    landing: Landing
    kept_s: float = 0.0
    has_lease: bool = True


Outcome = Led | Followed | Replayed


@dataclass(slots=True, eq=False)
class _Flight:
    """One question under way in this process. `outcome` is what those who join get."""

    terms: Terms
    owner: str
    followers: "set[asyncio.Future[Outcome]]" = field(default_factory=set)
    outcome: Outcome | None = None
    over: asyncio.Event | None = None  # made by whoever waits for it
    renew_at: float = math.inf

    def land(self, outcome: Outcome) -> None:
        """Tell everybody who joined, after what is just being sent; so many at a time that nobody else waits long."""
        self.outcome = outcome
        if self.followers:
            followers, self.followers = self.followers, set()
            _wake(iter(followers), outcome)


def _wake(followers: "Iterator[asyncio.Future[Outcome]]", outcome: Outcome) -> None:
    """In the next tick, and in those after it."""
    asyncio.get_running_loop().call_soon(_tell, followers, outcome)


def _tell(followers: "Iterator[asyncio.Future[Outcome]]", outcome: Outcome) -> None:
    for follower in islice(followers, _WAKE):
        if not follower.done():
            follower.set_result(outcome)
    if length_hint(followers):
        _wake(followers, outcome)


class Flights:
    """All flights of this process."""

    def __init__(self, fleet: Fleet, sources: Sources) -> None:
        self._fleet = fleet
        self._sources = sources
        self._flights: dict[tuple[bytes, str], _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leased: set[_Flight] = set()
        self._renewing: asyncio.TimerHandle | None = None  # one for all: a timer a flight costs more than its lease
        self.followers = 0  # who wait now, for the gauge
        self.untaken = 0  # answers that Redis has not taken, however long it was asked

    async def answer(self, terms: Terms, call: Call, on_follow: Callable[[], None]) -> Outcome:
        """Lead, follow or replay; say when a wait for another's answer begins. Raises GatewayError.

        Whoever is cancelled, because its caller waits no longer, takes nothing from the others.
        """
        place = (terms.key, terms.group)
        while (flight := self._flights.get(place)) is not None:
            if flight.outcome is None:
                joined_at = self._sources.now()
                on_follow()
                outcome = await self._follow(flight)
                if isinstance(outcome, Followed) and outcome.landed_at < joined_at:
                    continue  # it had landed elsewhere, and word of it was still on its way
                return outcome
            if flight.over is None:
                flight.over = asyncio.Event()
            await flight.over.wait()  # it has landed without us, and is just being published
        flight = self._flights[place] = _Flight(terms, self._sources.new_id())
        try:
            seen = await self._fleet.seen_or_none(terms, flight.owner)
        except asyncio.CancelledError:
            if not flight.followers:
                self._give_up(flight, Stopped())
            else:  # whoever began it waits no longer, but others do
                self._own(self._claim_and_fly(flight, call))
            raise
        except BaseException as error:
            self._give_up(flight, error)
            raise
        if isinstance(seen, Replayed):  # no task for what is there already
            self._over(flight, seen)
            return seen
        if isinstance(seen, Wait):
            on_follow()
        return await _outcome(self._own(self._fly(flight, seen, call)))

    async def watch(self, terms: Terms, call: Call) -> tuple[Seen | None, Led]:
        """Ask upstream in any case, and say what `answer` would have found; None where Redis is silent."""
        flight = _Flight(terms, self._sources.new_id())
        seen: Seen | None = None
        try:
            seen = await self._fleet.seen(terms, flight.owner)
        except StoreUnavailable:
            self._resign(flight)
        if isinstance(seen, Lead):
            return seen, await _outcome(self._own(self._lead(flight, seen, call)))
        reply, landing = await _whole(await call())
        return seen, Led(reply, landing)

    async def refresh(self, terms: Terms, call: Call) -> Led:
        """Ask upstream in any case, and let the answer take the place of an earlier one."""
        return await _outcome(self._own(self._refresh(terms, call)))

    def remind(self, terms: Terms) -> None:
        """Let a caller that waits no longer have the landing when it asks again, on whichever replica."""
        if len(self._tasks) < MAX_FOLLOWERS:
            self._own(self._fleet.remind(terms))

    @property
    def count(self) -> int:
        """What is under way, with or without anybody who waits for it."""
        return len(self._tasks)

    async def idle(self) -> None:
        """Return when no flight is under way, and every answer that is to be kept is kept or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End every flight; those who wait elsewhere are told that it needs a successor."""
        self._leased.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, flight: _Flight) -> Outcome:
        if len(flight.followers) >= MAX_FOLLOWERS:
            raise Overloaded(retry_after_s=1)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        flight.followers.add(future)
        self.followers += 1
        try:
            return await _outcome(future)
        finally:
            flight.followers.discard(future)
            self.followers -= 1

    async def _claim_and_fly(self, flight: _Flight, call: Call) -> Outcome:
        """Begin again with the same owner, which is told the same. Raises what the call raises."""
        try:
            seen = await self._fleet.seen_or_none(flight.terms, flight.owner)
        except BaseException as error:
            self._give_up(flight, error)
            raise
        return await self._fly(flight, seen, call)

    def _give_up(self, flight: _Flight, error: BaseException) -> None:
        self._over(flight, Followed(_no_answer(error, flight.terms)))
        self._resign(flight)

    async def _fly(self, flight: _Flight, seen: Seen | None, call: Call) -> Outcome:
        """Bring a flight to its end. Raises what the call raises."""
        try:
            if isinstance(seen, Wait):
                seen = await self._fleet.until_landed(flight.terms, flight.owner, seen)
            match seen:
                case Lead() | None:
                    return await self._lead(flight, seen, call)
                case Spent(wait_s):
                    raise QuestionSpent(retry_after_s=math.ceil(wait_s))
                case Followed() | Replayed():
                    self._over(flight, seen)
                    return seen
                case Wait():
                    raise AssertionError("waited for already")
        except BaseException as error:
            self._over(flight, Followed(_no_answer(error, flight.terms)))
            raise

    async def _lead(self, flight: _Flight, lease: Lead | None, call: Call) -> Led:
        """Make the call; tell this process, then the fleet. Raises what the call raises."""
        claimed_at = self._sources.now()
        if lease is not None and lease.attempt > 1:
            self._sources.on_takeover()
        self._renew_later(flight)
        try:
            reply, landing = await _whole(await call())
        except asyncio.CancelledError as stopped:
            self._over(flight, Followed(_no_answer(stopped, flight.terms)))
            await self._fleet.abandon(flight.terms, flight.owner)
            raise
        except Exception as error:
            await self._land(flight, _no_answer(error, flight.terms), lease, claimed_at)
            raise
        kept_s = await self._land(flight, landing, lease, claimed_at)
        return Led(reply, landing, kept_s, lease is not None)

    async def _land(self, flight: _Flight, landing: Landing, lease: Lead | None, claimed_at: float) -> float:
        heard_at = self._sources.now()
        given_at = None if lease is None else lease.now + heard_at - claimed_at
        answer = Answer(landing, heard_at, given_at)
        flight.land(Followed(landing))
        try:
            if lease is not None:  # else nobody elsewhere waits for it, and nobody here shall wait for Redis again
                with suppress(StoreUnavailable):
                    return await self._fleet.publish(flight.terms, flight.owner, answer)
            if len(self._tasks) < MAX_FOLLOWERS:  # an error too: a lease may stand there, and people wait for its end
                self._own(self._publish_later(flight, answer))
            return 0.0
        finally:
            self._over(flight, Followed(landing))

    async def _publish_later(self, flight: _Flight, answer: Answer) -> None:
        if not await self._fleet.publish_later(flight.terms, flight.owner, answer) and answer.outcome:
            self.untaken += 1

    def _over(self, flight: _Flight, outcome: Outcome) -> None:
        self._leased.discard(flight)
        place = (flight.terms.key, flight.terms.group)
        if self._flights.get(place) is flight:
            del self._flights[place]
        if flight.outcome is None:
            flight.land(outcome)
        if flight.over is not None:
            flight.over.set()

    async def _refresh(self, terms: Terms, call: Call) -> Led:
        reply, landing = await _whole(await call())
        answer = Answer(landing, self._sources.now(), None)
        return Led(reply, landing, await self._fleet.refresh(terms, self._sources.new_id(), answer))

    def _resign(self, flight: _Flight) -> None:
        """Leave no lease behind of a claim that may have been carried out unheard."""
        if len(self._tasks) < MAX_FOLLOWERS:
            self._own(self._fleet.resign(flight.terms, flight.owner))

    def _renew_later(self, flight: _Flight) -> None:
        flight.renew_at = self._sources.now() + _RENEW_S
        self._leased.add(flight)
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().call_later(_LOOK_S, self._renew_due)

    def _renew_due(self) -> None:
        self._renewing = None
        now = self._sources.now()
        for flight in [flight for flight in self._leased if flight.renew_at <= now]:
            self._leased.discard(flight)
            self._own(self._renew(flight))
        if self._leased:
            self._renewing = asyncio.get_running_loop().call_later(_LOOK_S, self._renew_due)

    async def _renew(self, flight: _Flight) -> None:
        """Keep the lease while the call lasts; whether it was lost is said once, by the end of the flight."""
        may_be_ours = True
        with suppress(StoreUnavailable):
            may_be_ours = await self._fleet.renew(flight.terms, flight.owner)
        if may_be_ours and flight.outcome is None:
            self._renew_later(flight)

    def _own(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have left, and nobody else is to be told


async def _outcome(landing: "asyncio.Future[T]") -> T:
    """Await what goes on without us. Raises Stopped where it does not, because the process ends."""
    try:
        return await asyncio.shield(landing)
    except asyncio.CancelledError:
        if landing.cancelled():
            raise Stopped from None
        raise
    finally:
        del landing  # it holds the exception, whose traceback holds this frame, and all that was read of a torn answer


async def _whole(reply: Reply) -> tuple[Reply, Landing]:
    """Read a reply to its end, and say how it is shared; one that is too large stays with whoever led."""
    if reply.rest is None:
        return reply, share(reply)
    body = bytearray(reply.body)
    async for part in reply.rest:
        body += part
        if len(body) > SHARE_MAX_BYTES:
            return replace(reply, body=bytes(body)), NotShareable()
    whole = replace(reply, body=bytes(body), rest=None)
    return whole, share(whole)


def _no_answer(error: BaseException, terms: Terms) -> NoAnswer:
    match error:
        case GatewayError():
            return NoAnswer(error.code, terms.correlation_id, error.retry_after_s)
        case asyncio.CancelledError():
            return NoAnswer(Stopped.code, terms.correlation_id)
        case _:
            return NoAnswer(Internal.code, terms.correlation_id)
