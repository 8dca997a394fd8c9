import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers.limits import Bucket, limit_headers, may_hold_one_more
from gateway.policy.callers import LimitsClause


def test_a_bucket_lets_through_what_it_holds_and_then_what_flows_in() -> None:
    bucket = Bucket(rate=2.0, size=3.0, now=10.0)
    for _ in range(3):
        assert bucket.wait_s(10.0) == 0
        bucket.take(10.0)
    assert bucket.wait_s(10.0) == 0.5
    assert bucket.wait_s(10.5) == 0
    bucket.take(10.5)
    assert bucket.wait_s(10.5) == 0.5
    assert bucket.level(1e9) == 3


@given(rate=st.floats(0.001, 1000), size=st.integers(1, 50), gaps=st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_no_bucket_lets_through_more_than_its_size_and_what_flowed_in(
    rate: float, size: int, gaps: list[float]
) -> None:
    bucket, now, passed = Bucket(rate, size, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        if bucket.wait_s(now) == 0:
            bucket.take(now)
            passed += 1
        assert passed <= size + now * rate + 1e-6
        assert bucket.wait_s(now) <= 1 / rate + 1e-6


@pytest.mark.parametrize(
    ("held", "free", "callers", "may"),
    [
        *[(0, 1, 9, True), (3, 1, 9, True), (4, 1, 9, False), (0, 0, 9, False), (7, 2, 9, True), (8, 2, 9, False)],
        *[(99, 1, 1, True), (99, 0, 1, False), (0, 1, 0, True)],
    ],
)
def test_nobody_holds_more_than_four_times_what_is_free(held: int, free: int, callers: int, may: bool) -> None:  # noqa: FBT001 - a column
    assert may_hold_one_more(held, free, callers) is may


@given(st.integers(1, 2000), st.integers(1, 8))
def test_however_many_storm_there_is_room_for_whoever_comes(places: int, storms: int) -> None:
    held = [0] * storms
    while any(may_hold_one_more(count, places - sum(held), storms + 1) for count in held):
        for who in range(storms):
            if may_hold_one_more(held[who], places - sum(held), storms + 1):
                held[who] += 1
    assert max(held) - min(held) <= 1
    free = places - sum(held)
    assert free >= places / (4 * storms + 1) - 1
    assert free > 0 or places < 4 * storms + 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, {}),
        ({"rate": "50/s"}, {"RateLimit-Policy": '"rate";q=50;w=1', "RateLimit": '"rate";r=0;t=7'}),
        ({"rate": "2/m"}, {"RateLimit-Policy": '"rate";q=1;w=30', "RateLimit": '"rate";r=0;t=7'}),
        ({"in_flight": 9}, {"RateLimit-Policy": '"in-flight";q=9;qu="concurrent-requests"'}),
        (
            {"rate": "600/m", "in_flight": 9},
            {
                "RateLimit-Policy": '"rate";q=10;w=1, "in-flight";q=9;qu="concurrent-requests"',
                "RateLimit": '"rate";r=0;t=7',
            },
        ),
    ],
)
def test_a_caller_is_told_its_own_limits(limits: dict[str, object], expected: dict[str, str]) -> None:
    assert limit_headers(LimitsClause.model_validate(limits), 7) == expected
