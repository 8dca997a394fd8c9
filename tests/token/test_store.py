"""The fleet's token in Redis: one who fetches, one token, and never one that was found wanting."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway.connect import connect
from gateway.sealing import Key, Sealing
from gateway.store import Store
from gateway.token.life import Cause, Issued, Token, begin, usable_life_s
from gateway.token.store import Blocked, Claim, Lead, Stored, TokenStore, Wait

SEALING = Sealing([Key("test", bytes(32))])
HOUR = Issued("the-secret", 3600.0)


def token(generation: str, issued: Issued = HOUR) -> Token:
    return begin(issued, generation, remaining_s=usable_life_s(issued.life_s), now=0.0, jitter=0.5)


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[Store]:
    store = Store(connect(redis_url, 5), on_error=lambda _: None, answer_s=5)
    yield store
    await store.close()


@pytest.fixture
def store(connection: Store) -> TokenStore:
    return TokenStore(connection, SEALING, "issuer", "client", "secret")


async def claim(store: TokenStore, owner: str, unwanted: str = "") -> Claim:
    return await store.claim(owner, unwanted, now=100.0, jitter=0.0)


async def test_of_many_who_claim_exactly_one_leads(store: TokenStore) -> None:
    claims = await asyncio.gather(*(claim(store, f"owner-{i}") for i in range(50)))
    assert [type(one) for one in claims].count(Lead) == 1
    assert [type(one) for one in claims].count(Wait) == 49


async def test_who_leads_hears_so_again_when_its_first_answer_was_lost(store: TokenStore) -> None:
    assert await claim(store, "a") == Lead()
    assert await claim(store, "a") == Lead()
    assert isinstance(await claim(store, "b"), Wait)


async def test_what_one_publishes_all_others_get(store: TokenStore) -> None:
    await claim(store, "a")
    await store.publish("a", token("g1"), life_s=3600.0)
    for owner in ("a", "b"):
        found = await claim(store, owner)
        assert isinstance(found, Stored)
        assert (found.token.secret, found.token.generation) == ("the-secret", "g1")
        assert found.token.usable_until == pytest.approx(100.0 + usable_life_s(3600.0), abs=5)


async def test_a_generation_that_is_unwanted_is_not_given_again(store: TokenStore) -> None:
    await claim(store, "a")
    await store.publish("a", token("g1"), life_s=3600.0)
    assert await claim(store, "b", unwanted="g1") == Lead()
    assert isinstance(await claim(store, "c"), Stored), "whoever does not mind it may use it meanwhile"


async def test_only_the_generation_that_failed_is_voided(store: TokenStore) -> None:
    await claim(store, "a")
    await store.publish("a", token("g2"), life_s=3600.0)
    await store.void("g1")
    assert isinstance(await claim(store, "b"), Stored)
    await store.void("g2")
    assert await claim(store, "b") == Lead()


async def test_who_has_lost_its_lease_does_not_overwrite_its_successor(store: TokenStore, redis: Redis) -> None:
    await claim(store, "a")
    (key,) = await redis.keys("eg:token:*")
    await redis.hset(key, "lease", 1)  # long ago on the server's clock
    assert await claim(store, "b") == Lead()
    await store.publish("a", token("late"), life_s=3600.0)
    assert isinstance(await claim(store, "c"), Wait)
    await store.publish("b", token("right"), life_s=3600.0)
    found = await claim(store, "c")
    assert isinstance(found, Stored)
    assert found.token.generation == "right"


async def test_a_refusal_blocks_everyone_and_longer_each_time(store: TokenStore, redis: Redis) -> None:
    waits = []
    for owner in ("a", "b", "c"):
        assert await claim(store, owner) == Lead()
        waits.append(await store.block(owner, Cause.REFUSED, 0.0))
        blocked = await claim(store, "other")
        assert isinstance(blocked, Blocked)
        assert blocked.cause is Cause.REFUSED
        (key,) = await redis.keys("eg:token:*")
        await redis.hset(key, "blocked", 1)  # the wait is over
    assert waits == [5.0, 10.0, 20.0]


async def test_a_token_ends_the_count_of_failures(store: TokenStore, redis: Redis) -> None:
    await claim(store, "a")
    await store.block("a", Cause.UNAVAILABLE, 0.0)
    (key,) = await redis.keys("eg:token:*")
    await redis.hset(key, "blocked", 1)
    await claim(store, "a")
    await store.publish("a", token("g1"), life_s=3600.0)
    await store.void("g1")
    await claim(store, "a")
    assert await store.block("a", Cause.UNAVAILABLE, 0.0) == 1.0


async def test_a_block_repeated_by_its_owner_counts_once(store: TokenStore) -> None:
    await claim(store, "a")
    assert await store.block("a", Cause.REFUSED, 0.0) == 5.0
    again = await store.block("a", Cause.REFUSED, 0.0)
    assert again is not None
    assert 0 < again <= 5.0


async def test_who_has_no_lease_blocks_nobody(store: TokenStore) -> None:
    await claim(store, "a")
    assert await store.block("b", Cause.REFUSED, 0.0) is None
    assert isinstance(await claim(store, "c"), Wait)


async def test_every_key_ends_by_itself_and_holds_nothing_readable(store: TokenStore, redis: Redis) -> None:
    async def holds() -> None:
        for key in await redis.keys("*"):
            assert await redis.pttl(key) > 0
            assert "the-secret" not in repr(await redis.hgetall(key)) + repr(key)

    await claim(store, "a")
    await holds()
    await store.block("a", Cause.REFUSED, 0.0)
    await holds()
    await store.publish("a", token("g1"), life_s=3600.0)
    await holds()


async def test_a_tampered_swapped_or_foreign_token_is_a_miss(
    store: TokenStore,
    connection: Store,
    redis: Redis,
) -> None:
    other = TokenStore(connection, SEALING, "issuer", "another-client", "secret")
    await claim(other, "x")
    await other.publish("x", token("of-another", Issued("anothers-secret", 3600.0)), life_s=3600.0)
    (others_key,) = await redis.keys("eg:token:*")
    await claim(store, "a")
    await store.publish("a", token("g1"), life_s=3600.0)
    (key,) = set(await redis.keys("eg:token:*")) - {others_key}
    value = await redis.hget(key, "val")
    assert isinstance(value, bytes)
    foreign = await redis.hget(others_key, "val")
    for bad in (value[:-1], value[:-1] + bytes([value[-1] ^ 1]), b"", foreign):
        await redis.hset(key, "val", bad)
        await redis.hset(key, "gen", "g1")
        await redis.hset(key, "until", 10**14)
        assert await claim(store, "b") == Lead()
        await redis.hdel(key, "own", "lease")


async def test_another_secret_is_another_key(store: TokenStore, connection: Store) -> None:
    await claim(store, "a")
    await store.publish("a", token("g1"), life_s=3600.0)
    rotated = TokenStore(connection, SEALING, "issuer", "client", "new-secret")
    assert await claim(rotated, "a") == Lead()
