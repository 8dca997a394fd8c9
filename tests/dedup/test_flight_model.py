"""The Lua steps against a model in Python: whatever is lost, repeated or late, and whoever dies.

The scripts run on the real server; only `TIME` is replaced by a clock that the test moves. Invariants are numbered as
in the docstrings below.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis as SyncRedis

from gateway.dedup.replay import Shared
from gateway.dedup.store import Finish, Finished, FlightStore, Kept, Landed, Lead, Spent, Times, Wait
from gateway.embedded import EmbeddedValkey
from gateway.sealing import Sealing, new_key
from gateway.store import Script

CLOCK = "test:clock"
TIMES = Times(lease_s=15, life_s=150, share_s=5, max_try=2)
OWNERS = ("a", "b", "c", "d")
KEYS = (b"eg:flight:1", b"eg:flight:2")
KEEP_S = 100.0
REAL_TIME = "redis.call('TIME')"
FAKE_TIME = f"{{redis.call('GET', '{CLOCK}'), 0}}"


def answer(text: str) -> Shared:
    return Shared(status=200, reason="OK", headers=(), parts=(text.encode(),), outcome="eligible")


class Immediate:
    """Runs scripts at once, on a clock of the test's own where there is one."""

    def __init__(self, client: SyncRedis, *, has_clock: bool) -> None:
        self.client = client
        self.has_clock = has_clock
        self.repeats = 1

    async def run(self, script: Script, key: bytes, *arguments: str | bytes | int) -> Any:  # noqa: ANN401
        source = script.source
        if self.has_clock:
            source = source.replace(REAL_TIME, FAKE_TIME)
            assert "TIME" not in source
        found = None
        for number in range(self.repeats):
            again = self.client.eval(source, 1, key, *arguments)
            if number and isinstance(found, list) and isinstance(again, list):
                # I6: repeated by the same owner, a step says the same again
                assert again[0] == found[0]
            elif number:
                assert again == found
            found = again
        return found


@dataclass
class Model:
    """One key as it should be."""

    state: str = ""  # "", P or C
    owner: str = ""
    tries: int = 0
    lease_until: float = 0.0
    text: str = ""
    answered_at: float = 0.0
    expires_at: float = 0.0
    brief: bool = False
    shared: dict[str, tuple[str, float]] = field(default_factory=dict)  # only the last landing
    led_in_life: int = 0


class Flights(RuleBasedStateMachine):
    """Claims, renewals, ends, crashes, repeats and the passage of time."""

    client: SyncRedis
    has_clock = True

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.now = 1_700_000_000.0
        self.runner = Immediate(self.client, has_clock=self.has_clock)
        self.unusable = 0
        self.store = FlightStore(self.runner, self.runner, Sealing([new_key("k")]), self.count, TIMES)
        self.models = {key: Model() for key in KEYS}
        self.serial = 0
        self.tick()

    def count(self) -> None:
        self.unusable += 1

    def tick(self) -> None:
        self.client.set(CLOCK, int(self.now))

    def do(self, work: Any) -> Any:  # noqa: ANN401
        return asyncio.run(work)

    def model(self, key: bytes) -> Model:
        """The model of a key, as of now."""
        model = self.models[key]
        if model.expires_at <= self.now:
            model = self.models[key] = Model()
        return model

    @initialize()
    def begin(self) -> None:
        """Nothing is there."""

    @rule(key=st.sampled_from(KEYS), owner=st.sampled_from(OWNERS), repeats=st.integers(1, 3), waited=st.booleans())
    def claim(self, key: bytes, owner: str, repeats: int, waited: bool) -> None:  # noqa: FBT001
        model = self.model(key)
        landing = next(iter(model.shared), "") if waited else ""
        self.runner.repeats = repeats
        found = self.do(self.store.claim(key, owner, waited=landing))
        self.runner.repeats = 1
        match found:
            case Landed(Shared() as shared):
                text, until = model.shared[landing]
                assert until > self.now
                assert shared.parts[0].decode() == text
            case Kept(Shared() as shared, leader, answered_at):
                # I3, I4: what was kept is what everybody gets, until it expires
                assert (model.state, shared.parts[0].decode(), leader) == ("C", model.text, model.owner)
                assert answered_at == model.answered_at
            case Wait(leader, lease_s):
                # I1: one owner at a time
                assert (model.state, leader) == ("P", model.owner)
                assert leader != owner
                assert 0 < lease_s <= TIMES.lease_s
                assert model.lease_until > self.now
            case Spent():
                # I2: no more attempts in the life of a flight than may be
                assert model.state == "P"
                assert model.tries >= TIMES.max_try
                assert model.lease_until <= self.now
            case Lead(attempt):
                if model.state == "P":
                    assert model.owner == owner or model.lease_until <= self.now
                else:
                    assert model.state == ""
                tries = model.tries if model.state == "P" else 0
                expected = tries if model.state == "P" and model.owner == owner else tries + 1
                assert attempt == expected <= TIMES.max_try
                if model.owner != owner or model.state != "P":
                    model.brief = False
                model.state, model.owner, model.tries = "P", owner, attempt
                model.lease_until = self.now + TIMES.lease_s
                model.expires_at = self.now + TIMES.life_s

    @rule(key=st.sampled_from(KEYS), owner=st.sampled_from(OWNERS), repeats=st.integers(1, 2))
    def renew(self, key: bytes, owner: str, repeats: int) -> None:
        model = self.model(key)
        is_mine = model.state == "P" and model.owner == owner
        self.runner.repeats = repeats
        assert self.do(self.store.renew(key, owner)) is is_mine
        self.runner.repeats = 1
        if is_mine:
            model.lease_until = self.now + TIMES.lease_s
            model.expires_at = self.now + TIMES.life_s

    @rule(
        key=st.sampled_from(KEYS),
        owner=st.sampled_from(OWNERS),
        kind=st.sampled_from(Finish),
        repeats=st.integers(1, 2),
        age_s=st.integers(0, 30),
    )
    def finish(self, key: bytes, owner: str, kind: Finish, repeats: int, age_s: int) -> None:
        model = self.model(key)
        self.serial += 1
        text, at = f"answer-{self.serial}", self.now - age_s
        sealed = self.store.seal(key, answer(text), at)
        self.runner.repeats = repeats
        done = self.do(self.store.finish(key, owner, kind, sealed, answered_at=at, keep_s=KEEP_S))
        self.runner.repeats = 1
        if model.state == "C" and model.owner == owner:
            assert done is Finished.KEPT
            return
        if owner in model.shared:
            assert done is Finished.SHARED
            return
        is_mine = model.state == "P" and model.owner == owner
        is_newer = model.state == "C" and kind is Finish.FRESH and model.answered_at < at
        is_free = model.state == "" and (kind is Finish.FRESH or not model.shared)
        if not (is_mine or is_newer or is_free):
            # I5: nobody but the owner ends a flight
            assert done is Finished.LOST
            return
        if kind is Finish.SHARE or model.brief:
            assert done is Finished.SHARED
            until = self.now + TIMES.share_s
            self.models[key] = Model(shared={owner: (text, until)}, expires_at=until)
        else:
            assert done is Finished.KEPT
            self.models[key] = Model(state="C", owner=owner, text=text, answered_at=at, expires_at=self.now + KEEP_S)

    @rule(key=st.sampled_from(KEYS), owner=st.sampled_from(OWNERS), has_asked=st.booleans())
    def abandon(self, key: bytes, owner: str, has_asked: bool) -> None:  # noqa: FBT001
        model = self.model(key)
        self.do(self.store.abandon(key, owner, has_asked=has_asked))
        if model.state == "P" and model.owner == owner:
            model.owner, model.lease_until = "", 0.0
            model.tries -= not has_asked

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: bytes) -> None:
        model = self.model(key)
        assert self.do(self.store.forget(key)) is (model.state == "C")
        if model.state == "P":
            model.brief = True
        else:
            self.models[key] = Model()

    @rule()
    def swap(self) -> None:
        """I16: what stands under another name is a miss."""
        kept = [key for key in KEYS if self.model(key).state == "C"]
        if len(kept) == len(KEYS):
            values = [self.client.hget(key.decode(), "val") for key in KEYS]
            for key, value in zip(KEYS, reversed(values), strict=True):
                self.client.hset(key.decode(), "val", value)
            before = self.unusable
            for key in KEYS:
                assert isinstance(self.do(self.store.claim(key, "thief")), Lead)
                self.client.delete(key.decode())
                self.models[key] = Model()
            assert self.unusable == before + len(KEYS)

    @precondition(lambda self: self.has_clock)
    @rule(seconds=st.sampled_from([0, 1, 4, 5, 14, 15, 16, 100, 149, 150, 151]))
    def wait(self, seconds: int) -> None:
        """Time passes; what the server would have expired by its own clock is expired by hand."""
        self.now += seconds
        self.tick()
        for key in KEYS:
            if self.models[key].expires_at <= self.now:
                self.client.delete(key.decode())
                self.models[key] = Model()
            self.models[key].shared = {owner: (text, until) for owner, (text, until) in self.models[key].shared.items()}

    @invariant()
    def every_key_expires(self) -> None:
        """I12, I17."""
        for key in KEYS:
            if self.client.exists(key.decode()):
                ttl: Any = self.client.pttl(key.decode())
                assert 0 < ttl <= TIMES.life_s * 1000


@pytest.mark.parametrize("has_clock", [True, False])
def test_flights_hold_their_invariants(valkey: EmbeddedValkey, has_clock: bool) -> None:  # noqa: FBT001
    class Machine(Flights):
        pass

    Machine.client, Machine.has_clock = SyncRedis.from_url(valkey.url), has_clock
    case: Any = Machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    try:
        case().runTest()
    finally:
        Machine.client.close()
