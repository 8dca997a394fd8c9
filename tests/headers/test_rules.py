from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.exchange import CORRELATION_ID, Inbound, Reply
from gateway.headers.rules import (
    SUBTENANT_ID,
    Foreign,
    SpeaksFor,
    choose_subtenant,
    is_utf8,
    outbound_headers,
    reply_headers,
)
from gateway.policy.callers import CallerEntry
from gateway.policy.model import HeadersClause
from gateway.policy.values import HOP_BY_HOP, PROTECTED_HEADERS

Pairs = list[tuple[str, str]]
MINE = "id-of-the-gateway"
FORGED = "forged-by-somebody"
NOBODY = CallerEntry()
IDENTITIES = ("authorization", "x-api-key", "x-optum-correlation-id", "x-optum-subtenant-id", "x-optum-tenant-id")
PLAIN = ("Accept", "Content-Type", "X-Optum-Eligibility-Disable-Value-Add", "user-agent", "X-Site", "x_site", "Cookie")


def raw(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs)


def sent(pairs: Sequence[tuple[str, str]]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def received(pairs: Sequence[tuple[str, str]]) -> Inbound:
    return Inbound(method="GET", raw_target="/", headers=CIMultiDict(sent(pairs)), raw_headers=raw(pairs), body=b"")


def answered(pairs: Sequence[tuple[str, str]]) -> Reply:
    return Reply(status=200, reason="OK", headers=CIMultiDict(pairs), raw_headers=raw(pairs), body=b"")


def goes_out(
    pairs: Sequence[tuple[str, str]], clause: HeadersClause | None = None, caller: CallerEntry = NOBODY
) -> Pairs:
    clause = clause or HeadersClause()
    configured = choose_subtenant(sent([]), clause, caller)
    subtenant = configured.subtenant if isinstance(configured, SpeaksFor) else None
    return outbound_headers(received(pairs), clause, subtenant=subtenant, correlation_id=MINE)


def comes_back(pairs: Sequence[tuple[str, str]]) -> Pairs:
    return list(reply_headers(answered(pairs), MINE).items())


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


@st.composite
def twins(draw: st.DrawFn, names: Sequence[str] = IDENTITIES) -> str:
    """One of the names in any mixture of cases, with any of its hyphens as an underscore."""
    name = draw(st.sampled_from(list(names)))
    flips = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(name), max_size=len(name)))
    return "".join(
        ("_" if other and c == "-" else c.upper() if upper else c)
        for c, (upper, other) in zip(name, flips, strict=True)
    )


visible = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\t"), max_size=8)
plain_pairs = st.lists(st.tuples(st.sampled_from(PLAIN), visible), max_size=6)


@given(twin=twins(), before=plain_pairs, after=plain_pairs)
@example(twin="X_Optum_Subtenant_Id", before=[], after=[])
@example(twin="AUTHORIZATION", before=[], after=[])
def test_a_forged_twin_in_another_case_or_with_underscores_does_not_survive(
    twin: str,
    before: Pairs,
    after: Pairs,
) -> None:
    out = goes_out([*before, (twin, FORGED), *after])

    assert FORGED not in [value for _, value in out]
    assert [(name, value) for name, value in out if normal(name) in IDENTITIES] == [(CORRELATION_ID, MINE)]


@given(twin=twins(sorted(PROTECTED_HEADERS | HOP_BY_HOP)))
def test_nothing_protected_and_nothing_hop_by_hop_goes_upstream_as_it_came(twin: str) -> None:
    assert goes_out([(twin, FORGED)]) == [(CORRELATION_ID, MINE)]


@given(twin=twins(), repeats=st.integers(2, 4))
def test_a_forgery_does_not_pass_by_being_repeated(twin: str, repeats: int) -> None:
    caller = CallerEntry(subtenant="s-1")

    out = goes_out([(twin, FORGED)] * repeats, caller=caller)

    assert out == [(CORRELATION_ID, MINE), (SUBTENANT_ID, "s-1")]


@given(plain_pairs)
def test_everything_else_goes_upstream_byte_for_byte_and_in_order(pairs: Pairs) -> None:
    assert goes_out(pairs) == [*pairs, (CORRELATION_ID, MINE)]


@given(plain_pairs)
def test_everything_else_comes_back_byte_for_byte_and_in_order(pairs: Pairs) -> None:
    assert comes_back(pairs) == [*pairs, (CORRELATION_ID, MINE)]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {"content-length"}))
def test_hop_by_hop_and_framing_end_here_in_both_directions(name: str) -> None:
    clause = HeadersClause.model_validate({"set": {"X-Set": "by policy"}})

    for spelled in (name, name.upper(), name.title()):
        assert goes_out([(spelled, "a")], clause) == [("X-Set", "by policy"), (CORRELATION_ID, MINE)]
        assert comes_back([(spelled, "a")]) == [(CORRELATION_ID, MINE)]


@pytest.mark.parametrize("connection", ["X-Hop", "close, x-hop", "x-hop ,close", ",X-HOP,", "keep-alive,\tX-hop"])
def test_what_connection_names_ends_here(connection: str) -> None:
    pairs = [("Connection", connection), ("X-Hop", "a"), ("X-End", "b")]

    assert goes_out(pairs) == [("X-End", "b"), (CORRELATION_ID, MINE)]
    assert comes_back(pairs) == [("X-End", "b"), (CORRELATION_ID, MINE)]


@pytest.mark.parametrize("name", ["x_hop", "X_Hop", "x_hop-by_hop"])
def test_what_connection_names_with_an_underscore_ends_here_as_well(name: str) -> None:
    pairs = [("Connection", f"close, {name}"), (name, "a"), (name.upper(), "b"), ("X-End", "c")]

    assert goes_out(pairs) == [("X-End", "c"), (CORRELATION_ID, MINE)]
    assert comes_back(pairs) == [("X-End", "c"), (CORRELATION_ID, MINE)]


def test_what_a_second_connection_header_names_ends_here_as_well() -> None:
    pairs = [("Connection", "close"), ("connection", "x-hop"), ("X-Hop", "a"), ("x-hop", "b")]

    assert goes_out(pairs) == [(CORRELATION_ID, MINE)]


KEPT = [
    *("Accept", "Accept-Encoding", "Content-Type", "Content-Encoding", "Cache-Control", "Date", "Link", "Location"),
    *("traceparent", "tracestate", "x-optum-trace-id", "X-Optum-Eligibility-Disable-Value-Add"),
]


@pytest.mark.parametrize("name", KEPT)
def test_nobody_deletes_an_end_to_end_header_by_naming_it_in_connection(name: str) -> None:
    pairs = [("Connection", f"close, {name.swapcase()}"), (name, "a")]

    assert goes_out(pairs) == [(name, "a"), (CORRELATION_ID, MINE)]
    assert comes_back(pairs) == [(name, "a"), (CORRELATION_ID, MINE)]


def test_nobody_deletes_what_the_gateway_adds_by_naming_it_in_connection() -> None:
    clause = HeadersClause.model_validate({"set": {"X-Site": "north"}})
    pairs = [("Connection", f"x-site, {CORRELATION_ID}, {SUBTENANT_ID}")]

    assert goes_out(pairs, clause, CallerEntry(subtenant="s-1")) == [
        ("X-Site", "north"),
        (CORRELATION_ID, MINE),
        (SUBTENANT_ID, "s-1"),
    ]


@given(twin=st.sampled_from(["X-Site", "x-site", "X-SITE", "x-SITE"]))
def test_what_a_policy_sets_or_removes_replaces_what_was_sent_in_any_case(twin: str) -> None:
    sets = HeadersClause.model_validate({"set": {"X-Site": "north"}})
    removes = HeadersClause.model_validate({"remove": ["X-Site"]})

    assert goes_out([(twin, FORGED), (twin, FORGED)], sets) == [("X-Site", "north"), (CORRELATION_ID, MINE)]
    assert goes_out([(twin, FORGED)], removes) == [(CORRELATION_ID, MINE)]


@pytest.mark.parametrize("clause", [{"set": {"X-Site": "north"}}, {"remove": ["X-Site"]}])
@pytest.mark.parametrize("twin", ["x_site", "X_SITE"])
def test_an_underscore_twin_of_what_a_policy_sets_or_removes_does_not_survive(
    clause: dict[str, object],
    twin: str,
) -> None:
    out = goes_out([(twin, FORGED)], HeadersClause.model_validate(clause))

    assert FORGED not in [value for _, value in out]


CHOICES = {"subtenant_choices": ("s-choice",)}


@pytest.mark.parametrize(
    ("configured", "own", "expected"),
    [
        ("from-caller", "s-own", "s-own"),
        ("from-caller", None, None),
        ("none", "s-own", None),
        ("none", None, None),
        ("s-fixed", "s-own", "s-fixed"),
        ("s-fixed", None, "s-fixed"),
    ],
)
@pytest.mark.parametrize(
    ("by_caller", "by_policy", "named", "is_its_own"),
    [
        (CHOICES, {}, ["s-choice"], True),
        ({}, CHOICES, ["s-choice"], True),
        (CHOICES, CHOICES, ["s-choice"], True),
        ({}, {}, ["s-choice"], False),
        (CHOICES, CHOICES, ["s-other"], False),
        (CHOICES, CHOICES, ["S-CHOICE"], False),
        (CHOICES, CHOICES, ["s-choice "], False),
        (CHOICES, CHOICES, [""], False),
        (CHOICES, CHOICES, ["s-choice", "s-choice"], False),
        (CHOICES, CHOICES, ["s-choice", "s-other"], False),
        (CHOICES, CHOICES, ["s-choice,s-other"], False),
        (CHOICES, CHOICES, ["from-caller"], False),
        (CHOICES, CHOICES, ["none"], False),
    ],
)
def test_the_subtenant_is_what_may_be_named_and_was_named_once_and_any_other_name_is_refused(  # noqa: PLR0913, PLR0917 - two tables
    configured: str,
    own: str | None,
    expected: str | None,
    by_caller: dict[str, object],
    by_policy: dict[str, object],
    named: list[str],
    is_its_own: bool,  # noqa: FBT001 - a column of the table
) -> None:
    clause = HeadersClause.model_validate({"subtenant": configured, **by_policy})
    caller = CallerEntry.model_validate({"subtenant": own, **by_caller})
    inbound = [("X-Optum-Subtenant-Id", value) for value in named]

    unnamed, own_name = sent([]), sent([("x-optum-subtenant-id", str(expected))])

    assert choose_subtenant(sent(inbound), clause, caller) == (SpeaksFor("s-choice") if is_its_own else Foreign())
    assert choose_subtenant(unnamed, clause, caller) == SpeaksFor(expected)
    assert choose_subtenant(own_name, clause, caller) == (SpeaksFor(expected) if expected is not None else Foreign())
    assert goes_out([], clause, caller) == [
        (CORRELATION_ID, MINE),
        *([(SUBTENANT_ID, expected)] if expected is not None else []),
    ]


def test_the_tenant_is_never_sent_and_always_comes_back() -> None:
    assert goes_out([("X-Optum-Tenant-Id", "t-1")]) == [(CORRELATION_ID, MINE)]
    assert comes_back([("X-Optum-Tenant-Id", "t-1")]) == [("X-Optum-Tenant-Id", "t-1"), (CORRELATION_ID, MINE)]


@pytest.mark.parametrize("theirs", [[], ["a"], ["a", "b"], [MINE, MINE]])
@pytest.mark.parametrize("name", [CORRELATION_ID, CORRELATION_ID.upper()])
def test_a_reply_has_exactly_one_correlation_id_and_it_is_the_callers(theirs: list[str], name: str) -> None:
    assert comes_back([(name, value) for value in theirs]) == [(CORRELATION_ID, MINE)]


def test_a_reply_keeps_what_the_upstream_says_about_itself() -> None:
    pairs = [
        ("Link", '</coverage-discovery/1>; rel="related"'),
        ("link", '</coverage-discovery/2>; rel="related"'),
        ("x-optum-trace-id", "t"),
        ("Set-Cookie", "a=b"),
        ("Content-Encoding", "gzip"),
        ("WWW-Authenticate", "Bearer"),
    ]

    assert comes_back(pairs) == [*pairs, (CORRELATION_ID, MINE)]


@pytest.mark.parametrize("value", ["\udcff", "a\udc80b", "é\udcc3", "é\x01", "a\x01b", "\x00", "a\x7f", "a\rb"])
def test_a_reply_header_that_cannot_be_sent_is_dropped_and_the_rest_is_not(value: str) -> None:
    assert comes_back([("X-Odd", value), ("X-Even", "é")]) == [("X-Even", "é"), (CORRELATION_ID, MINE)]


@given(st.binary(max_size=20))
def test_a_value_is_utf8_if_its_bytes_were(value: bytes) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        expected = False
    else:
        expected = True

    assert is_utf8(value.decode("utf-8", "surrogateescape")) is expected


def test_what_was_received_is_left_as_it_was() -> None:
    inbound = received([("Authorization", "Bearer x"), ("X-Site", "a")])

    clause = HeadersClause.model_validate({"remove": ["X-Site"]})
    outbound_headers(inbound, clause, subtenant=None, correlation_id=MINE)

    assert list(inbound.headers.items()) == [("Authorization", "Bearer x"), ("X-Site", "a")]


def test_repeats_of_a_header_are_spelled_as_its_first_and_keep_their_order() -> None:
    pairs = [("x-a", "1"), ("x_a", "2"), ("X-A", "3")]

    assert goes_out(pairs)[:3] == [("x-a", "1"), ("x_a", "2"), ("x-a", "3")]


def test_what_an_earlier_step_decided_replaces_what_the_caller_sent() -> None:
    inbound = received([("accept-encoding", "gzip"), ("Accept_Encoding", "br"), ("X-Site", "a")])

    found = outbound_headers(inbound, HeadersClause(), subtenant=None, correlation_id=MINE, decided=["Accept-Encoding"])

    assert found == [("X-Site", "a"), (CORRELATION_ID, MINE)]
