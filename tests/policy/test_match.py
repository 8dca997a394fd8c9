from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operations import BASE_PATH, OperationName
from gateway.policy.callers import Caller, CallerEntry
from gateway.policy.match import Route, decide
from gateway.policy.model import Policy

NAMES = ("billing", "registration", "scheduling")
ROUTES = ("GET /a", "GET /a/*", "GET /a/b", "POST /a/*")
PATHS = ("/a", "/a/", "/a/b", "/a/b/c", "/a/c", "/b")
SUBMIT = OperationName.SUBMIT_ELIGIBILITY
HEALTHCHECK = OperationName.HEALTHCHECK


def policy(name: str, **match: Sequence[str]) -> Policy:
    return Policy.model_validate({"match": match, "name": name})


def caller(name: str, *operations: str) -> Caller:
    return Caller(name=name, entry=CallerEntry.model_validate({"operations": operations or ("*",)}))


policies = st.lists(
    st.builds(
        lambda operations, callers, forward: policy("", operations=operations, callers=callers, forward=forward),
        st.lists(st.sampled_from(["*", "healthcheck", "submit_eligibility"]), max_size=2),
        st.lists(st.sampled_from(["*", *NAMES]), min_size=1, max_size=2),
        st.lists(st.sampled_from(ROUTES), max_size=2, unique=True),
    ),
    max_size=4,
).map(lambda found: [p.model_copy(update={"name": f"p{i}"}) for i, p in enumerate(found)])
callers = st.lists(
    st.builds(caller, st.sampled_from(NAMES), st.sampled_from(["*", "healthcheck", "forwarded"])),
    max_size=3,
    unique_by=lambda c: c.name,
)


def candidates(found: Sequence[Policy], operation: OperationName, asking: str) -> list[tuple[int, Policy]]:
    """The rules once more, as naively as they can be said: 2 for a named caller, 1 for a named operation."""
    return [
        (2 * (asking in p.match.callers) + (operation in p.match.operations), p)
        for p in found
        if {asking, "*"} & set(p.match.callers) and {operation, "*"} & {*p.match.operations}
    ]


@given(found=policies, asking=callers)
def test_every_decision_is_that_of_a_naive_reading_of_the_rules(found: list[Policy], asking: list[Caller]) -> None:
    table, ties = decide(found, asking)
    tied = {(tie.what, tie.caller) for tie in ties}

    for operation, who in product(OperationName, asking):
        ranked = candidates(found, operation, who.name) if who.may_use(operation) else []
        best = [p for rank, p in ranked if rank == max(rank for rank, _ in ranked)]
        assert ((operation.value, who.name) in tied) is (len(best) > 1)
        if len(best) <= 1:
            assert table.govern(operation, "GET", "/", who.name) is (best[0] if best else None)


@given(found=policies, asking=callers, method=st.sampled_from(["GET", "POST"]), path=st.sampled_from(PATHS))
def test_a_path_is_forwarded_for_whom_a_route_of_some_policy_covers_it(
    found: list[Policy],
    asking: list[Caller],
    method: str,
    path: str,
) -> None:
    table, _ = decide(found, asking)
    covering = [p for p in found if any(Route.parse(text).covers(method, path) for text in p.match.forward)]

    assert table.forwards(method, path) is bool(covering)
    for who in asking:
        matching = [p for p in covering if {who.name, "*"} & set(p.match.callers)] if who.may_use(None) else []
        governing = table.govern(None, method, path, who.name)
        assert governing in matching if matching else governing is None


def test_a_named_caller_outweighs_a_named_operation() -> None:
    by_operation = policy("by_operation", operations=["healthcheck"], callers=["*"])
    by_caller = policy("by_caller", operations=["*"], callers=["billing"])

    table, ties = decide([by_operation, by_caller], [caller("billing"), caller("scheduling")])

    assert ties == []
    assert table.govern(HEALTHCHECK, "GET", "", "billing") is by_caller
    assert table.govern(HEALTHCHECK, "GET", "", "scheduling") is by_operation
    assert table.govern(SUBMIT, "POST", "", "scheduling") is None


def test_equals_are_a_tie_whatever_their_order() -> None:
    one, two = policy("one", operations=["*"]), policy("two", operations=["*"])

    for found in ([one, two], [two, one]):
        _, ties = decide(found, [caller("billing", "healthcheck")])
        assert [({tie.first.name, tie.second.name}, tie.what, tie.caller) for tie in ties] == [
            ({"one", "two"}, "healthcheck", "billing"),
        ]


def test_of_three_equals_each_is_named_in_a_tie() -> None:
    _, ties = decide([policy(name, operations=["*"]) for name in "abc"], [caller("billing", "healthcheck")])

    assert {p.name for tie in ties for p in (tie.first, tie.second)} == {"a", "b", "c"}


def test_two_policies_that_forward_the_same_route_are_a_tie() -> None:
    _, ties = decide([policy("one", forward=["GET /a"]), policy("two", forward=["GET /a"])], [caller("billing")])

    assert [(tie.what, tie.caller) for tie in ties] == [("GET /a", "billing")]


def test_a_tie_that_a_more_specific_policy_settles_is_none() -> None:
    settled = policy("settled", operations=["*"], callers=["billing"])

    table, ties = decide([policy("a", operations=["*"]), policy("b", operations=["*"]), settled], [caller("billing")])

    assert ties == []
    assert table.govern(SUBMIT, "POST", "", "billing") is settled


def test_no_match_is_a_refusal() -> None:
    table, _ = decide([policy("one", operations=["healthcheck"])], [caller("billing")])

    assert table.govern(SUBMIT, "POST", BASE_PATH, "billing") is None
    assert table.govern(HEALTHCHECK, "GET", "", "nobody") is None
    assert table.govern(None, "GET", "/a", "billing") is None


def test_a_caller_whose_entry_does_not_list_an_operation_is_refused() -> None:
    table, _ = decide([policy("one", operations=["*"], forward=["GET /a"])], [caller("billing", "healthcheck")])

    assert table.govern(HEALTHCHECK, "GET", "", "billing") is not None
    assert table.govern(SUBMIT, "POST", "", "billing") is None
    assert table.govern(None, "GET", "/a", "billing") is None


def test_a_caller_whose_entry_lists_what_is_forwarded_has_nothing_else() -> None:
    found = [policy("one", operations=["*"], forward=["GET /a"])]

    table, _ = decide(found, [caller("billing", "forwarded"), caller("scheduling", "healthcheck")])

    assert table.govern(None, "GET", "/a", "billing") is found[0]
    assert table.govern(None, "GET", "/a", "scheduling") is None
    assert table.govern(HEALTHCHECK, "GET", "", "billing") is None


@pytest.mark.parametrize(
    ("path", "governs"),
    [("/a/b", "exact"), ("/a/b/c", "long"), ("/a/b/c/d", "long"), ("/a/c", "short"), ("/a", None), ("/", None)],
)
def test_an_exact_route_comes_first_and_then_the_longest_prefix(path: str, governs: str | None) -> None:
    found = [
        policy("short", forward=["GET /a/*"]),
        policy("long", forward=["GET /a/b/*"]),
        policy("exact", forward=["GET /a/b"]),
    ]
    table, _ = decide(found, [caller("billing")])

    governing = table.govern(None, "GET", path, "billing")

    assert (governing.name if governing is not None else None) == governs


def test_a_route_of_somebody_else_does_not_shut_out_whom_a_wider_one_lets_through() -> None:
    narrow = policy("narrow", forward=["GET /a/b"], callers=["scheduling"])
    wide = policy("wide", forward=["GET /a/*"], callers=["*"])

    table, ties = decide([narrow, wide], [caller("billing"), caller("scheduling")])

    assert ties == []
    assert table.govern(None, "GET", "/a/b", "scheduling") is narrow
    assert table.govern(None, "GET", "/a/b", "billing") is wide


@pytest.mark.parametrize(
    ("route", "method", "path", "covered"),
    [
        ("GET /a", "GET", "/a", True),
        ("GET /a", "POST", "/a", False),
        ("GET /a", "get", "/a", False),
        ("GET /a", "GET", "/A", False),
        ("GET /a", "GET", "/a/", False),
        ("GET /a/*", "GET", "/a/b", True),
        ("GET /a/*", "GET", "/a/b/c.d", True),
        ("GET /a/*", "GET", "/a/...", True),
        ("GET /a/*", "GET", "/a/", False),
        ("GET /a/*", "GET", "/a", False),
        ("GET /a/*", "GET", "/ab", False),
        ("GET /*", "GET", "/b", True),
        *(("GET /a/*", "GET", f"/a/{rest}", False) for rest in ("..", ".", "../b", "b/..", "b/../c", "./b", "b/.")),
        *(
            ("GET /a/*", "GET", f"/a/{rest}", False)
            for rest in ("%2e%2e", "%2E", "b%2fc", "b%2Fc", "b%5cc", "b%00", "b\\c")
        ),
    ],
)
def test_a_route_covers_its_own_path_and_nothing_that_climbs_out_of_it(
    route: str,
    method: str,
    path: str,
    covered: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert Route.parse(route).covers(method, path) is covered


@pytest.mark.parametrize("rest", ["..;", "..;/b", "b/..;x=y/../c", ".;/b", "b/..;a"])
def test_a_prefix_does_not_cover_dot_segments_with_path_parameters(rest: str) -> None:
    """Servers that strip ";…" from a segment (Tomcat, Jetty) would climb out of the prefix."""
    assert not Route.parse("GET /a/*").covers("GET", f"/a/{rest}")


@given(st.text(st.sampled_from("ab./%2eEfF5cC0;\\"), max_size=10))
def test_whatever_a_prefix_covers_stays_below_it(rest: str) -> None:
    if Route.parse("GET /a/*").covers("GET", f"/a/{rest}"):
        decoded = rest.lower()
        for code, character in (("%2e", "."), ("%2f", "/"), ("%5c", "/")):
            decoded = decoded.replace(code, character)
        segments = [segment.partition(";")[0] for segment in decoded.replace("\\", "/").split("/")]
        assert not {".", ".."} & set(segments)


@pytest.mark.parametrize(
    "path",
    [
        *[
            "%74ransactions",
            "transactions/",
            "/transactions",
            "TRANSACTIONS",
            "transactions;x=1",
            "%74ransactions/id-1",
        ],
        *["transactions;a/id-1;b", "coverage-discovery//", "Healthcheck"],
    ],
)
def test_a_prefix_forwards_no_operation_that_goes_in_disguise(path: str) -> None:
    route = Route.parse("GET /rcm/eligibility/v1/*")
    assert not route.covers("GET", f"/rcm/eligibility/v1/{path}")
    assert route.covers("GET", "/rcm/eligibility/v1/payers")
    assert route.covers("GET", "/rcm/eligibility/v1/transactions/id-1/attachments")
