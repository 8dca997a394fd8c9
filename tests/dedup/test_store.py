"""Flights in Redis, on every kind of server: each branch of the Lua steps, and values that are not ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.connect import Client, close_client
from gateway.dedup.fleet import Fleet, Followed, Replayed, Sources, Terms
from gateway.dedup.flights import Flights, Led
from gateway.dedup.replay import NoAnswer, Shared
from gateway.dedup.store import CHANNEL, Finish, Finished, FlightStore, Kept, Landed, Lead, Spent, Times, Wait
from gateway.dedup.window import window_of
from gateway.exchange import Reply
from gateway.policy.model import DedupClause
from gateway.sealing import Sealing, new_key
from gateway.store import Script, ScriptRunner, Store, StoreUnavailable
from gateway.subscription import Subscription
from tests.running import eventually

KEY, OTHER = b"eg:flight:one", b"eg:flight:two"
WINDOW = window_of(DedupClause.model_validate({"mode": "enforce", "window": "1h", "exclude_prior_month": False}))
FACT = Shared(status=200, reason="OK", headers=(), parts=(b"{}",), outcome="eligible")
RING = [new_key("k")]
Replica = tuple[Fleet, Flights]


@pytest.fixture
async def runner(any_server: Callable[[], Client]) -> AsyncIterator[Store]:
    store = Store(any_server(), on_error=lambda _: None, answer_s=5)
    yield store
    await store.close()


@pytest.fixture
def unusable() -> list[None]:
    return []


@pytest.fixture
def store(runner: Store, unusable: list[None]) -> FlightStore:
    return FlightStore(runner, runner, Sealing(RING), lambda: unusable.append(None), Times(lease_s=15))


async def keep(store: FlightStore, key: bytes = KEY, owner: str = "a", at: float = 0.0) -> Finished:
    at = at or await store.now(key)
    sealed = store.seal(key, FACT, at)
    return await store.finish(key, owner, Finish.KEEP, sealed, answered_at=at, keep_s=60)


async def test_of_many_who_claim_one_leads_and_all_get_its_answer(store: FlightStore) -> None:
    claims = await asyncio.gather(*(store.claim(KEY, f"o{i}") for i in range(30)))
    assert [type(one) for one in claims].count(Lead) == 1
    leader = next(f"o{i}" for i, one in enumerate(claims) if isinstance(one, Lead))
    assert {one.owner for one in claims if isinstance(one, Wait)} == {leader}
    assert await store.renew(KEY, leader)
    assert not await store.renew(KEY, "stranger")
    assert await keep(store, owner="stranger") is Finished.LOST
    assert await keep(store, owner=leader) is Finished.KEPT
    assert await keep(store, owner=leader) is Finished.KEPT
    kept = await store.claim(KEY, "late")
    assert isinstance(kept, Kept)
    assert (kept.landing, kept.owner) == (FACT, leader)
    assert isinstance(await store.claim(KEY, "late", unwanted=leader), Lead)


async def test_what_is_only_shared_goes_to_those_who_waited_for_it(store: FlightStore) -> None:
    await store.claim(KEY, "a")
    lost = NoAnswer("upstream_timeout", "c-1")
    sealed = store.seal(KEY, lost, 1.0)
    assert await store.finish(KEY, "a", Finish.SHARE, sealed, answered_at=1, keep_s=0) is Finished.SHARED
    for waiting in ("b", "b", "d"):
        landed = await store.claim(KEY, waiting, waited="a")
        assert isinstance(landed, Landed)
        assert landed.landing == lost
        assert landed.age_s >= 0
        assert isinstance(await store.claim(KEY, "c", waited="somebody"), Lead)


async def test_after_an_abandoned_flight_one_leads_at_once_and_two_are_enough(store: FlightStore) -> None:
    for number, owner in enumerate(("a", "b"), start=1):
        claim = await store.claim(KEY, owner)
        assert isinstance(claim, Lead)
        assert claim.attempt == number
        await store.abandon(KEY, "stranger")
        await store.abandon(KEY, owner)
    spent = await store.claim(KEY, "c")
    assert isinstance(spent, Spent)
    assert 0 < spent.wait_s <= 150


async def test_a_fresh_answer_replaces_an_older_one_and_no_flight(store: FlightStore) -> None:
    now = await store.now(KEY)
    sealed = store.seal(KEY, FACT, now)
    await store.claim(KEY, "a")
    assert await store.finish(KEY, "f", Finish.FRESH, sealed, answered_at=now, keep_s=60) is Finished.LOST
    assert await keep(store, at=now) is Finished.KEPT
    assert await store.finish(KEY, "f", Finish.FRESH, sealed, answered_at=now - 9, keep_s=60) is Finished.LOST
    assert await store.finish(KEY, "f", Finish.FRESH, sealed, answered_at=now + 9, keep_s=60) is Finished.KEPT
    claim = await store.claim(KEY, "b")
    assert isinstance(claim, Kept)
    assert claim.owner == "f"


async def test_what_is_forgotten_is_gone_and_what_is_under_way_is_not_kept(store: FlightStore, runner: Store) -> None:
    await store.claim(KEY, "a")
    await keep(store)
    await store.claim(OTHER, "a")
    found = sorted([key async for key in runner.scan(b"eg:flight:*")])
    assert found == [KEY, OTHER]
    assert [await store.forget(key) for key in found] == [True, False]
    assert isinstance(await store.claim(KEY, "b"), Lead)
    assert await keep(store, OTHER) is Finished.SHARED
    assert isinstance(await store.claim(OTHER, "b"), Lead)


async def test_a_value_that_is_not_ours_is_a_miss_and_is_counted(
    store: FlightStore, unusable: list[None], any_server: Callable[[], Client]
) -> None:
    client = any_server()
    await keep(store)
    await keep(store, OTHER)
    mine: Any = await client.hget(KEY.decode(), "val")
    foreign = Sealing([new_key("k")]).seal(KEY, b"x")
    unknown = Sealing([new_key("other")]).seal(KEY, b"x")
    unpackable = Sealing(RING).seal(KEY, b"x")
    theirs: Any = await client.hget(OTHER.decode(), "val")
    torn, bent = mine[:-1], mine[:-1] + bytes([mine[-1] ^ 1])
    for number, value in enumerate((torn, bent, b"", b"x", foreign, unknown, unpackable, theirs)):
        await keep(store, owner="a")
        await client.hset(KEY.decode(), "val", value)
        assert isinstance(await store.claim(KEY, "b"), Lead), number
        assert len(unusable) == number + 1
        await client.delete(KEY.decode())
    await close_client(client)


@pytest.mark.parametrize("fields", [{"st": "P"}, {"st": "C"}, {"st": "P", "own": "x", "try": "no", "dl": "no"}])
async def test_a_hash_that_is_not_ours_is_no_answer_and_no_crash(
    fields: dict[str, Any], store: FlightStore, any_server: Callable[[], Client]
) -> None:
    client = any_server()
    for name, value in fields.items():
        await client.hset(KEY.decode(), name, value)
    with pytest.raises(StoreUnavailable):
        await store.claim(KEY, "a")
    await client.delete(KEY.decode())
    await client.set(KEY.decode(), "a string")
    with pytest.raises(StoreUnavailable):
        await store.claim(KEY, "a")
    await close_client(client)


@pytest.fixture
async def replicas(store: FlightStore) -> tuple[Replica, Replica]:
    owners = iter(f"owner-{i}" for i in range(9))
    sources = Sources(
        now=asyncio.get_running_loop().time,
        jitter=lambda: 0.5,
        new_id=lambda: next(owners),
        on_lost_lease=lambda: None,
        on_takeover=lambda: None,
        on_stored=lambda _: None,
    )
    one, two = (Fleet(store, sources) for _ in range(2))
    return (one, Flights(one, sources)), (two, Flights(two, sources))


def asking() -> Terms:
    return Terms(key=KEY, group="one", window=WINDOW, correlation_id="c", may_bypass_store=False)


def unheard() -> None:
    """Nobody wants to know when a wait begins."""


class Payer:
    """A call that lasts until it is let go, and then states this outcome."""

    def __init__(self, outcome: str) -> None:
        self.body = b'{"id": "t", "status": {"value": "%b"}}' % outcome.encode()
        self.called, self.release = asyncio.Event(), asyncio.Event()
        self.calls = 0

    async def __call__(self) -> Reply:
        self.calls += 1
        self.called.set()
        await self.release.wait()
        headers = CIMultiDict({"Content-Type": "application/json"})
        return Reply(status=200, reason="OK", headers=headers, body=self.body)

    async def called_by(self, request: asyncio.Task[Any]) -> None:
        """Return when it was called; raise what ended the request before that."""
        called = asyncio.create_task(self.called.wait())
        await asyncio.wait({called, request}, return_when=asyncio.FIRST_COMPLETED)
        if not called.done():
            called.cancel()
            raise AssertionError(f"not called, but {await request}")


NO_ANSWER = NoAnswer("upstream_timeout", "c-1")


async def never() -> Reply:
    raise AssertionError("one call is enough")


async def test_two_replicas_make_one_call_and_the_message_wakes_the_other(
    replicas: tuple[Replica, Replica], any_server: Callable[[], Client]
) -> None:
    (_, one), (fleet, two) = replicas
    subscribed, heard = asyncio.Event(), asyncio.Event()

    def on_message(key: bytes) -> None:
        assert key == KEY
        fleet.wake(key)
        heard.set()

    listener = Subscription(any_server(), CHANNEL, on_message=on_message, on_subscribed=subscribed.set)
    listener.start()
    await subscribed.wait()
    payer = Payer("eligible")
    led = asyncio.create_task(one.answer(asking(), payer, unheard))
    await payer.called_by(led)
    followed = asyncio.create_task(two.answer(asking(), never, unheard))
    await eventually(lambda: asyncio.sleep(0, two.count))
    payer.release.set()
    assert isinstance(await led, Led)
    assert isinstance(await followed, Followed)
    await heard.wait()
    assert isinstance(await two.answer(asking(), never, unheard), Replayed)
    await listener.close()
    await asyncio.gather(one.close(), two.close())


async def later_than(store: FlightStore, at: float) -> bool:
    """Whether the server's clock, which counts milliseconds, has clearly moved on."""
    return await store.now(KEY) > at + 0.005


async def test_what_is_no_fact_is_not_for_those_who_came_before_word_of_it(
    replicas: tuple[Replica, Replica], store: FlightStore
) -> None:
    (_, one), (fleet, two) = replicas
    payer, later = Payer("payer_unavailable"), Payer("eligible")
    led = asyncio.create_task(one.answer(asking(), payer, unheard))
    await payer.called_by(led)
    followed = asyncio.create_task(two.answer(asking(), never, unheard))
    await eventually(lambda: asyncio.sleep(0, two.count))
    payer.release.set()
    await led
    landed_by = await store.now(KEY)
    await eventually(lambda: later_than(store, landed_by))
    late = asyncio.create_task(two.answer(asking(), later, unheard))  # nobody has told the second replica yet
    await eventually(lambda: asyncio.sleep(0, two.followers))
    fleet.wake(KEY)
    outcome = await followed
    assert isinstance(outcome, Followed)
    assert isinstance(outcome.landing, Shared)
    assert outcome.landing.outcome == "payer_unavailable"
    later.release.set()
    assert isinstance(await late, Led)
    assert (payer.calls, later.calls) == (1, 1)
    await asyncio.gather(one.close(), two.close())


async def test_every_key_expires(store: FlightStore, any_server: Callable[[], Client]) -> None:
    client = any_server()
    await store.claim(KEY, "a")
    assert 0 < await client.pttl(KEY.decode()) <= 150_000
    await keep(store)
    assert 0 < await client.pttl(KEY.decode()) <= 60_000
    await close_client(client)


async def test_whoever_was_reminded_gets_the_landing_once_and_nobody_else_does(store: FlightStore) -> None:
    await store.claim(KEY, "a")
    await store.remind(KEY, "scheduling")
    await store.finish(KEY, "a", Finish.SHARE, store.seal(KEY, NO_ANSWER, 1.0), answered_at=1.0, keep_s=0)

    assert isinstance(await store.claim(KEY, "b", caller="scheduling"), Landed)
    assert isinstance(await store.claim(KEY, "b", caller="scheduling"), Landed)  # its first answer may have been lost
    assert isinstance(await store.claim(KEY, "c", caller="billing"), Lead)
    assert isinstance(await store.claim(KEY, "d", caller="scheduling"), Wait)


async def test_whoever_is_reminded_a_moment_too_late_gets_it_as_well(store: FlightStore) -> None:
    await store.claim(KEY, "a")
    await store.finish(KEY, "a", Finish.SHARE, store.seal(KEY, NO_ANSWER, 1.0), answered_at=1.0, keep_s=0)
    await store.remind(KEY, "scheduling")

    assert isinstance(await store.claim(KEY, "b", caller="scheduling"), Landed)


async def test_of_another_flight_nobody_was_reminded(store: FlightStore) -> None:
    await store.remind(KEY, "scheduling")  # there is none
    await store.claim(KEY, "a")
    await store.remind(KEY, "scheduling")
    await store.abandon(KEY, "a")
    await store.claim(KEY, "successor")
    await store.finish(KEY, "successor", Finish.SHARE, store.seal(KEY, NO_ANSWER, 1.0), answered_at=1.0, keep_s=0)

    assert isinstance(await store.claim(KEY, "b", caller="scheduling"), Lead)


class Gated:
    """Runs scripts once the gate is open."""

    def __init__(self, runner: ScriptRunner, gate: asyncio.Event) -> None:
        self._runner = runner
        self._gate = gate

    async def run(self, script: Script, key: bytes, *arguments: bytes | str | int) -> Any:  # noqa: ANN401 - Lua's
        await self._gate.wait()
        return await self._runner.run(script, key, *arguments)


async def test_whoever_begins_a_flight_and_waits_no_longer_takes_nothing_from_those_who_joined(
    store: FlightStore, replicas: tuple[Replica, Replica]
) -> None:
    gate = asyncio.Event()
    (fleet, flights), _ = replicas
    fleet._store = replace(store, runner=Gated(store.runner, gate))
    payer = Payer("eligible")
    payer.release.set()
    began = asyncio.create_task(flights.answer(asking(), payer, unheard))
    await asyncio.sleep(0)
    joined = asyncio.create_task(flights.answer(asking(), never, unheard))
    await eventually(lambda: asyncio.sleep(0, flights.followers))
    began.cancel()
    await asyncio.gather(began, return_exceptions=True)
    gate.set()

    assert isinstance(await joined, Followed)
    assert payer.calls == 1
    assert isinstance(await flights.answer(asking(), never, unheard), Replayed)
    await flights.close()
