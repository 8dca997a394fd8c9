"""A short run of what `make fuzz` does for long, by hypothesis alone: good examples, changed at random."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    """A good example with a few pieces cut out, doubled or replaced."""
    data = draw(st.sampled_from(SEEDS[name]))
    for _ in range(draw(st.integers(0, 4))):
        begin, end = sorted(draw(st.tuples(*(st.integers(0, len(data)),) * 2)))
        middle = draw(st.binary(max_size=4) | st.just(data[begin:end] * 2) | st.sampled_from(SEEDS[name]))
        data = data[:begin] + middle + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_sent_is_read_or_refused(name: str) -> None:
    @given(changed(name) | st.binary(max_size=200))
    def throw(data: bytes) -> None:
        TARGETS[name](data)

    throw()


@pytest.mark.parametrize("name", TARGETS)
def test_every_good_example_is_taken(name: str) -> None:
    for data in SEEDS[name]:
        TARGETS[name](data)
