from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.ages import BANDS, band

ENDS = {"0-10": 10, "10-30": 30, "30-60": 60, "60-90": 90, "90-110": 110, "110-120": 120, "120+": float("inf")}


def test_a_band_begins_where_the_one_before_it_ends() -> None:
    for one, following in pairwise(BANDS):
        assert band(ENDS[one]) == following
        assert band(ENDS[one] - 0.001) == one


@given(st.floats(min_value=0, max_value=1e6))
def test_every_age_is_in_the_one_band_that_holds_it(age_s: float) -> None:
    found = band(age_s)

    begin = float(found.rstrip("+").split("-")[0])
    assert begin <= age_s < ENDS[found]
