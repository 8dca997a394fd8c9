from redis.asyncio import Redis

from gateway.recovery.store import IdStore
from gateway.sealing import Sealing, new_key
from gateway.store import Script


class Direct:
    """Runs a script on a client, as the store does."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def run(self, script: Script, key: bytes, *arguments: bytes | str | float) -> object:
        return await self._redis.eval(script.source, 1, key, *arguments)


async def test_an_id_belongs_to_its_first_user_until_another_uses_it(redis: Redis) -> None:
    ids = IdStore(Direct(redis), Sealing([new_key("k")]))

    assert await ids.use("visit-1", "one")
    assert await ids.use("visit-1", "one")  # repeated, it says the same
    assert await ids.use("visit-2", "two")
    assert not await ids.use("visit-1", "two")
    assert not await ids.use("visit-1", "one")
    assert not await ids.use("visit-1", "three")


async def test_an_id_is_not_readable_in_redis_and_is_forgotten(redis: Redis) -> None:
    await IdStore(Direct(redis), Sealing([new_key("k")])).use("visit-1", "one")

    (key,) = await redis.keys("*")
    assert b"visit" not in key
    assert 0 < await redis.pttl(key) <= 3_600_000
