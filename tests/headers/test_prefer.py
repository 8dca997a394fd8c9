import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.headers.prefer import shortened_s


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["wait=10"], 10.0),
        (["WAIT=10"], 10.0),
        (['wait="10"'], 10.0),
        (["respond-async, wait=10"], 10.0),
        (["wait = 10 ; strict"], 10.0),
        (["return=minimal", "wait=7"], 7.0),
        (["wait=10, wait=3"], 10.0),  # the first counts
        (["wait=0"], 1.0),
        (["wait=00000000030"], 30.0),
        (["wait=600"], 130.0),
        (["wait=99999999999999999999"], 130.0),
        (["wait=-1"], 130.0),
        (["wait=1.5"], 130.0),
        (["wait"], 130.0),
        (["wait=\u0663"], 130.0),
        (["waiting=3"], 130.0),
        ([], 130.0),
    ],
)
def test_a_preference_shortens_the_wait(values: list[str], seconds: float) -> None:
    assert shortened_s(130.0, values) == seconds


def test_a_limit_under_a_second_stays() -> None:
    assert shortened_s(0.2, ["wait=0"]) == 0.2


@given(st.lists(st.text()))
def test_whatever_comes_nobody_waits_longer(values: list[str]) -> None:
    assert 0 < shortened_s(130.0, values) <= 130.0
