"""Two bodies are one question, or two."""

import json
import string
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.dedup.canonical import (
    MAX_DEPTH,
    Difference,
    FieldRules,
    NotCanonical,
    Unreadable,
    _read,
    _read_plain,
    canonical_json,
    differences,
    write,
)

RULES = FieldRules(
    ignored=frozenset({"controlNumber", "submitterTransactionIdentifier"}),
    case_folded=frozenset({"firstName", "lastName"}),
    sets=frozenset({"serviceTypeCodes"}),
)


def meaning(body: object) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return write(canonical_json(raw, RULES))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": "x", "controlNumber": "1"}, {"a": "x", "controlNumber": "2"}),
        ({"a": "x", "submitterTransactionIdentifier": "1"}, {"a": "x"}),
        ({"a": None, "b": "", "c": [], "d": {}, "e": " "}, {}),
        ({"a": {"b": {"c": None}}}, {}),
        ({"a": "  x   y "}, {"a": "x y"}),
        ({"a": "x\n\ty"}, {"a": "x y"}),
        ({"s": {"lastName": "DOE"}}, {"s": {"lastName": "doe"}}),
        ({"e": {"serviceTypeCodes": ["30", "1", "30"]}}, {"e": {"serviceTypeCodes": ["1", "30"]}}),
        ({"a": "\u00e9"}, {"a": "e\u0301"}),
        (b'{"a":1}', b' {\n"a" : 1 }\n'),
        (b'{"a":"\\u0041"}', b'{"a":"A"}'),
        (b'{"a":-0}', b'{"a":0}'),
    ],
)
def test_these_are_one_question(one: object, two: object) -> None:
    assert meaning(one) == meaning(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"memberId": "ABC"}, {"memberId": "abc"}),
        ({"dependents": [{"a": 1}, {"b": 2}]}, {"dependents": [{"b": 2}, {"a": 1}]}),
        ({"dependents": [{}, {"a": 1}]}, {"dependents": [{"a": 1}]}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {}),
        ({"a": False}, {}),
        ({"a": 0}, {"a": False}),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}'),
        (b'{"a":123456789012345678901234567890}', b'{"a":123456789012345678901234567891}'),
        (b'{"a":1.0}', b'{"a":1}'),
        (b'{"a":1.00}', b'{"a":1.0}'),
        (b'{"a":1.5}', b'{"a":"1.5"}'),
        (b'{"a":1.5}', b'{"a":"\\u00001.5"}'),
        (b'{"a":"\\u00001.5"}', b'{"a":"\\u0000\\u00001.5"}'),
        (b'{"a":" \\u00001.5"}', b'{"a":"\\u0000\\u00001.5"}'),
        ({"lastName": "Strauß"}, {"lastName": "Strauss"}),
        ({"a": "x y"}, {"a": "xy"}),
        ({"s": {"controlNumber": "1"}}, {"s": {"controlNumber": "2"}}),
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"a": ["b", "c"]}, {"a": ["b,c"]}),
    ],
)
def test_these_are_two_questions(one: object, two: object) -> None:
    assert meaning(one) != meaning(two)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a":1,"a":1}', Unreadable.DUPLICATE_KEY),
        (b'{"x":{"a":1,"\\u0061":2}}', Unreadable.DUPLICATE_KEY),
        (b'{"a":NaN}', Unreadable.NOT_FINITE),
        (b'{"a":-Infinity}', Unreadable.NOT_FINITE),
        (b'{"a":"\xff"}', Unreadable.NOT_UTF8),
        (b"\xef\xbb\xbf{}", Unreadable.NOT_JSON),
        (b"", Unreadable.NOT_JSON),
        (b"{", Unreadable.NOT_JSON),
        (b"{} {}", Unreadable.NOT_JSON),
        (b'{"a":01}', Unreadable.NOT_JSON),
        (b"[]", Unreadable.NOT_AN_OBJECT),
        (b'"x"', Unreadable.NOT_AN_OBJECT),
        (b'{"a":' + b"9" * 5000 + b"}", Unreadable.NUMBER_TOO_LONG),
        (b'{"a":' * 40 + b"1" + b"}" * 40, Unreadable.TOO_DEEP),
        (b'{"a":' + b"[" * 40 + b"1" + b"]" * 40 + b"}", Unreadable.TOO_DEEP),
        (b'{"a":' * 12_000, Unreadable.TOO_DEEP),
        (b'{"a":' * 200_000, Unreadable.TOO_LONG),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_canonical(body: bytes, reason: Unreadable) -> None:
    with pytest.raises(NotCanonical) as caught:
        canonical_json(body, RULES)
    assert caught.value.reason is reason


@given(
    st.recursive(
        st.sampled_from([b"1", b"-0", b"01", b"1.0", b"1e3", b"null", b"true", b"NaN", b"18446744073709551616"])
        | st.sampled_from(
            [b'"a"', b'" a  b "', b'""', b'"\\u0061"', b'"\\"', b'"\x7f"', b'"\xc3\xa9"', b'"\t"', b"{}", b"[]"]
        ),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: b"[" + b", ".join(items) + b"]")
            | st.lists(st.tuples(st.sampled_from([b'"a"', b'"b"', b'"\\u0061"', b'"c d"']), inner), max_size=3).map(
                lambda pairs: b"{" + b" ,".join(name + b" : " + value for name, value in pairs) + b"}"
            )
        ),
        max_leaves=6,
    )
)
def test_the_short_way_of_reading_says_what_the_long_one_says(body: bytes) -> None:
    short = _read_plain(body)
    if short is not None:
        assert (repr(short), write(short)) == (repr(_read(body)), write(_read(body)))


def test_the_short_way_is_taken_for_an_ordinary_body_and_for_none_with_a_key_twice() -> None:
    assert _read_plain(b'{"memberId": "A 1", "codes": [1, true, null]}') is not None
    assert _read_plain(b'{"a": {"memberId": "1", "memberId": "1"}}') is None
    assert _read_plain(b'{"a": 1.50}') is None


def test_the_bound_of_depth_lies_far_above_any_request() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert canonical_json(nested(MAX_DEPTH - 1), RULES)
    with pytest.raises(NotCanonical):
        canonical_json(nested(MAX_DEPTH + 1), RULES)


scalars = st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=6) | st.text(max_size=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(
    st.sampled_from(["a", "b", "firstName", "serviceTypeCodes", "controlNumber"]), values, max_size=4
)


@given(objects)
@example({"serviceTypeCodes": [None, "0", "\b"]})  # what means nothing is no member, and has no say in the order
def test_the_meaning_of_a_meaning_is_itself(body: dict[str, Any]) -> None:
    first = canonical_json(json.dumps(body).encode(), RULES)
    assume("\\u0000" not in json.dumps(first))  # a mark in front would be marked again
    assert canonical_json(write(first), RULES) == first


@given(objects, st.randoms(use_true_random=False))
def test_order_of_keys_and_blanks_never_matter(body: dict[str, Any], chance: Any) -> None:  # noqa: ANN401 - a Random
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            chance.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert meaning(body) == meaning(json.dumps(shuffled(body), indent=chance.choice([None, 1, 4])).encode())


@example({"a": [[None]]}, {"a": [[None, None]]})
@given(objects, objects)
def test_what_is_written_is_equal_exactly_where_nothing_differs(one: dict[str, Any], two: dict[str, Any]) -> None:
    first, second = (canonical_json(json.dumps(body).encode(), RULES) for body in (one, two))
    assert (write(first) == write(second)) is (list(differences(first, second)) == [])


def test_a_difference_is_named_by_its_path() -> None:
    one = canonical_json(b'{"s":{"memberId":"A"},"d":[{"n":1},{"n":2}],"x":1}', RULES)
    two = canonical_json(b'{"s":{"memberId":"B"},"d":[{"n":1}]}', RULES)
    assert list(differences(one, two)) == [
        Difference("d[1]", {"n": 2}, None),
        Difference("s.memberId", "A", "B"),
        Difference("x", 1, None),
    ]
