"""A flight's dealings with the fleet: look, wait, renew, publish.

Rules
- Whoever waits for another replica is woken by its message, and looks for itself all the same: a message is lost
  whenever a connection is.
- Where Redis falls silent while somebody waits, the leader elsewhere is believed alive for a little while longer.
- An answer is placed in time by Redis' clock at the claim and our own monotonic clock since. Where Redis was silent at
  the claim, it is asked when there is something to keep: what was paid for is kept if that is possible at all.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from gateway.dedup.replay import Landing, Shared
from gateway.dedup.store import Finish, Finished, FlightStore, Kept, Landed, Lead, Spent, Wait
from gateway.dedup.window import Window
from gateway.errors import DedupUnavailable
from gateway.store import StoreUnavailable

_POLL_FIRST_S: Final = 0.25
_POLL_MAX_S: Final = 2.0
_LOST_CONTACT_S: Final = 5.0
_LOOKS: Final = 3
_AGAIN_AFTER_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where instants, chance and fresh ids come from, and who is told what happens out of any request's sight."""

    now: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    on_lost_lease: Callable[[], None]
    on_takeover: Callable[[], None]
    on_stored: Callable[[int], None]


class Terms(Struct, frozen=True, kw_only=True):
    """What a request brings to a flight. Those of one `group` have the same window, so that one looks for all.

    `correlation_id` is the one under which the upstream would know the call; `caller` a digest of who asks.
    """

    key: bytes
    group: str
    window: Window
    correlation_id: str
    may_bypass_store: bool
    caller: str = ""


class Followed(Struct, frozen=True):
    """The request followed: another's landing, while it waited.

    Whoever came after `landed_at` did not wait for it: what is not kept is not for those who come later.
    """

    landing: Landing
    landed_at: float = math.inf


class Replayed(Struct, frozen=True):
    """An earlier answer, still within the window."""

    shared: Shared
    age_s: float
    remaining_s: float


Seen = Lead | Wait | Spent | Followed | Replayed


class Answer(Struct, frozen=True):
    """A landing in time: `heard_at` by our monotonic clock, `given_at` by that of Redis, None if it is not known."""

    landing: Landing
    heard_at: float
    given_at: float | None

    @property
    def outcome(self) -> str:
        """What it states of the patient, if it is a fact."""
        return self.landing.outcome if isinstance(self.landing, Shared) else ""


class Fleet:
    """What this process knows of the others' flights, and tells them of its own."""

    def __init__(self, store: FlightStore, sources: Sources) -> None:
        self._store = store
        self._sources = sources
        self._watching: dict[bytes, set[asyncio.Event]] = {}

    def wake(self, key: bytes) -> None:
        """Look at once at a flight that has landed elsewhere."""
        for event in self._watching.get(key, ()):
            event.set()

    def wake_all(self) -> None:
        """Look at every flight that is led elsewhere: messages may have been lost."""
        for key in self._watching:
            self.wake(key)

    async def seen_or_none(self, terms: Terms, owner: str) -> Seen | None:
        """Claim; None: Redis is silent, and the policy lets the request pass. Raises DedupUnavailable."""
        try:
            return await self.seen(terms, owner)
        except StoreUnavailable:
            _may_go_on(terms)
            return None

    async def seen(self, terms: Terms, owner: str, waited: str = "") -> Seen:
        """Claim, and take a kept answer only within the window. Raises StoreUnavailable."""
        unwanted = ""
        for _ in range(_LOOKS):
            claim = await self._store.claim(terms.key, owner, waited=waited, unwanted=unwanted, caller=terms.caller)
            match claim:
                case Landed(landing, age_s):
                    return Followed(landing, self._sources.now() - age_s)
                case Kept(landing, leader) if leader == waited:
                    return Followed(landing)
                case Kept(Shared() as shared, leader, answered_at, now):
                    remaining_s = terms.window.remaining_s(shared.outcome, answered_at, now)
                    if remaining_s > 0:
                        return Replayed(shared, max(now - answered_at, 0.0), remaining_s)
                    unwanted = leader
                case Kept(owner=leader):
                    unwanted = leader
                case _:
                    return claim
        raise StoreUnavailable("answer")

    async def until_landed(self, terms: Terms, owner: str, wait: Wait) -> Seen | None:
        """Wait for the leader elsewhere, and return what came of it: never Wait. None as in `seen_or_none`."""
        event = asyncio.Event()
        self._watching.setdefault(terms.key, set()).add(event)
        poll_s, heard_at = _POLL_FIRST_S, self._sources.now()
        try:
            while True:
                jitter = self._sources.jitter()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(poll_s * (0.75 + jitter / 2), wait.lease_s + 0.02 + jitter / 5)):
                        await event.wait()
                event.clear()
                try:
                    seen = await self.seen(terms, owner, wait.owner)
                except StoreUnavailable:
                    if self._sources.now() - heard_at < _LOST_CONTACT_S:
                        continue
                    _may_go_on(terms)
                    return None
                if not isinstance(seen, Wait):
                    return seen
                wait, heard_at, poll_s = seen, self._sources.now(), min(poll_s * 2, _POLL_MAX_S)
        finally:
            watching = self._watching[terms.key]
            watching.discard(event)
            if not watching:
                del self._watching[terms.key]

    async def renew(self, terms: Terms, owner: str) -> bool:
        """Keep the lease; return whether it is still ours. Raises StoreUnavailable."""
        return await self._store.renew(terms.key, owner)

    async def abandon(self, terms: Terms, owner: str) -> None:
        """Let a successor lead at once."""
        with suppress(StoreUnavailable):  # then it leads when the lease has run out
            await self._store.abandon(terms.key, owner)

    async def remind(self, terms: Terms) -> None:
        """Let a caller that waits no longer have the landing when it asks again, if Redis takes that."""
        with suppress(StoreUnavailable):
            await self._store.remind(terms.key, terms.caller)

    async def resign(self, terms: Terms, owner: str) -> None:
        """Try for a while to give back what was claimed unheard, perhaps, and will not be used."""
        await _persistently(lambda: self._store.abandon(terms.key, owner, has_asked=False))

    async def publish(self, terms: Terms, owner: str, answer: Answer) -> float:
        """Tell the fleet; return for how many seconds the answer is kept. Raises StoreUnavailable."""
        given_at = answer.given_at
        if given_at is None:
            claim = await self._store.claim(terms.key, owner)
            if not isinstance(claim, Lead):
                return 0.0
            given_at = claim.now - (self._sources.now() - answer.heard_at)
        return await self._finish(terms, owner, answer, given_at, is_fresh=False)

    async def publish_later(self, terms: Terms, owner: str, answer: Answer) -> bool:
        """Try for a while what Redis would not take: an answer was paid for, and somebody elsewhere may wait for it.

        Return whether Redis has taken it in the end.
        """
        return await _persistently(lambda: self.publish(terms, owner, answer))

    async def refresh(self, terms: Terms, owner: str, answer: Answer) -> float:
        """Let an answer that was asked for afresh take the place of an earlier one; return as `publish` does."""
        if answer.outcome:
            with suppress(StoreUnavailable):
                given_at = await self._store.now(terms.key) - (self._sources.now() - answer.heard_at)
                return await self._finish(terms, owner, answer, given_at, is_fresh=True)
        return 0.0

    async def _finish(self, terms: Terms, owner: str, answer: Answer, given_at: float, *, is_fresh: bool) -> float:
        keep_s = terms.window.remaining_s(answer.outcome, given_at, given_at)
        if is_fresh and not keep_s:
            return 0.0  # nobody waits for it
        kind = Finish.FRESH if is_fresh else Finish.KEEP if keep_s else Finish.SHARE
        sealed = self._store.seal(terms.key, answer.landing, given_at)
        done = await self._store.finish(terms.key, owner, kind, sealed, answered_at=given_at, keep_s=keep_s)
        if done is Finished.KEPT:
            self._sources.on_stored(len(sealed))
            return keep_s
        if done is Finished.LOST and not is_fresh:
            self._sources.on_lost_lease()
        return 0.0


async def _persistently(work: Callable[[], Awaitable[object]]) -> bool:
    """Do it as soon as Redis lets it be done, or give it up after a while; return whether it was done."""
    for pause_s in _AGAIN_AFTER_S:
        await asyncio.sleep(pause_s)
        with suppress(StoreUnavailable):
            await work()
            return True
    return False


def _may_go_on(terms: Terms) -> None:
    """Go on without Redis, if the policy lets the request pass. Raises DedupUnavailable."""
    if not terms.may_bypass_store:
        raise DedupUnavailable(retry_after_s=1) from None
