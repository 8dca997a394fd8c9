"""The keeper of the token: who asks the issuer, when, and what is done while it is silent."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from gateway.connect import connect
from gateway.exchange import Exchange, Inbound, Outbound, Reply
from gateway.policy.model import Match, Policy
from gateway.sealing import Key, Sealing
from gateway.store import Argument, Script, Store, StoreUnavailable
from gateway.token.client import TokenClient
from gateway.token.life import Answer, Cause, Issued, NotIssued
from gateway.token.step import Sources, TokenKeeper, TokenNotIssued, TokenStep
from gateway.token.store import TokenStore

SEALING = Sealing([Key("test", bytes(32))])


@dataclass(slots=True)
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Issuer:
    """Gives numbered tokens, or what it is told to; hangs while `silent` is set."""

    life_s: float = 3600.0
    instead: NotIssued | None = None
    asked: int = 0
    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(self) -> Answer:
        self.asked += 1
        await self.speaks.wait()
        return self.instead or Issued(f"token-{self.asked}", self.life_s)


@dataclass(slots=True)
class Flaky:
    """A connection whose next answers are lost after the server has carried out what was asked."""

    store: Store
    lost: int = 0

    async def run(self, script: Script, key: bytes, *arguments: Argument) -> Any:  # noqa: ANN401 - what Lua returns
        answer = await self.store.run(script, key, *arguments)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("timeout")
        return answer


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[Flaky]:
    store = Store(connect(redis_url, 5), on_error=lambda _: None, answer_s=5)
    yield Flaky(store)
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.speaks.set()
    return issuer


Make = Callable[[], TokenKeeper]


@pytest.fixture
def keeper_of(connection: Flaky, clock: Clock, issuer: Issuer) -> Make:
    ids = itertools.count()

    def make() -> TokenKeeper:
        sources = Sources(now=clock, jitter=lambda: 0.5, new_id=lambda: f"id-{next(ids)}", on_fetch=lambda _: None)
        return TokenKeeper(TokenStore(connection, SEALING, "issuer"), cast("TokenClient", issuer), sources)

    return make


async def test_in_the_margin_before_expiry_nobody_waits_for_an_issuer_that_hangs(
    keeper_of: Make,
    clock: Clock,
    issuer: Issuer,
) -> None:
    issuer.life_s = 60.0  # usable for 30 s, valid for 60
    keeper = keeper_of()
    first = await keeper.obtain()
    issuer.speaks.clear()
    clock.now += 45.0
    async with asyncio.timeout(5):
        assert await keeper.obtain() == first
    clock.now += 16.0
    waiting = asyncio.ensure_future(keeper.obtain())
    issuer.speaks.set()
    assert (await waiting).secret != first.secret


async def test_a_lost_answer_to_a_claim_costs_neither_a_second_token_nor_a_wait(
    keeper_of: Make,
    connection: Flaky,
    issuer: Issuer,
) -> None:
    connection.lost = 1
    first = await keeper_of().obtain()
    async with asyncio.timeout(5):  # far less than a lease
        second = await keeper_of().obtain()
    assert (first.secret, second.secret, issuer.asked) == ("token-1", "token-1", 1)


async def test_without_redis_each_replica_asks_for_itself(
    keeper_of: Make,
    connection: Flaky,
    issuer: Issuer,
) -> None:
    connection.lost = 10**6
    keepers = [keeper_of(), keeper_of()]
    tokens = await asyncio.gather(*(keeper.obtain() for keeper in keepers for _ in range(20)))
    assert len({token.secret for token in tokens}) == 2
    assert issuer.asked == 2


async def test_an_issuer_that_refuses_is_left_alone_by_everyone(keeper_of: Make, clock: Clock, issuer: Issuer) -> None:
    issuer.instead = NotIssued(Cause.REFUSED)
    keepers = [keeper_of(), keeper_of()]
    for keeper in (*keepers, *keepers):
        with pytest.raises(TokenNotIssued) as caught:
            await keeper.obtain()
        assert 0 < caught.value.wait_s <= 5.0
    assert issuer.asked == 1
    clock.now += 4.0
    with pytest.raises(TokenNotIssued):
        await keepers[0].obtain()
    assert issuer.asked == 1


def exchange() -> Exchange:
    inbound = Inbound(method="GET", raw_target="/", headers=CIMultiDict(), raw_headers=(), body=b"")
    return Exchange(
        inbound=inbound,
        correlation_id="c",
        started_at=0.0,
        policy=Policy(match=Match.model_validate({"operations": ["*"]})),
    )


async def test_an_old_token_that_redis_still_has_is_not_taken_for_a_fresh_one_that_is_refused(
    keeper_of: Make,
    connection: Flaky,
    clock: Clock,
) -> None:
    """A replica that fetched alone, and a Redis with an older token: both revoked. The third must be good."""
    old = keeper_of()
    await old.obtain()  # token-1, in Redis
    replica = keeper_of()
    connection.lost = 10**6
    await replica.obtain()  # token-2, in memory only: its publication was not heard of
    connection.lost = 0
    clock.now += 10.0
    good = {"token-3", "token-4"}

    async def upstream(_: Exchange, outbound: Outbound, /) -> Reply:
        is_good = outbound.headers["Authorization"].removeprefix("Bearer ") in good
        return Reply(status=200 if is_good else 401, reason="", headers=CIMultiDict(), body=b"")

    step = TokenStep(replica, clock)
    outbound = Outbound(method="GET", raw_target="/", headers=CIMultiDict(), body=b"")
    statuses = [(await step(upstream, exchange(), outbound)).status for _ in range(3)]
    assert statuses[-1] == 200
    assert statuses.count(401) <= 1
