"""For how long an answer stands: by tables, and by properties over every month there is."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dedup.window import CLOCK_STEP_S, Window, next_month, window_of
from gateway.policy.model import DedupClause

NEW_YORK = ZoneInfo("America/New_York")
HOUR_S = 3600.0
ZONES = (
    "America/New_York",
    "UTC",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Pacific/Apia",
    "America/Havana",
)
instants = st.floats(min_value=0, max_value=4e9, allow_nan=False)


def at(text: str, zone: ZoneInfo = NEW_YORK) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def window(lookback_s: float = 24 * HOUR_S, *, prior: bool = False, zone: ZoneInfo = NEW_YORK, **own: float) -> Window:
    return Window(lookback_s=lookback_s, outcome_s=own or {"eligible": 1e9}, exclude_prior_month=prior, zone=zone)


@pytest.mark.parametrize(
    ("age_s", "remaining_s"),
    [
        (0.0, 3600.0),
        (1.0, 3599.0),
        (3599.5, 0.5),
        (3600.0, 0.0),  # half open
        (3600.5, 0.0),
        (-1.0, 3600.0),  # after a failover: a little into the future
        (-CLOCK_STEP_S, 3600.0),
        (-CLOCK_STEP_S - 0.5, 0.0),
        (-86_400.0, 0.0),
    ],
)
def test_the_window_looks_back_and_is_half_open(age_s: float, remaining_s: float) -> None:
    assert window(HOUR_S).remaining_s("eligible", 1e9, 1e9 + age_s) == remaining_s


@pytest.mark.parametrize("lookback_s", [0.0, -1.0])
def test_zero_means_never(lookback_s: float) -> None:
    assert window(lookback_s).remaining_s("eligible", 1e9, 1e9) == 0
    assert window(HOUR_S, eligible=lookback_s).remaining_s("eligible", 1e9, 1e9) == 0


def test_each_outcome_may_shorten_the_window_and_none_can_lengthen_it() -> None:
    found = window(HOUR_S, eligible=60.0, ineligible=9 * HOUR_S)
    assert found.remaining_s("eligible", 1e9, 1e9) == 60
    assert found.remaining_s("ineligible", 1e9, 1e9) == HOUR_S
    for outcome in ("payer_unavailable", "processing_error", "", "Eligible"):
        assert found.remaining_s(outcome, 1e9, 1e9) == 0


@pytest.mark.parametrize(
    ("zone", "given_at", "begins_at"),
    [
        ("America/New_York", "2026-01-31T23:59:59", "2026-02-01T00:00:00"),
        ("America/New_York", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("America/New_York", "2026-12-31T12:00:00", "2027-01-01T00:00:00"),
        ("America/New_York", "2028-02-29T12:00:00", "2028-03-01T00:00:00"),
        ("America/New_York", "2026-03-08T01:30:00", "2026-04-01T00:00:00"),  # clocks go forward that day
        ("America/New_York", "2026-11-01T01:30:00", "2026-12-01T00:00:00"),  # and back
        ("Asia/Kolkata", "2026-04-30T23:00:00", "2026-05-01T00:00:00"),
        ("Pacific/Kiritimati", "2026-06-30T23:00:00", "2026-07-01T00:00:00"),
    ],
)
def test_a_month_begins_at_its_own_midnight(zone: str, given_at: str, begins_at: str) -> None:
    there = ZoneInfo(zone)
    assert next_month(at(given_at, there), there) == at(begins_at, there)


def test_a_month_whose_midnight_is_skipped_begins_when_the_clocks_change() -> None:
    asuncion = ZoneInfo("America/Asuncion")  # 2023-10-01: 00:00 became 01:00
    begins_at = next_month(at("2023-09-30T12:00:00", asuncion), asuncion)
    assert datetime.fromtimestamp(begins_at, asuncion).isoformat() == "2023-10-01T01:00:00-03:00"
    assert datetime.fromtimestamp(begins_at - 1, asuncion).isoformat() == "2023-09-30T23:59:59-04:00"


def test_an_answer_of_an_earlier_month_is_out_of_the_window_where_that_is_excluded() -> None:
    given_at = at("2026-01-31T23:30:00")
    before, after = at("2026-01-31T23:59:59"), at("2026-02-01T00:00:00")
    assert window(prior=True).remaining_s("eligible", given_at, before) == 1
    assert window(prior=True).remaining_s("eligible", given_at, after) == 0
    assert window(prior=False).remaining_s("eligible", given_at, after) > 0
    assert window(prior=True, zone=ZoneInfo("UTC")).remaining_s("eligible", given_at, after) > 0


@given(given_at=instants, zone=st.sampled_from(ZONES))
def test_every_instant_lies_before_the_next_month_and_that_begins_one(given_at: float, zone: str) -> None:
    there = ZoneInfo(zone)
    begins_at = next_month(given_at, there)
    first, last = (datetime.fromtimestamp(one, there) for one in (begins_at, begins_at - 0.001))
    assert given_at < begins_at <= given_at + 32 * 86_400
    assert first.day == 1
    assert (last.month, last.year) == (
        datetime.fromtimestamp(given_at, there).month,
        datetime.fromtimestamp(given_at, there).year,
    )


@given(
    given_at=instants, age_s=st.floats(min_value=-10, max_value=1e7), lookback_s=st.floats(0, 1e7), prior=st.booleans()
)
def test_what_remains_is_never_negative_never_more_than_the_window_and_shrinks_with_age(
    given_at: float,
    age_s: float,
    lookback_s: float,
    prior: bool,  # noqa: FBT001
) -> None:
    found = window(lookback_s, prior=prior)
    now = given_at + age_s
    remaining_s = found.remaining_s("eligible", given_at, now)
    assert 0 <= remaining_s <= lookback_s
    assert found.remaining_s("eligible", given_at, now + 1) <= remaining_s
    if prior and remaining_s > 0 and age_s >= 0:
        months = {datetime.fromtimestamp(one, NEW_YORK).month for one in (given_at, now)}
        assert len(months) == 1


def test_a_policy_that_names_no_outcomes_keeps_coverage_and_its_absence() -> None:
    found = window_of(DedupClause.model_validate({"mode": "enforce", "window": "24h", "exclude_prior_month": False}))
    assert {one: found.remaining_s(one, 1e9, 1e9) for one in ("eligible", "ineligible", "patient_unknown")} == {
        "eligible": 86_400,
        "ineligible": 86_400,
        "patient_unknown": 0,
    }
