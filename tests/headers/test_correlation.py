import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.headers.correlation import choose_correlation_id, well_formed

FRESH = "0199a2f0-fresh"
GOOD = ["a", "0", "8f2b6a10-1111-4222-8333-444455556666", "a.b_c-d", "A" * 64]
BAD = [
    *("", "A" * 65, "-a", ".a", "_a", "a b", " a", "a ", "a\n", "a\r\nX-Forged: b", "a,b", "a;b", 'a"', "a/b", "a%20"),
    *("é", "a\x00", "a\udcff", "a{b}", "a=b", "a&b", "\u0660", "<a>"),
]


@pytest.mark.parametrize("value", GOOD)
def test_the_one_well_formed_id_is_kept(value: str) -> None:
    assert choose_correlation_id([value], lambda: FRESH) == value
    assert well_formed(value) == value


@pytest.mark.parametrize("value", BAD)
def test_an_id_that_would_have_to_be_quoted_is_replaced(value: str) -> None:
    assert choose_correlation_id([value], lambda: FRESH) == FRESH
    assert well_formed(value) == ""


@pytest.mark.parametrize("sent", [[], ["a", "b"], ["a", "a"], ["a", ""]])
def test_none_and_two_at_once_are_replaced(sent: list[str]) -> None:
    assert choose_correlation_id(sent, lambda: FRESH) == FRESH


@given(st.lists(st.text(max_size=70), max_size=3))
def test_whatever_is_sent_the_id_can_stand_in_a_log_a_header_and_a_query(sent: list[str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", choose_correlation_id(sent, lambda: FRESH))


def test_a_fresh_id_is_made_only_where_one_is_needed() -> None:
    made: list[str] = []

    def new_id() -> str:
        made.append(FRESH)
        return FRESH

    choose_correlation_id(["good"], new_id)
    assert made == []
    choose_correlation_id([], new_id)
    assert made == [FRESH]
