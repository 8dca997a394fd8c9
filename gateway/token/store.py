"""The fleet's token in Redis: one hash per pair of credentials, changed by idempotent Lua steps.

Rules
- Time is the server's own (`TIME`), so the clocks of replicas never matter; the key always has a TTL.
- `claim` gives the token that is there, or makes exactly one owner the one who fetches; repeated by the same
  owner it says the same again, for its first answer may have been lost on the way.
- `void` removes a token only if it is still the one that was found wanting.
- The token is stored sealed; one that does not open is voided like any other bad token.

Fields: val (sealed), gen, until (ms), own, lease (ms), blocked (ms), cause, failures.
"""

from dataclasses import dataclass
from typing import Final

import orjson

from gateway.sealing import Sealing
from gateway.store import LUA_NOW_MS, Script, ScriptRunner, StoreUnavailable
from gateway.token.life import MAX_BACKOFF_S, Cause, Issued, Token, backoff_s, begin, usable_life_s

LEASE_MS: Final = 10_000  # longer than token.client.FETCH_TIMEOUT_S: a lease must outlive the work
_CLAIM_ATTEMPTS: Final = 2  # the second after voiding a token that does not open
_BLOCK_MEMORY_MS: Final = 600_000  # failures in a row are counted across the longest backoff

_CLAIM: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'val', 'gen', 'until', 'own', 'lease', 'blocked', 'cause')
if h[1] and h[2] ~= ARGV[3] and tonumber(h[3]) > now then return {'TOKEN', h[1], h[2], h[3] - now} end
if h[6] and tonumber(h[6]) > now then return {'BLOCKED', h[7], h[6] - now} end
if h[5] and tonumber(h[5]) > now and h[4] ~= ARGV[1] then return {'WAIT', h[5] - now} end
local ttl = redis.call('PTTL', KEYS[1])
redis.call('HSET', KEYS[1], 'own', ARGV[1], 'lease', now + ARGV[2])
if ttl < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {'LEAD'}
""",
)

_PUBLISH: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'own', 'lease')
if h[2] and tonumber(h[2]) > now and h[1] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'val', ARGV[2], 'gen', ARGV[3], 'until', now + ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""",
)

_BLOCK: Final = Script.of(
    LUA_NOW_MS
    + """
local h = redis.call('HMGET', KEYS[1], 'own', 'failures', 'cause', 'blocked')
if h[1] ~= ARGV[1] then return h[4] and h[4] - now or -1 end
local failures = (h[3] == ARGV[2] and tonumber(h[2]) or 0) + 1
local wait = tonumber(ARGV[math.min(3 + failures, #ARGV)])
redis.call('HSET', KEYS[1], 'blocked', now + wait, 'cause', ARGV[2], 'failures', failures)
redis.call('HDEL', KEYS[1], 'own', 'lease')
if redis.call('PTTL', KEYS[1]) < wait + ARGV[3] then redis.call('PEXPIRE', KEYS[1], wait + ARGV[3]) end
return wait
""",
)

_VOID: Final = Script.of(
    """
if redis.call('HGET', KEYS[1], 'gen') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'val', 'gen', 'until')
return 1
""",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The fleet has a token."""

    token: Token


@dataclass(frozen=True, slots=True)
class Blocked:
    """The issuer is left alone for so long."""

    cause: Cause
    wait_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Another replica is fetching; its lease ends after so long."""

    lease_s: float


@dataclass(frozen=True, slots=True)
class Lead:
    """This owner fetches."""


Claim = Stored | Blocked | Wait | Lead


class TokenStore:
    """The token of one pair of credentials, shared by every replica that has the same key ring."""

    def __init__(self, runner: ScriptRunner, sealing: Sealing, *credentials: str) -> None:
        self._runner = runner
        self._sealing = sealing
        self._key = f"eg:token:{sealing.name('token', *credentials)}".encode()

    async def claim(self, owner: str, unwanted: str, *, now: float, jitter: float) -> Claim:
        """Take the fleet's token unless it is the unwanted generation, or the right to fetch a new one.

        Raises StoreUnavailable.
        """
        try:
            return await self._claim(owner, unwanted, now=now, jitter=jitter)
        except (ValueError, TypeError, KeyError):  # whatever stands there, we did not write it
            raise StoreUnavailable("answer") from None

    async def _claim(self, owner: str, unwanted: str, *, now: float, jitter: float) -> Claim:
        for _ in range(_CLAIM_ATTEMPTS):
            match await self._runner.run(_CLAIM, self._key, owner, LEASE_MS, unwanted):
                case [b"TOKEN", bytes(sealed), bytes(generation), int(remaining_ms)]:
                    token = self._opened(sealed, generation.decode(), remaining_ms / 1000, now=now, jitter=jitter)
                    if token is not None:
                        return Stored(token)
                    await self.void(generation.decode())
                case [b"BLOCKED", bytes(cause), int(wait_ms)]:
                    # Bounded here as well: another server after a failover may have another clock.
                    return Blocked(Cause(cause.decode()), min(wait_ms / 1000, MAX_BACKOFF_S))
                case [b"WAIT", int(lease_ms)]:
                    return Wait(min(lease_ms, LEASE_MS) / 1000)
                case [b"LEAD"]:
                    return Lead()
                case _:
                    break
        raise StoreUnavailable("answer")

    async def publish(self, owner: str, token: Token, *, life_s: float) -> None:
        """Give the token to the fleet and the lease back. Raises StoreUnavailable."""
        sealed = self._sealing.seal(self._key, orjson.dumps({"secret": token.secret, "life_s": life_s}))
        usable_ms = max(int(usable_life_s(life_s) * 1000), 1)
        await self._runner.run(_PUBLISH, self._key, owner, sealed, token.generation, usable_ms)

    async def block(self, owner: str, cause: Cause, asked_s: float) -> float | None:
        """Leave the issuer alone, longer with every failure in a row; return for how many seconds.

        None: the lease was lost, and whoever has it now may know better. Raises StoreUnavailable.
        """
        waits_ms = [int(backoff_s(cause, failures, asked_s) * 1000) for failures in range(1, 9)]
        wait_ms = await self._runner.run(_BLOCK, self._key, owner, cause.value, _BLOCK_MEMORY_MS, *waits_ms)
        return min(int(wait_ms) / 1000, MAX_BACKOFF_S) if wait_ms >= 0 else None

    async def void(self, generation: str) -> None:
        """Remove the token if it is still this one. Raises StoreUnavailable."""
        await self._runner.run(_VOID, self._key, generation)

    def _opened(self, sealed: bytes, generation: str, remaining_s: float, *, now: float, jitter: float) -> Token | None:
        plain = self._sealing.open(self._key, sealed)
        if plain is None:
            return None
        stored = orjson.loads(plain)
        issued = Issued(stored["secret"], stored["life_s"])
        return begin(issued, generation, remaining_s=remaining_s, now=now, jitter=jitter)
