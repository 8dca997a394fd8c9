import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.token.life import (
    DEFAULT_LIFE_S,
    MAX_LIFE_S,
    Cause,
    Fetch,
    Issued,
    Token,
    Use,
    UseAndRefresh,
    backoff_s,
    begin,
    next_move,
    read_life_s,
    usable_life_s,
)

lives = st.floats(min_value=0.001, max_value=MAX_LIFE_S)
instants = st.floats(min_value=0, max_value=1e9)
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
failures = st.integers(min_value=1, max_value=10_000)
causes = st.sampled_from(Cause)


def token(**instants_of_it: float) -> Token:
    return Token(secret="t0k3n", generation="g", **instants_of_it)


@pytest.mark.parametrize(
    ("expires_in", "life_s"),
    [
        *(
            (3600, 3600.0),
            (3600.0, 3600.0),
            ("3600", 3600.0),
            (" 3600 ", 3600.0),
            ("3.6e3", 3600.0),
            (1.5, 1.5),
            (1, 1.0),
        ),
        *((86400, 86400.0), ("86400", 86400.0)),
        *((value, DEFAULT_LIFE_S) for value in (None, 0, 0.0, -0.0, -1, -3600, "0", "-5", "", "abc", "1h", "0x10")),
        *((value, DEFAULT_LIFE_S) for value in (True, False, [], [3600], {}, {"s": 1}, b"3600", 3600j)),
        *((value, DEFAULT_LIFE_S) for value in (math.nan, math.inf, -math.inf, "nan", "inf", "-inf", "Infinity")),
        *((value, DEFAULT_LIFE_S) for value in (86400.001, 86401, 1e12, "1e12", 10**400, "1e400", "9" * 5000)),
    ],
    ids=lambda value: f"{value!r:.20}" if not isinstance(value, int) or abs(value) < 10**20 else "a huge int",
)
def test_a_life_is_read_from_whatever_an_issuer_says(expires_in: object, life_s: float) -> None:
    assert read_life_s(expires_in) == life_s


def test_a_huge_negative_life_is_nonsense_like_any_other() -> None:
    assert read_life_s(-(10**400)) == DEFAULT_LIFE_S


anything: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers()),
    st.integers(min_value=-(10**400), max_value=10**400), st.floats().map(str), st.integers().map(str),
)  # fmt: skip


@given(anything)
def test_whatever_an_issuer_says_a_life_is_finite_and_positive(expires_in: object) -> None:
    life_s = read_life_s(expires_in)

    assert isinstance(life_s, float)
    assert 0 < life_s <= MAX_LIFE_S


@pytest.mark.parametrize(
    ("life_s", "usable_s"),
    [(3600.0, 3240.0), (86400.0, 77760.0), (300.0, 270.0), (200.0, 170.0), (60.0, 30.0), (40.0, 20.0), (1.0, 0.5)],
)
def test_the_margin_is_a_tenth_at_least_30_s_and_never_more_than_half(life_s: float, usable_s: float) -> None:
    assert usable_life_s(life_s) == pytest.approx(usable_s)


@given(lives)
def test_a_token_is_used_for_at_least_half_of_its_life_and_never_longer_than_it(life_s: float) -> None:
    usable_s = usable_life_s(life_s)

    assert life_s / 2 <= usable_s < life_s


@given(one=lives, other=lives)
def test_a_longer_life_is_never_less_usable(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))

    assert usable_life_s(shorter) <= usable_life_s(longer) + 1e-9


@given(life_s=lives, remaining_s=st.floats(min_value=0, max_value=2 * MAX_LIFE_S), now=instants, jitter=jitters)
def test_a_token_is_refreshed_before_it_is_unusable_and_used_no_longer_than_remains(
    life_s: float,
    remaining_s: float,
    now: float,
    jitter: float,
) -> None:
    started = begin(Issued("t0k3n", life_s), "g", remaining_s=remaining_s, now=now, jitter=jitter)

    assert started.received_at <= started.refresh_at <= started.usable_until <= started.expires_at
    assert started.usable_until == now + min(remaining_s, usable_life_s(life_s))
    assert (started.secret, started.generation) == ("t0k3n", "g")


@given(life_s=st.floats(min_value=600, max_value=MAX_LIFE_S), jitter=jitters)
def test_a_long_life_is_renewed_between_75_and_85_percent_of_it(life_s: float, jitter: float) -> None:
    started = begin(Issued("t", life_s), "g", remaining_s=math.inf, now=0.0, jitter=jitter)

    assert 0.75 * life_s - 1e-6 <= started.refresh_at <= 0.85 * life_s + 1e-6


def test_two_replicas_renew_at_different_moments() -> None:
    early, late = (begin(Issued("t", 3600.0), "g", remaining_s=3240.0, now=0.0, jitter=j) for j in (0.0, 0.9))

    assert early.refresh_at < late.refresh_at
    assert early.usable_until == late.usable_until


def test_a_token_from_the_fleet_is_as_old_here_as_it_is_there() -> None:
    there = begin(Issued("t", 3600.0), "g", remaining_s=3240.0, now=1000.0, jitter=0.5)
    here = begin(Issued("t", 3600.0), "g", remaining_s=3140.0, now=50.0, jitter=0.5)

    assert here.received_at == pytest.approx(50.0 - 100.0)
    assert there.refresh_at - there.received_at == pytest.approx(here.refresh_at - here.received_at)


at_hand = token(received_at=0.0, refresh_at=75.0, usable_until=90.0, expires_at=100.0)


@pytest.mark.parametrize(
    ("held", "now", "move"),
    [
        (None, 0.0, Fetch()),
        (at_hand, 0.0, Use(at_hand)),
        (at_hand, math.nextafter(75.0, 0), Use(at_hand)),
        (at_hand, 75.0, UseAndRefresh(at_hand)),
        (at_hand, math.nextafter(90.0, 0), UseAndRefresh(at_hand)),
        (at_hand, 90.0, Fetch()),
        (at_hand, 1e9, Fetch()),
    ],
)
def test_every_boundary_belongs_to_what_comes_after_it(
    held: Token | None,
    now: float,
    move: Use | UseAndRefresh | Fetch,
) -> None:
    assert next_move(held, now) == move


@pytest.mark.parametrize(
    ("now", "is_usable", "is_valid"),
    [
        (math.nextafter(90.0, 0), True, True),
        (90.0, False, True),
        (math.nextafter(100.0, 0), False, True),
        (100.0, False, False),
    ],
)
def test_a_token_is_valid_for_a_while_after_it_should_no_longer_be_used(
    now: float,
    is_usable: bool,  # noqa: FBT001 - a column of the table
    is_valid: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert (at_hand.is_usable(now), at_hand.is_valid(now)) == (is_usable, is_valid)


def test_a_token_expires_when_its_life_is_over() -> None:
    started = begin(Issued("t", 3600.0), "g", remaining_s=3240.0, now=1000.0, jitter=0.5)

    assert (started.received_at, started.usable_until, started.expires_at) == (1000.0, 4240.0, 4600.0)


@pytest.mark.parametrize(
    ("cause", "waits_s"),
    [
        (Cause.REFUSED, [5, 10, 20, 40, 80, 160, 300, 300, 300]),
        (Cause.UNAVAILABLE, [1, 2, 4, 8, 16, 30, 30, 30, 30]),
    ],
)
def test_the_wait_doubles_up_to_its_cap(cause: Cause, waits_s: list[float]) -> None:
    assert [backoff_s(cause, count) for count in range(1, len(waits_s) + 1)] == waits_s


@given(cause=causes, count=failures, asked_s=st.floats(min_value=0))
def test_a_wait_never_shrinks_with_failures_and_is_never_over_five_minutes(
    cause: Cause,
    count: int,
    asked_s: float,
) -> None:
    wait_s = backoff_s(cause, count, asked_s)

    assert 1.0 <= wait_s <= 300.0
    assert backoff_s(cause, count + 1, asked_s) >= wait_s
    assert wait_s >= min(asked_s, 300.0)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 1.0), (0.5, 1.0), (7.0, 7.0), (300.0, 300.0), (1e9, 300.0)])
def test_a_longer_wait_that_the_issuer_asks_for_is_granted_up_to_five_minutes(asked_s: float, wait_s: float) -> None:
    assert backoff_s(Cause.UNAVAILABLE, 1, asked_s) == wait_s


def test_no_repr_shows_a_token() -> None:
    assert "t0k3n" not in f"{Issued('t0k3n', 1.0)!r}{at_hand!r}{Use(at_hand)!r}{UseAndRefresh(at_hand)!r}"
