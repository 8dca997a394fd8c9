import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sealing import KEY_BYTES, Key, KeyRingError, Sealing, new_key, parse_ring

OLD = Key("2026-q1", bytes(range(32)))
NEW = Key("2026-q2", bytes(range(32, 64)))
REDIS_KEY = b"eg:token:0123"
PLAIN = b'{"secret":"t0k3n"}'
SEALED = Sealing([OLD]).seal(REDIS_KEY, PLAIN)

redis_keys = st.binary(min_size=1, max_size=40)
plains = st.binary(max_size=200)


def encoded(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


@given(redis_key=redis_keys, plain=plains)
def test_what_was_sealed_opens_under_its_own_key_name(redis_key: bytes, plain: bytes) -> None:
    sealing = Sealing([OLD])
    sealed = sealing.seal(redis_key, plain)

    assert sealing.open(redis_key, sealed) == plain
    assert len(plain) < 4 or plain not in sealed


@given(one=redis_keys, other=redis_keys, plain=plains)
def test_it_opens_under_no_other_key_name(one: bytes, other: bytes, plain: bytes) -> None:
    sealing = Sealing([OLD])

    assert (sealing.open(other, sealing.seal(one, plain)) is None) is (one != other)


@given(position=st.integers(0, len(SEALED) - 1), flipped=st.integers(1, 255))
def test_a_byte_that_was_changed_makes_it_a_miss(position: int, flipped: int) -> None:
    tampered = bytearray(SEALED)
    tampered[position] ^= flipped

    assert Sealing([OLD, NEW]).open(REDIS_KEY, bytes(tampered)) is None


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_value_that_was_cut_short_is_a_miss(length: int) -> None:
    assert Sealing([OLD]).open(REDIS_KEY, SEALED[:length]) is None


@given(st.binary(max_size=100))
def test_whatever_else_stands_in_redis_is_a_miss(found: bytes) -> None:
    assert Sealing([OLD]).open(REDIS_KEY, found) is None
    assert Sealing([OLD]).open(REDIS_KEY, SEALED + b"x" + found) is None


def test_a_key_that_the_ring_does_not_have_is_a_miss() -> None:
    assert Sealing([NEW]).open(REDIS_KEY, SEALED) is None
    assert Sealing([Key(OLD.kid, NEW.secret)]).open(REDIS_KEY, SEALED) is None
    assert Sealing([Key(NEW.kid, OLD.secret)]).open(REDIS_KEY, SEALED) is None


def test_a_kid_cannot_be_swapped_for_another_of_the_ring() -> None:
    swapped = SEALED.replace(OLD.kid.encode(), NEW.kid.encode(), 1)

    assert Sealing([OLD, Key(NEW.kid, OLD.secret)]).open(REDIS_KEY, swapped) is None


def test_the_first_key_writes_and_every_key_reads() -> None:
    rotated = Sealing([NEW, OLD])

    assert rotated.open(REDIS_KEY, SEALED) == PLAIN
    assert Sealing([NEW]).open(REDIS_KEY, rotated.seal(REDIS_KEY, PLAIN)) == PLAIN
    assert Sealing([OLD]).open(REDIS_KEY, rotated.seal(REDIS_KEY, PLAIN)) is None


def test_during_a_rotation_each_replica_reads_what_the_other_writes() -> None:
    not_yet, already = Sealing([OLD, NEW]), Sealing([NEW, OLD])

    assert already.open(REDIS_KEY, not_yet.seal(REDIS_KEY, PLAIN)) == PLAIN
    assert not_yet.open(REDIS_KEY, already.seal(REDIS_KEY, PLAIN)) == PLAIN


def test_what_was_stored_before_a_rotation_is_looked_for_under_the_same_name_after_it() -> None:
    """Otherwise every key reads, and nothing is found to be read."""
    before = Sealing([OLD]).name("token", "client")

    assert Sealing([OLD, NEW]).name("token", "client") == before
    assert Sealing([NEW, OLD]).name("token", "client") == before


def test_the_same_value_is_sealed_differently_each_time() -> None:
    sealing = Sealing([OLD])

    assert len({sealing.seal(REDIS_KEY, PLAIN) for _ in range(50)}) == 50


parts = st.lists(st.text(max_size=8), min_size=1, max_size=4)


@given(text=st.text(min_size=1, max_size=12), cut=st.integers(0, 12), other=st.integers(0, 12))
def test_a_name_is_another_when_a_boundary_between_parts_is_shifted(text: str, cut: int, other: int) -> None:
    sealing = Sealing([OLD])
    one, two = (text[:cut], text[cut:]), (text[:other], text[other:])

    assert (sealing.name(*one) == sealing.name(*two)) is (one == two)
    assert sealing.name(*one) != sealing.name(text)


@given(one=parts, other=parts)
def test_two_lists_of_parts_share_a_name_only_if_they_are_equal(one: list[str], other: list[str]) -> None:
    sealing = Sealing([OLD])

    assert (sealing.name(*one) == sealing.name(*other)) is (one == other)


@given(parts)
def test_a_name_is_32_hex_digits_that_only_this_ring_gives(these: list[str]) -> None:
    name = Sealing([OLD]).name(*these)

    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert name != Sealing([NEW]).name(*these)


def test_an_empty_ring_is_refused() -> None:
    with pytest.raises(KeyRingError, match="the key ring is empty"):
        Sealing([])


def test_a_ring_is_read_in_its_order() -> None:
    text = f" a:{encoded(OLD.secret)} , B.2_c-d:{encoded(NEW.secret)}"

    assert parse_ring(text) == (Key("a", OLD.secret), Key("B.2_c-d", NEW.secret))
    assert parse_ring(f"{'k' * 32}:{encoded(OLD.secret)}")[0].kid == "k" * 32


GOOD = encoded(OLD.secret)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "entry 1 is not kid:base64"),
        (GOOD, "entry 1 is not kid:base64"),
        (f":{GOOD}", "entry 1 is not kid:base64"),
        (f"a:{GOOD},", "entry 2 is not kid:base64"),
        (f"a:{GOOD},,b:{GOOD}", "entry 2 is not kid:base64"),
        *((f"{kid}:{GOOD}", "entry 1 is not kid:base64") for kid in ("k" * 33, "é", "\udcff", "a b", "a\x00")),
        ("a:secret-but-no-base64!", "the key of entry 1 is not base64"),
        (f"a:{GOOD[:-1]}", "the key of entry 1 is not base64"),
        (f"a:{GOOD} x", "the key of entry 1 is not base64"),
        (f"a:{GOOD},b:é", "the key of entry 2 is not base64"),
        ("a:", "the key of entry 1 has 0 bytes, expected 32"),
        (f"a:{encoded(b'short')}", "the key of entry 1 has 5 bytes, expected 32"),
        (f"a:{encoded(bytes(33))}", "the key of entry 1 has 33 bytes, expected 32"),
        (f"a:{GOOD},a:{encoded(NEW.secret)}", "two entries have the same kid"),
        (f"a:{GOOD},b:{GOOD}", "two entries have the same key"),
    ],
)
def test_a_ring_that_cannot_be_used_is_said_without_showing_a_key(text: str, message: str) -> None:
    with pytest.raises(KeyRingError) as caught:
        parse_ring(text)

    assert message in str(caught.value)
    assert not any(GOOD[:8] in line or "secret-but" in line for line in shown(caught.value))


def shown(error: BaseException) -> list[str]:
    """Whatever of an error may be printed: its words and those it follows from, without the lines of code."""
    return [str(error), repr(error), *traceback.TracebackException.from_exception(error).format_exception_only()]


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_of_rings_fail_in_another_way(text: str) -> None:
    try:
        keys = parse_ring(text)
    except KeyRingError as error:
        assert error.__suppress_context__ or error.__context__ is None  # noqa: PT017 - both ways are right
    else:
        assert all(len(key.secret) == KEY_BYTES for key in keys)


def test_no_repr_shows_a_key() -> None:
    secret = OLD.secret

    for text in (repr(OLD), str(OLD), repr([OLD]), repr(Sealing([OLD])), f"{OLD}"):
        assert repr(secret) not in text
        assert secret.hex() not in text
        assert encoded(secret) not in text


def test_a_new_key_is_one_that_nobody_has_seen() -> None:
    made = {new_key("k").secret for _ in range(20)}

    assert len(made) == 20
    assert {len(secret) for secret in made} == {KEY_BYTES}
    assert new_key("mine").kid == "mine"
