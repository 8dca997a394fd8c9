"""Whose turn it is, in a loop of the test's own and by a clock that the test sets."""

import asyncio
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.callers.turns import Turns
from gateway.errors import Overloaded, TooManyRequests
from gateway.exchange import Exchange, Inbound
from gateway.policy.callers import Caller, CallerEntry
from tests.running import eventually

PATIENT: dict[str, Any] = {"wait": "60s"}


class House:
    """Turns for callers with these limits."""

    def __init__(self, places: int, **limits: dict[str, Any]) -> None:
        self.turns = Turns(places, now=asyncio.get_running_loop().time, measured=asyncio.get_running_loop().time)
        self.adopt(**limits)

    def adopt(self, **limits: dict[str, Any]) -> None:
        self.callers = {
            name: Caller(name=name, entry=CallerEntry.model_validate({"limits": stated}))
            for name, stated in limits.items()
        }
        self.turns.adopt(self.callers)

    def asks_for_a_token(self) -> tuple[Exchange, asyncio.Task[None]]:
        inbound = Inbound(method="POST", raw_target="/", headers=CIMultiDict(), raw_headers=(), body=b"")
        exchange = Exchange(inbound=inbound, correlation_id="c", started_at=0.0)
        return exchange, asyncio.create_task(self.turns.take(exchange))

    def comes(self, name: str) -> tuple[Exchange, asyncio.Task[None]]:
        inbound = Inbound(method="POST", raw_target="/", headers=CIMultiDict(), raw_headers=(), body=b"")
        exchange = Exchange(inbound=inbound, correlation_id="c", started_at=0.0, caller=self.callers[name])
        return exchange, asyncio.create_task(self.turns.take(exchange))

    async def let_in(self, name: str, count: int) -> list[Exchange]:
        came = [self.comes(name) for _ in range(count)]
        await asyncio.gather(*(task for _, task in came))
        return [exchange for exchange, _ in came]


async def test_without_limits_everybody_is_let_in_at_once() -> None:
    house = House(100, a={}, b={})
    held = await house.let_in("a", 40) + await house.let_in("b", 9)
    for one in held:
        house.turns.over(one)
    assert house.turns.queued == 0


async def test_who_is_over_its_limit_waits_for_one_of_its_own_to_end() -> None:
    house = House(100, a={"in_flight": 2, **PATIENT}, b={})
    first, _ = await house.let_in("a", 2)
    _, waiting = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 1))
    (other,) = await house.let_in("b", 1)
    house.turns.over(other)
    await asyncio.sleep(0)
    assert not waiting.done()
    house.turns.over(first)
    await waiting


@pytest.mark.parametrize("limits", [{"queue": 0}, {"wait": "0s"}, {"wait": "1ms"}])
async def test_who_may_not_wait_or_waits_too_long_is_refused_and_hears_of_its_limits(limits: dict[str, Any]) -> None:
    house = House(100, a={"in_flight": 1, **limits})
    (holding,) = await house.let_in("a", 1)
    with pytest.raises(TooManyRequests) as told:
        await house.let_in("a", 1)
    assert told.value.problem.headers["Retry-After"] == "1"
    assert "concurrent-requests" in told.value.problem.headers["RateLimit-Policy"]
    assert house.turns.queued == 0
    house.turns.over(holding)
    await house.let_in("a", 1)


async def test_the_queue_has_an_end() -> None:
    house = House(100, a={"in_flight": 1, "queue": 3, **PATIENT})
    (holding,) = await house.let_in("a", 1)
    waiting = [house.comes("a") for _ in range(3)]
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 3))
    with pytest.raises(TooManyRequests):
        await house.let_in("a", 1)
    house.turns.over(holding)
    for exchange, task in waiting:  # in the order in which they came
        await task
        house.turns.over(exchange)


async def test_a_rate_lets_a_burst_through_and_then_one_after_the_other() -> None:
    house = House(100, a={"rate": "200/s", "burst": 5, **PATIENT})
    began_at = asyncio.get_running_loop().time()
    await house.let_in("a", 45)
    assert asyncio.get_running_loop().time() - began_at >= 0.19  # 40 of them at 200 a second
    assert house.turns.queued == 0


async def test_a_rate_that_is_far_off_says_when_to_come_again() -> None:
    house = House(100, a={"rate": "2/m", "burst": 1, "wait": "0s"})
    await house.let_in("a", 1)
    with pytest.raises(TooManyRequests) as told:
        await house.let_in("a", 1)
    assert told.value.problem.headers["Retry-After"] == "30"
    assert told.value.problem.headers["RateLimit"] == '"rate";r=0;t=30'


async def test_a_full_house_is_no_fault_of_who_comes() -> None:
    house = House(2, a={"wait": "1ms"}, b={"wait": "1ms"})
    await house.let_in("a", 2)
    with pytest.raises(Overloaded):
        await house.let_in("b", 1)


async def test_a_storm_leaves_room_and_those_who_wait_are_served_in_turn() -> None:
    house = House(10, storm={"queue": 1000, **PATIENT}, calm=PATIENT)
    storm = [house.comes("storm") for _ in range(100)]
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 92))
    calm = await house.let_in("calm", 2)  # at once: two places were left
    late = [house.comes("calm") for _ in range(3)]
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 95))
    under_way = [exchange for exchange, task in storm if task.done()]
    for exchange in (*under_way, *calm):
        house.turns.over(exchange)
    await asyncio.gather(*(task for _, task in late))  # though 92 of the storm came before them
    assert sum(task.done() for _, task in storm) < 20
    for _, task in storm:
        task.cancel()


async def test_whoever_leaves_the_queue_leaves_its_place_to_others() -> None:
    house = House(100, a={"in_flight": 1, **PATIENT})
    (holding,) = await house.let_in("a", 1)
    _, leaving = house.comes("a")
    exchange, staying = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 2))
    leaving.cancel()
    await asyncio.wait({leaving})
    house.turns.over(holding)
    await staying
    house.turns.over(exchange)
    await house.let_in("a", 1)


async def test_whoever_leaves_in_the_moment_of_its_turn_loses_no_place() -> None:
    house = House(100, a={"in_flight": 1, **PATIENT})
    (holding,) = await house.let_in("a", 1)
    _, leaving = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 1))
    house.turns.over(holding)
    leaving.cancel()
    await asyncio.wait({leaving})
    await house.let_in("a", 1)


async def test_other_limits_hold_at_once_and_let_in_who_waits() -> None:
    house = House(100, a={"in_flight": 1, **PATIENT}, gone={})
    await house.let_in("a", 1)
    await house.let_in("gone", 1)
    _, waiting = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 1))
    house.adopt(a={"in_flight": 2, **PATIENT})
    await waiting
    house.adopt(a={"rate": "1/h", "wait": "0s"})
    await house.let_in("a", 1)
    with pytest.raises(TooManyRequests):
        await house.let_in("a", 1)


async def test_a_request_that_had_no_place_gives_none_back() -> None:
    house = House(1, a={"wait": "0s"})
    (holding,) = await house.let_in("a", 1)
    stranger, task = house.comes("a")
    with pytest.raises(Overloaded):
        await task
    house.turns.over(stranger)
    with pytest.raises(Overloaded):
        await house.let_in("a", 1)
    house.turns.over(holding)
    house.turns.over(holding)
    await house.let_in("a", 1)
    with pytest.raises(Overloaded):
        await house.let_in("a", 1)


async def test_whoever_leaves_while_it_waits_is_out_of_the_queue_at_once() -> None:
    house = House(100, a={"in_flight": 1, "queue": 1, **PATIENT})
    (holding,) = await house.let_in("a", 1)
    exchange, waiting = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 1))
    house.turns.left(exchange)
    with pytest.raises(Overloaded):
        await waiting
    assert house.turns.queued == 0
    house.turns.left(holding)  # who has a place keeps it until its call has ended
    _, next_one = house.comes("a")
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 1))
    house.turns.over(holding)
    await next_one


async def test_strangers_who_ask_for_tokens_take_a_twentieth_of_the_places() -> None:
    house = House(100, a={}, b={})
    strangers = [house.asks_for_a_token() for _ in range(50)]
    await eventually(lambda: asyncio.sleep(0, house.turns.queued == 45))
    await house.let_in("a", 50)
    for exchange, task in strangers:
        await task
        house.turns.over(exchange)
    house.adopt(a={})
    exchange, task = house.asks_for_a_token()
    await task
    await house.turns.take(exchange)  # it has its place
    house.turns.over(exchange)
