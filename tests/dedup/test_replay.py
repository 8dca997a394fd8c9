"""What others get of an answer: the upstream's bytes, but for what the answer says of itself."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.dedup.replay import (
    Difference,
    NoAnswer,
    NotShareable,
    Shared,
    Unpackable,
    difference,
    pack,
    share,
    unpack,
)
from gateway.exchange import Reply

JSON = {"Content-Type": "application/json"}
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
names = st.text(max_size=6).filter(lambda name: name not in {"id", "status", "sourceType", "sourceId", "correlationId"})


def replied(body: bytes | str | dict[str, Any], status: int = 200, **headers: str) -> Reply:
    raw = json.dumps(body) if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(
        status=status,
        reason="OK",
        headers=CIMultiDict(JSON | named),
        body=raw.encode() if isinstance(raw, str) else raw,
    )


def fact(**more: object) -> dict[str, Any]:
    return {"id": "t-1", "status": {"value": "eligible"}} | more


@given(
    before=st.dictionaries(names, values, max_size=3),
    after=st.dictionaries(names, values, max_size=3),
    said=st.dictionaries(st.sampled_from(["sourceType", "sourceId", "correlationId"]), scalars),
    indent=st.sampled_from([None, 0, 1, "\t"]),
    ascii_only=st.booleans(),
)
def test_a_fact_says_what_it_is_and_is_otherwise_what_it_was(
    before: dict[str, Any],
    after: dict[str, Any],
    said: dict[str, Any],
    indent: int | str | None,
    ascii_only: bool,  # noqa: FBT001
) -> None:
    document = before | {"id": "t-1"} | said | {"status": {"value": "eligible", "sourceType": "inner"}} | after
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only)

    shared = share(replied(body.encode("utf-8", "surrogatepass")))
    if not ascii_only and any("\ud800" <= sign <= "\udfff" for sign in body):
        assert shared.outcome == ""
        return
    got = json.loads(shared.body("mine"))

    assert shared.outcome == "eligible"
    assert (got.pop("sourceType"), got.pop("sourceId")) == ("duplicate", "t-1")
    assert got.pop("correlationId", None) == ("mine" if "correlationId" in said else None)
    kept = {name: value for name, value in document.items() if name not in said}
    assert got == kept
    assert [*got] == [*kept]


def test_the_bytes_between_stay_as_they_are() -> None:
    body = (
        ' {\r\n "correlationId" :"x" ,"a":1.10, "id": "t\\u002d1","status":{"value":"eligible"},"sourceType":null}\n '
    )
    assert share(replied(body)).body("me").decode() == (
        ' {"sourceId":"t\\u002d1",\r\n "correlationId" :"me" ,"a":1.10, "id": "t\\u002d1",'
        '"status":{"value":"eligible"},"sourceType":"duplicate"}\n '
    )


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no",
        "[]",
        "null",
        "{}",
        '{"id": "t"}',
        '{"id": 7, "status": {"value": "eligible"}}',
        '{"id": "", "status": {"value": "eligible"}}',
        '{"id": "t", "status": "eligible"}',
        '{"id": "t", "status": {"value": 1}}',
        '{"id": "t", "status": {"value": "eligible"}} {}',
        '{"id": "t", "status": {"value": "eligible"}, }',
        '{"id": "t", "status": {"value": "eligible"}',
        '{"id": "t", "id": "u", "status": {"value": "eligible"}}',
        '{"id": "t", "status": {"value": "eligible", "value": "ineligible"}}',
        '{"id": "t", "status": {"value": "eligible"}, "n": NaN}',
        '{"id": "t", "status": {"value": "eligible"}, "n": ' + "[" * 100_000 + "]" * 100_000 + "}",
        b'{"id": "t", "status": {"value": "eligible"}, "n": "\xff"}',
        b'\xef\xbb\xbf{"id": "t", "status": {"value": "eligible"}}',
    ],
)
def test_what_is_read_in_no_way_or_in_two_is_no_fact_and_stays_as_it_is(body: bytes | str) -> None:
    reply = replied(body)
    shared = share(reply)
    assert shared.outcome == ""
    assert shared.body("mine") == reply.body


@pytest.mark.parametrize(
    "reply",
    [
        replied(fact(), status=201),
        replied(fact(), status=206),
        replied(fact(), status=422),
        replied(fact(), Content_Encoding="gzip"),
        replied(fact(), Content_Type="text/html"),
    ],
)
def test_only_a_plain_200_in_json_is_a_fact(reply: Reply) -> None:
    assert share(reply).outcome == ""


def test_only_headers_that_describe_the_answer_are_shared() -> None:
    reply = replied(
        fact(), link="<a>", x_optum_trace_id="t", Set_Cookie="secret", x_optum_correlation_id="leader", Age="3"
    )
    got = share(reply).reply("mine")
    assert dict(got.headers) == JSON | {"link": "<a>", "x-optum-trace-id": "t", "x-optum-correlation-id": "mine"}


@given(
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=2),
    outcome=st.sampled_from(["", "eligible"]),
    headers=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    answered_at=st.floats(0, 4e9),
)
def test_what_is_packed_is_unpacked(
    parts: list[bytes], outcome: str, headers: list[tuple[str, str]], answered_at: float
) -> None:
    shared = Shared(status=200, reason="OK", headers=tuple(headers), parts=tuple(parts), outcome=outcome)
    assert unpack(pack(shared, answered_at)) == (shared, answered_at)


def test_landings_without_an_answer_are_packed_as_well() -> None:
    lost = NoAnswer("upstream_timeout", "c-1", 5)
    assert unpack(pack(lost, 1.0)) == (lost, 1.0)
    landing, _ = unpack(pack(NotShareable(), 1.0))
    assert isinstance(landing, NotShareable)


@given(st.binary(max_size=60))
def test_anything_else_is_unpackable(garbage: bytes) -> None:
    for packed in (garbage, b"\x03" + garbage, b"\x03\xff\0\0\0" + garbage, b"\x03\xff\xff\xff\xff" + garbage):
        with pytest.raises(Unpackable):
            unpack(packed)


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (replied(fact(id="t-2", processedDate="later", correlationId="c", sourceType="new")), Difference.NONE),
        (replied(fact(plan={"name": "Plus"})), Difference.DETAILS),
        (replied(fact(status={"value": "ineligible"})), Difference.OUTCOME),
        (replied(fact(), status=500), Difference.NO_ANSWER),
        (replied("torn"), Difference.NO_ANSWER),
        (replied(json.dumps(fact())[:-1] + ',"x":1e999}'), Difference.DETAILS),
    ],
)
def test_what_a_replay_would_have_got_wrong(fresh: Reply, expected: Difference) -> None:
    assert difference(share(replied(fact(correlationId="first"))), fresh) is expected
