"""Flights in Redis: one hash for each question, changed by idempotent Lua steps.

A flight is pending (`st` is P) while somebody leads it, and complete (C) once a fact about the patient is kept.
Any other landing is handed to those who waited for it and leaves the question free.

Rules
- Time is the server's own (`TIME`), so the clocks of replicas never matter; every key always has a TTL.
- Each step says the same again when it is repeated by the same owner: its first answer may have been lost.
- `claim` makes at most one owner lead at any moment. Where a leader died, the next claim succeeds it, at most
  `max_try` times in the life of a flight: a question that kills whoever asks it is not asked for ever.
- `finish` by anybody but the owner changes nothing, unless the key is gone: then the answer is better than nothing.
- A complete flight stays as it is until its TTL; only an answer that was asked for afresh, and was given later,
  takes its place.
- The first write of a step is one that a full Redis refuses: after another one it would take any size.
- Whoever was told that an answer is still on its way (`remind`) gets that flight's landing when it asks again, once,
  within a minute: also one that is not kept. It is handed over late, and replayed to nobody.
- A message is published where somebody elsewhere was told to wait: nobody else has any use for it.
- Values are sealed for their key; one that does not open is a miss. When it was given is inside of it, so nobody who
  can write to Redis makes an answer younger than it is.

Fields: st, own, try, dl (ms), waited, at (ms), val (sealed), brief, late; of the last landing that is not kept: sown,
sval, suntil (ms); of each caller that was reminded, p:CALLER, the flight's owner or whoever has fetched its landing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from gateway.dedup.replay import Landing, Unpackable, pack, unpack
from gateway.sealing import Sealing
from gateway.store import LUA_NOW_MS, Script, ScriptRunner, StoreUnavailable

CHANNEL: Final = b"eg:flights"

# ARGV: own, lease, life, max_try, waited, unwanted, field of the caller
_CLAIM: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'st', 'own', 'try', 'dl', 'val', 'sown', 'sval', 'suntil', ARGV[7])
if h[6] and tonumber(h[8]) > now then
  if h[6] == ARGV[5] then return {'LANDED', h[7], now} end
  if h[9] == h[6] then redis.pcall('HSET', KEYS[1], ARGV[7], ARGV[1]) end
  if h[9] == h[6] or h[9] == ARGV[1] then return {'LANDED', h[7], now} end
end
if h[1] == 'C' and h[2] ~= ARGV[6] then return {'KEPT', h[5], h[2], now} end
local try = 0
if h[1] == 'P' then
  try = tonumber(h[3])
  if h[2] == ARGV[1] then
    redis.call('HSET', KEYS[1], 'dl', now + ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return {'LEAD', try, now}
  elseif tonumber(h[4]) > now then
    redis.pcall('HSET', KEYS[1], 'waited', 1)  -- a full Redis takes no mark: then whoever waits looks by itself
    return {'WAIT', h[2], h[4] - now}
  elseif try >= tonumber(ARGV[4]) then
    return {'SPENT', redis.call('PTTL', KEYS[1])}
  end
end
redis.call('HSET', KEYS[1], 'st', 'P', 'own', ARGV[1], 'try', try + 1, 'dl', now + ARGV[2])
redis.call('HDEL', KEYS[1], 'val', 'at', 'brief', h[1] == 'P' and 'brief' or 'waited')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'LEAD', try + 1, now}
""",
)

# ARGV: own, lease, life
_RENEW: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'st', 'own')
if h[1] ~= 'P' or h[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'dl', now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""",
)

# ARGV: own, kind (keep, fresh, share), sealed value, answered at, keep for, share for, channel, share late for
_FINISH: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'st', 'own', 'at', 'sown', 'brief', 'waited', 'late')
if h[1] == 'C' and h[2] == ARGV[1] then return 'kept' end
if h[4] == ARGV[1] then return 'shared' end
local mine = h[1] == 'P' and h[2] == ARGV[1]
local kept = h[1] == 'C' and ARGV[2] == 'fresh' and tonumber(h[3]) < tonumber(ARGV[4])
local idle = not h[1] and (ARGV[2] == 'fresh' or redis.call('EXISTS', KEYS[1]) == 0)
if not (mine or kept or idle) then return 'lost' end
local kind = h[5] and 'share' or ARGV[2]  -- forgotten while it was under way
if kind == 'share' then
  local share = h[7] and ARGV[8] or ARGV[6]
  redis.call('HSET', KEYS[1], 'sown', ARGV[1], 'sval', ARGV[3], 'suntil', now + share)
  redis.call('HDEL', KEYS[1], 'st', 'own', 'try', 'dl', 'val', 'at', 'brief', 'waited', 'late')
  redis.call('PEXPIRE', KEYS[1], share)
else
  redis.call('HSET', KEYS[1], 'st', 'C', 'own', ARGV[1], 'val', ARGV[3], 'at', ARGV[4])
  redis.call('HDEL', KEYS[1], 'try', 'dl', 'sown', 'sval', 'suntil', 'waited', 'late')
  redis.call('PEXPIRE', KEYS[1], math.max(ARGV[5], ARGV[6]))
end
if h[6] then redis.pcall('PUBLISH', ARGV[7], KEYS[1]) end
return kind == 'share' and 'shared' or 'kept'
""",
)

# ARGV: own, attempts to take back, channel
_ABANDON: Final = Script.of(
    """
local h = redis.call('HMGET', KEYS[1], 'st', 'own', 'waited', 'try')
if h[1] ~= 'P' or h[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'own', '', 'dl', 0, 'try', h[4] - ARGV[2])
if h[3] then redis.pcall('PUBLISH', ARGV[3], KEYS[1]) end
return 1
""",
)

# ARGV: field of the caller, share late for
_REMIND: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'st', 'own', 'sown', 'suntil')
if h[1] == 'P' then
  redis.call('HSET', KEYS[1], 'late', 1, ARGV[1], h[2])
elseif h[3] and tonumber(h[4]) > now then
  redis.call('HSET', KEYS[1], 'suntil', now + ARGV[2], ARGV[1], h[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
""",
)

_FORGET: Final = Script.of(
    """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) return 0 end
local state = redis.call('HGET', KEYS[1], 'st')
if state == 'P' then redis.call('HSET', KEYS[1], 'brief', 1) return 0 end
redis.call('DEL', KEYS[1])
return state == 'C' and 1 or 0
""",
)


_CLOCK: Final = Script.of(LUA_NOW_MS + "return now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long things last, in seconds: a lease far shorter than an upstream call, a life far longer than a lease."""

    lease_s: float = 15.0
    life_s: float = 150.0
    share_s: float = 5.0
    late_s: float = 60.0
    max_try: int = 2


class Lead(Struct, frozen=True):
    """This owner leads: the upstream is its to ask. `attempt` is above 1 where a leader was lost before."""

    attempt: int
    now: float


class Kept(Struct, frozen=True):
    """An earlier answer; `owner` led it."""

    landing: Landing
    owner: str
    answered_at: float
    now: float


class Landed(Struct, frozen=True):
    """The landing of the flight that was waited for, which is not kept; it was so long ago."""

    landing: Landing
    age_s: float


class Wait(Struct, frozen=True):
    """Another owner leads; without a sign of life its lease ends after so long."""

    owner: str
    lease_s: float


class Spent(Struct, frozen=True):
    """As many leaders as may were lost over this question; it is free again after so long."""

    wait_s: float


Claim = Lead | Kept | Landed | Wait | Spent


class Finish(StrEnum):
    """What is to become of an answer: kept for the window, kept in place of an earlier one, or only handed over."""

    KEEP = "keep"
    FRESH = "fresh"
    SHARE = "share"


class Finished(StrEnum):
    """What became of an answer; LOST: the flight is another's."""

    KEPT = "kept"
    SHARED = "shared"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FlightStore:
    """Flights, shared by every replica that has the same key ring.

    `urgent` has a connection of its own: leases are renewed, and answers published, however many wait.
    """

    runner: ScriptRunner
    urgent: ScriptRunner
    sealing: Sealing
    on_unusable: Callable[[], None]
    times: Times = Times()

    async def claim(self, key: bytes, owner: str, *, waited: str = "", unwanted: str = "", caller: str = "") -> Claim:
        """Lead, wait, or take what there is: a landing that was waited for, or a kept answer.

        The landing of the flight of `waited`, or of the one of which `caller` was reminded. A kept answer led by
        `unwanted` is treated as missing. Raises StoreUnavailable.
        """
        try:
            return await self._claim(key, owner, waited, unwanted, caller)
        except (ValueError, TypeError):  # whatever stands there, we did not write it
            raise StoreUnavailable("answer") from None

    async def _claim(self, key: bytes, owner: str, waited: str, unwanted: str, caller: str) -> Claim:
        times = self.times
        arguments = (_ms(times.lease_s), _ms(times.life_s), times.max_try)
        for _ in range(2):  # the second time without the value that did not open
            answer: Any = await self.runner.run(_CLAIM, key, owner, *arguments, waited, unwanted, f"p:{caller}")
            match answer:
                case [b"KEPT", bytes(sealed), bytes(leader), int(now_ms)]:
                    opened = self._opened(key, sealed)
                    if opened is not None:
                        return Kept(opened[0], leader.decode(), opened[1], now_ms / 1000)
                    unwanted = leader.decode()
                case [b"LANDED", bytes(sealed), int(now_ms)]:
                    opened = self._opened(key, sealed)
                    if opened is not None:
                        return Landed(opened[0], max(now_ms / 1000 - opened[1], 0.0))
                    waited = caller = ""
                case [b"WAIT", bytes(leader), int(lease_ms)]:
                    return Wait(leader.decode(), min(lease_ms / 1000, times.lease_s))
                case [b"SPENT", int(wait_ms)]:
                    return Spent(min(max(wait_ms / 1000, 1.0), times.life_s))
                case [b"LEAD", int(attempt), int(now_ms)]:
                    return Lead(attempt, now_ms / 1000)
                case _:
                    break
        raise StoreUnavailable("answer")

    async def renew(self, key: bytes, owner: str) -> bool:
        """Keep the lease; return whether it is still this owner's. Raises StoreUnavailable."""
        times = self.times
        return bool(await self.urgent.run(_RENEW, key, owner, _ms(times.lease_s), _ms(times.life_s)))

    async def now(self, key: bytes) -> float:
        """Return the server's clock. Raises StoreUnavailable."""
        now_ms: int = await self.runner.run(_CLOCK, key)
        return now_ms / 1000

    def seal(self, key: bytes, landing: Landing, answered_at: float) -> bytes:
        """Return what `finish` stores."""
        return self.sealing.seal(key, pack(landing, answered_at))

    async def finish(  # noqa: PLR0913 - one atomic step
        self,
        key: bytes,
        owner: str,
        kind: Finish,
        sealed: bytes,
        *,
        answered_at: float,
        keep_s: float,
    ) -> Finished:
        """Publish a landing; return what became of it. Raises StoreUnavailable."""
        done = await self.urgent.run(
            *(_FINISH, key, owner, kind.value, sealed, _ms(answered_at)),
            *(_ms(keep_s), _ms(self.times.share_s), CHANNEL, _ms(self.times.late_s)),
        )
        try:
            return Finished(done.decode())
        except (ValueError, AttributeError):
            raise StoreUnavailable("answer") from None

    async def abandon(self, key: bytes, owner: str, *, has_asked: bool = True) -> None:
        """Give the lease back without an answer, so that a successor leads at once. Raises StoreUnavailable.

        Whoever has not asked the upstream takes the attempt back as well.
        """
        await self.urgent.run(_ABANDON, key, owner, 0 if has_asked else 1, CHANNEL)

    async def remind(self, key: bytes, caller: str) -> None:
        """Let a caller that waits no longer have the landing when it asks again. Raises StoreUnavailable."""
        await self.runner.run(_REMIND, key, f"p:{caller}", _ms(self.times.late_s))

    async def forget(self, key: bytes) -> bool:
        """Remove a kept answer; return whether there was one. A flight under way will keep nothing.

        Raises StoreUnavailable.
        """
        return bool(await self.runner.run(_FORGET, key))

    def _opened(self, key: bytes, sealed: bytes) -> tuple[Landing, float] | None:
        packed = self.sealing.open(key, sealed)
        if packed is not None:
            try:
                return unpack(packed)
            except Unpackable:
                pass
        self.on_unusable()
        return None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
