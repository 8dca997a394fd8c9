"""Which correlation ids have been used, in Redis: one key for each, for as long as a cut submission may be looked for.

Rules
- An id belongs to the first submission that used it. Used by a second one, it belongs to neither: what is found under
  it upstream may be the other's.
- `use` says the same again when it is repeated by the same owner, until somebody else has used the id.
- Keys are digests of ids, and every key has a TTL.
"""

from dataclasses import dataclass
from typing import Final

from gateway.sealing import Sealing
from gateway.store import Script, ScriptRunner

_PREFIX: Final = "eg:id:"
NOTED_S: Final = 3600

# ARGV: owner, life
_USE: Final = Script.of(
    """
local held = redis.call('GET', KEYS[1])
local is_ours = not held or held == ARGV[1]
redis.call('SET', KEYS[1], is_ours and ARGV[1] or '*', 'PX', ARGV[2])
return is_ours and 1 or 0
""",
)


@dataclass(frozen=True, slots=True)
class IdStore:
    """Correlation ids, shared by every replica that has the same key ring."""

    runner: ScriptRunner
    sealing: Sealing

    async def use(self, correlation_id: str, owner: str) -> bool:
        """Use an id; return whether this owner is the only one that has. Raises StoreUnavailable."""
        key = (_PREFIX + self.sealing.name("correlation", correlation_id)).encode()
        return bool(await self.runner.run(_USE, key, owner, NOTED_S * 1000))
