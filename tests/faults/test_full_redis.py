"""A Redis that is full takes nothing more, however it is asked."""

import asyncio
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from gateway.connect import connect
from gateway.dedup.store import Finish, Finished, FlightStore, Lead
from gateway.embedded import EmbeddedValkey
from gateway.sealing import Sealing, new_key
from gateway.store import Store

ROOM_BYTES = 4_000_000
ANSWERS = 100


async def keep(store: FlightStore, key: bytes) -> None:
    assert isinstance(await store.claim(key, "a"), Lead)
    sealed = store.sealing.seal(key, b"x" * 200_000)  # as large as what cannot be compressed
    assert await store.finish(key, "a", Finish.KEEP, sealed, answered_at=1, keep_s=60) is Finished.KEPT


async def test_answers_are_refused_when_there_is_no_room_for_them(own_valkey: EmbeddedValkey) -> None:
    # Time enough for twenty million bytes on any machine: what is slow is another test's.
    runner = Store(connect(own_valkey.url, 60), on_error=lambda _: None, answer_s=60)
    store = FlightStore(runner, runner, Sealing([new_key("k")]), lambda: None)
    async with Redis.from_url(own_valkey.url) as client, AsyncExitStack() as stack:
        stack.push_async_callback(runner.close)
        used: int = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + ROOM_BYTES)
        answers = [asyncio.ensure_future(keep(store, b"eg:flight:%d" % number)) for number in range(ANSWERS)]
        await asyncio.wait(answers)
        refused = [str(one.exception()) for one in answers if one.exception() is not None]
        assert 0 < len(refused) < ANSWERS
        assert set(refused) == {"full"}
        assert (await client.info("memory"))["used_memory"] < used + ROOM_BYTES + 1_000_000
