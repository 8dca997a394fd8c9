from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.cli.shown import difference_as_json, difference_lines
from gateway.operations import QUESTIONS, OperationName
from gateway.policy.callers import Caller, CallerEntry, Issuer
from gateway.policy.change import Change
from gateway.policy.diff import Affected, diff
from gateway.policy.files import PolicySet, load
from gateway.policy.match import decide
from gateway.policy.model import Policy
from gateway.policy.sentences import COUNTED_ONLY, DECIDING, SENTENCES, Chosen, Listed, Says
from tests.policy import test_match

CANARY = "canary-of-a-header"
DIGESTS = ("ab" * 32, "cd" * 32, "ef" * 32)
ENFORCED: dict[str, Any] = {"mode": "enforce", "window": "24h"}
RAW = Mapping[str, Any]


def policy(name: str = "p", **clauses: object) -> Policy:
    return Policy.model_validate({"match": {"operations": ["*"]}, **clauses, "name": name})


def caller(name: str, **entry: object) -> Caller:
    return Caller(name=name, entry=CallerEntry.model_validate(entry))


def made_of(policies: Iterable[Policy], callers: Iterable[Caller]) -> PolicySet:
    policies, callers = tuple(policies), tuple(callers)
    table, ties = decide(policies, callers)
    assert ties == []
    return PolicySet(policies, {one.name: one for one in callers}, table, {}, {}, digest="")


def told(
    old: RAW, new: RAW, request: str = "submit_eligibility", entries: tuple[RAW, RAW] = ({}, {})
) -> dict[str, Change]:
    """What is said to one caller of one request when the clauses of its policy change."""
    before, after = (
        made_of([policy(**clauses)], [caller("billing", **entry)])
        for clauses, entry in zip((old, new), entries, strict=True)
    )
    return {change.path: change for one in diff(before, after) if request in one.requests for change in one.changes}


def lines(old: PolicySet, new: PolicySet) -> list[str]:
    return list(difference_lines(diff(old, new)))


# --- every value has its sentence -----------------------------------------------------------------------------------


def leaves(model: type[BaseModel], at: str = "") -> Iterable[str]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{at}{name}.")
        elif not info.exclude:
            yield f"{at}{name}"


LEAVES = {*leaves(Policy), *leaves(CallerEntry, "caller.")}


def test_every_value_that_there_is_has_a_sentence_or_decides_who_may_ask_or_is_counted() -> None:
    assert sorted((*SENTENCES, *DECIDING, *COUNTED_ONLY)) == sorted(LEAVES)


CHANGED: Mapping[str, tuple[RAW, RAW]] = {
    "timeout.connect": ({}, {"timeout": {"connect": "1s", "caller": "130s"}}),
    "timeout.answer": ({}, {"timeout": {"answer": "60s"}}),
    "timeout.caller": ({}, {"timeout": {"caller": "60s"}}),
    "timeout.enterprise_gateway": ({}, {"timeout": {"enterprise_gateway": "60s"}}),
    "timeout.clearinghouse": ({}, {"timeout": {"clearinghouse": "130s"}}),
    "headers.subtenant": ({}, {"headers": {"subtenant": "s-2"}}),
    "headers.subtenant_choices": ({}, {"headers": {"subtenant_choices": ["s-2"]}}),
    "headers.set": ({"headers": {"set": {"X-A": CANARY}}}, {"headers": {"set": {"X-A": CANARY[1:]}}}),
    "headers.remove": ({}, {"headers": {"remove": ["X-A"]}}),
    "token.inject": ({}, {"token": {"inject": False}}),
    "token.retry_unauthorized": ({}, {"token": {"retry_unauthorized": False}}),
    "dedup.mode": ({}, {"dedup": ENFORCED}),
    "dedup.window": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"window": "1h"}}),
    "dedup.exclude_prior_month": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"exclude_prior_month": False}}),
    "dedup.time_zone": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"time_zone": "America/Chicago"}}),
    "dedup.outcomes": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"outcomes": {"eligible": "1h"}}}),
    "dedup.fields.ignored": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"fields": {"ignored": []}}}),
    "dedup.fields.case_folded": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"fields": {"case_folded": []}}}),
    "dedup.fields.sets": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"fields": {"sets": []}}}),
    "dedup.share": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"share": "caller"}}),
    "dedup.store_unavailable": ({"dedup": ENFORCED}, {"dedup": ENFORCED | {"store_unavailable": "reject"}}),
    "recover.within": ({}, {"recover": {"within": "20s"}}),
    "recover.attempts": ({"recover": {"within": "20s"}}, {"recover": {"within": "20s", "attempts": 2}}),
    "recover.pause": ({"recover": {"within": "20s"}}, {"recover": {"within": "20s", "pause": "2s"}}),
    "audit.unavailable": ({}, {"audit": {"unavailable": "reject"}}),
    "metrics.payers": ({}, {"metrics": {"payers": ["SIM-FAST"]}}),
}


def test_the_table_of_changes_is_that_of_the_policy() -> None:
    assert set(CHANGED) == {path for path in SENTENCES if not path.startswith("caller.")}


@pytest.mark.parametrize("path", CHANGED)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_change_of_each_value_is_told_in_full(path: str, backwards: bool) -> None:  # noqa: FBT001 - a column
    old, new = reversed(CHANGED[path]) if backwards else CHANGED[path]
    changes = told(old, new)
    said = [change.says for at, change in changes.items() if at == path or at.startswith(f"{path}.")]
    assert said
    assert all(one and "{" not in one for one in said)
    assert CANARY[1:] not in repr(changes)


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_a_sentence_names_nothing_but_what_was_and_what_becomes(sentence: Says | Chosen | Listed) -> None:
    match sentence:
        case Says(says, less, more):
            said = [says, less, more]
        case Chosen(says):
            said = list(says.values())
        case Listed(gained, lost, other):
            said = [gained, lost, other]
    for one in said:
        assert "{" not in one.format(old="", new="", longest="")


# --- in the operator's terms ----------------------------------------------------------------------------------------

VOIDED = "; answers given earlier are not found: what they answer is asked again, and paid for"
DIFFERENCES: list[tuple[RAW, RAW, str, tuple[str | None, str | None, str]]] = [
    (*CHANGED["timeout.answer"], "timeout.answer", ("125s", "1m", "the upstream has 1m to answer instead of 125s")),
    (
        *CHANGED["timeout.answer"],
        "timeout.caller",
        ("130s", "65s", "a caller is answered within 65s instead of 130s, by a 504 if need be"),
    ),
    (
        {"dedup": ENFORCED | {"window": "36h"}},
        {"dedup": ENFORCED | {"window": "12h"}},
        "dedup.window",
        (
            "36h",
            "12h",
            "an answer is replayed for at most 12h instead of 36h; "
            "those given earlier are asked for again, and paid for",
        ),
    ),
    (
        {"dedup": ENFORCED | {"window": "12h"}},
        {"dedup": ENFORCED | {"window": "36h"}},
        "dedup.window",
        (
            "12h",
            "36h",
            "an answer is replayed for at most 36h instead of 12h; those kept until now go when they would have gone",
        ),
    ),
    (
        {},
        {"dedup": ENFORCED},
        "dedup.mode",
        ("off", "enforce", "one question is asked once, and its answer is replayed for at most 1d"),
    ),
    (
        {},
        {"dedup": ENFORCED | {"window": "30d", "outcomes": {"eligible": "24h", "ineligible": "1h"}}},
        "dedup.mode",
        ("off", "enforce", "one question is asked once, and its answer is replayed for at most 1d"),
    ),
    (
        {},
        {"dedup": {"mode": "enforce"}},
        "dedup.mode",
        ("off", "enforce", "requests that come at the same time share one call, and no answer is replayed"),
    ),
    ({}, {"dedup": ENFORCED}, "dedup.window", ("0s", "1d", "takes effect with dedup.mode")),
    (
        {"dedup": ENFORCED},
        {"dedup": {"mode": "shadow", "window": "12h"}},
        "dedup.window",
        ("1d", "12h", "counted alone: dedup.mode is shadow"),
    ),
    (
        *CHANGED["dedup.outcomes"],
        "dedup.outcomes.eligible",
        ("1d", "1h", "an answer with this outcome is replayed for at most 1h instead of 1d"),
    ),
    (
        *CHANGED["dedup.outcomes"],
        "dedup.outcomes.ineligible",
        ("1d", None, "an answer with this outcome is no longer replayed: it is asked for again, and paid for"),
    ),
    (
        *CHANGED["dedup.share"],
        "dedup.share",
        (
            "subtenant",
            "caller",
            "an answer is given to the caller alone that asked, and to no other of its subtenant" + VOIDED,
        ),
    ),
    (
        {},
        {"recover": {"within": "20s", "attempts": 3}},
        "recover.attempts",
        ("6", "3", "takes effect with recover.within"),
    ),
    (
        {"token": {"inject": False, "retry_unauthorized": False}},
        {},
        "token.retry_unauthorized",
        ("false", "true", "takes effect with token.inject"),
    ),
    (
        {"dedup": ENFORCED},
        {"dedup": ENFORCED, "headers": {"set": {"x-optum-region": "north", "X-Site": "north"}}},
        "headers.set.x-optum-region",
        (None, None, "the header is set from now on, whatever a caller sends" + VOIDED),
    ),
    (
        {"dedup": ENFORCED},
        {"dedup": ENFORCED, "headers": {"set": {"x-optum-region": "north", "X-Site": "north"}}},
        "headers.set.x-site",
        (None, None, "the header is set from now on, whatever a caller sends"),
    ),
    (
        {"headers": {"set": {"X-Site": "north", "X-Zone": "a"}}},
        {"headers": {"set": {"X-Site": "north", "X-Zone": "b"}}},
        "headers.set.x-zone",
        (None, None, "the header is set to another value"),
    ),
    (
        {"headers": {"remove": ["X-Debug"]}},
        {},
        "headers.remove",
        ("x-debug", None, "the header x-debug passes upstream from now on, unless it is set"),
    ),
]


@pytest.mark.parametrize(("old", "new", "path", "expected"), DIFFERENCES)
def test_a_change_is_told_by_what_it_does(
    old: RAW, new: RAW, path: str, expected: tuple[str | None, str | None, str]
) -> None:
    change = told(old, new)[path]
    assert (change.old, change.new, change.says) == expected


SAME: list[tuple[RAW, RAW, str]] = [
    # nobody asks a payer
    ({}, {"dedup": ENFORCED, "recover": {"within": "20s"}}, "get_transaction"),
    ({}, {"metrics": {"payers": ["SIM-FAST"]}}, "get_transaction"),
    # nothing reads the value
    ({"dedup": {"window": "1h"}}, {"dedup": {"window": "2h", "share": "caller"}}, "submit_eligibility"),
    ({}, {"recover": {"attempts": 3, "pause": "2s"}}, "submit_eligibility"),
    ({"token": {"inject": False}}, {"token": {"inject": False, "retry_unauthorized": False}}, "submit_eligibility"),
    (
        {"dedup": ENFORCED | {"exclude_prior_month": False}},
        {"dedup": ENFORCED | {"exclude_prior_month": False, "time_zone": "America/Chicago"}},
        "submit_eligibility",
    ),
    # another spelling of the same
    ({}, {"timeout": {"caller": "130s"}}, "submit_eligibility"),
    (
        {"dedup": ENFORCED},
        {"dedup": ENFORCED | {"outcomes": {"eligible": "24h", "ineligible": "25h"}}},
        "submit_eligibility",
    ),
    (
        {"dedup": ENFORCED | {"outcomes": {"eligible": "1h"}}},
        {"dedup": ENFORCED | {"window": "12h", "outcomes": {"eligible": "1h"}}},
        "submit_eligibility",
    ),
    ({"headers": {"set": {"X-A": "1"}}}, {"headers": {"set": {"x-a": "1"}}}, "submit_eligibility"),
    ({"headers": {"remove": ["X-A", "X-B"]}}, {"headers": {"remove": ["x-b", "x-a"]}}, "submit_eligibility"),
    (
        {"dedup": ENFORCED | {"fields": {"sets": ["a", "b"]}}},
        {"dedup": ENFORCED | {"fields": {"sets": ["b", "a"]}}},
        "submit_eligibility",
    ),
]


@pytest.mark.parametrize(("old", "new", "request_"), SAME)
def test_what_nobody_would_notice_is_no_change(old: RAW, new: RAW, request_: str) -> None:
    assert told(old, new, request_) == {}
    assert told(new, old, request_) == {}


@pytest.mark.parametrize(
    ("old", "new", "entries", "expected"),
    [
        ({}, {}, ({"subtenant": "s-1"}, {"subtenant": "s-2"}), ["caller.subtenant s-1 s-2"]),
        ({}, {}, ({}, {"subtenant": "s-2"}), ["caller.subtenant none s-2"]),
        ({}, {"headers": {"subtenant": "none"}}, ({"subtenant": "s-1"},) * 2, ["headers.subtenant s-1 none"]),
        ({}, {"headers": {"subtenant": "s-1"}}, ({"subtenant": "s-1"},) * 2, []),
        ({"headers": {"subtenant": "s-3"}},) * 2 + (({"subtenant": "s-1"}, {"subtenant": "s-2"}), []),
        ({}, {}, ({}, {"subtenant_choices": ["s-2"]}), ["caller.subtenant_choices None s-2"]),
        ({"headers": {"subtenant_choices": ["s-2"]}}, {}, ({}, {"subtenant_choices": ["s-2"]}), []),
    ],
)
def test_a_subtenant_is_told_wherever_it_comes_from(
    old: RAW, new: RAW, entries: tuple[RAW, RAW], expected: list[str]
) -> None:
    changes = told(old, new, "get_transaction", entries)
    assert [f"{change.path} {change.old} {change.new}" for change in changes.values()] == expected


# --- who a caller is, and how much it may take ---------------------------------------------------------------------

CLUSTER: dict[str, Any] = {"issuer": "https://cluster", "audience": "gateway", "jwks": "/keys.json"}
KNOWN: dict[str, Any] = {"subjects": ["cluster/s"]}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            {"certificates": ["dns:a"]},
            {"certificates": ["dns:b"]},
            [
                "whoever has a certificate with the name dns:b is this caller from now on",
                "a certificate with the name dns:a is no longer this caller's",
            ],
        ),
        (
            {"subjects": ["cluster/s", "cluster/t"]},
            {"subjects": ["cluster/t", "cluster/u"]},
            [
                "whoever has a token for cluster/u is this caller from now on",
                "a token for cluster/s is no longer this caller's",
            ],
        ),
        (
            {},
            {"limits": {"in_flight": 20, "rate": "50/s", "queue": 5}},
            [
                "20 of its requests are under way at once at most, instead of no limit",
                "it may ask 50/s instead of no limit; what is more waits, and is then refused",
                "5 of its requests may wait for their turn instead of 100",
            ],
        ),
        (
            {"limits": {"rate": "60/m", "burst": 9}},
            {"limits": {"rate": "1/s", "wait": "250ms"}},
            [
                "after a pause it may ask those of one second at once instead of 9",
                "a request waits 250ms for its turn instead of 1s, and is then refused with 429",
            ],
        ),
    ],
)
def test_who_a_caller_is_and_how_much_it_may_take_is_told(old: RAW, new: RAW, expected: list[str]) -> None:
    issuers = {"cluster": Issuer.model_validate(CLUSTER)}
    before, after = (
        replace(made_of([policy()], [caller("billing", **entry)]), issuers=issuers) for entry in (old, new)
    )
    assert [change.says for one in diff(before, after) for change in one.changes] == expected


def test_whoever_is_vouched_for_hears_how_its_tokens_are_judged_from_now_on() -> None:
    callers = [caller("workload", **KNOWN), caller("billing")]
    old, new = (
        replace(made_of([policy()], callers), issuers={"cluster": Issuer.model_validate(stated)})
        for stated in (CLUSTER, CLUSTER | {"audience": "other"})
    )
    (told_to,) = diff(old, new)
    assert told_to.callers == ("workload",)
    assert told_to.changes == (
        Change(
            path="issuers.cluster.audience",
            old="gateway",
            new="other",
            says="tokens of the issuer cluster are judged by another value",
        ),
    )


def test_a_new_caller_is_told_by_what_it_is_known() -> None:
    entry = {"secret_sha256": DIGESTS[0], "certificates": ["dns:a", "dns:b"], **KNOWN}
    (told_to, _) = diff(
        made_of([policy()], [caller("old")]), made_of([policy()], [caller("old"), caller("new", **entry)])
    )
    assert told_to.changes[0].says == "is a caller from now on, known by 1 secret and 2 certificates and 1 subject"


# --- who may ask ----------------------------------------------------------------------------------------------------

LOOKUPS = {"operations": ["get_transaction", "list_transactions"]}


def test_who_is_no_longer_declared_listed_or_matched_is_refused_and_hears_why() -> None:
    old = made_of([policy()], [caller("a"), caller("b"), caller("c")])
    new = made_of(
        [policy(match={"operations": ["*"], "callers": ["b"]})], [caller("b", operations=["healthcheck"]), caller("c")]
    )
    others = [name.value for name in OperationName if name is not OperationName.HEALTHCHECK]
    assert lines(old, new) == [
        "a: every operation",
        "  is refused from now on: the caller is no longer declared",
        f"b: {', '.join(others)}",
        "  is refused from now on: the caller's entry no longer lists it",
        "c: every operation",
        "  is refused from now on: no policy matches any more",
    ]


def test_who_may_ask_from_now_on_hears_by_which_policy() -> None:
    old = made_of([policy()], [caller("a", operations=["healthcheck"])])
    new = made_of([policy("reading")], [caller("a", operations=["healthcheck", "get_transaction"]), caller("b")])
    assert lines(old, new) == [
        "b: whatever is asked for",
        "  is a caller from now on, known by nothing",
        "b: every operation",
        "  may ask from now on (policy reading)",
        "a: get_transaction",
        "  may ask from now on (policy reading)",
        "a: healthcheck",
        "  policy p -> reading: another policy governs, with the same values",
    ]


def test_another_policy_with_other_values_is_told_beside_them() -> None:
    old = made_of([policy("a", match=LOOKUPS)], [caller("billing")])
    new = made_of([policy("b", match=LOOKUPS, timeout={"enterprise_gateway": "60s"})], [caller("billing")])
    assert lines(old, new) == [
        "billing: list_transactions, get_transaction",
        "  policy a -> b: another policy governs",
        "  timeout.enterprise_gateway 110s -> 1m: "
        "for nobody's answer: a cut at 1m, not 110s, is the enterprise gateway's",
    ]


def test_a_route_is_held_against_what_covers_it_on_the_other_side() -> None:
    wide = policy("wide", match={"forward": ["GET /a/*"]})
    narrow = policy("narrow", match={"forward": ["GET /a/b/*", "POST /a/c"]}, metrics={"payers": ["SIM-FAST"]})
    asking = [caller("billing")]
    assert lines(made_of([wide], asking), made_of([narrow], asking)) == [
        "billing: GET /a/*",
        "  is refused from now on: no policy matches any more",
        "billing: GET /a/b/*",
        "  policy wide -> narrow: another policy governs, with the same values",
        "billing: POST /a/c",
        "  may ask from now on (policy narrow)",
    ]
    other = narrow.model_copy(update={"metrics": policy(metrics={"payers": []}).metrics})
    assert lines(made_of([narrow], asking), made_of([other], asking)) == [
        "billing: POST /a/c",
        "  metrics.payers -SIM-FAST: for nobody's answer: the latency of SIM-FAST is shown as that of `other`",
    ]


def test_what_covers_a_route_as_well_is_no_change() -> None:
    asking = [caller("billing", operations=["forwarded"])]
    wide = policy("p", match={"forward": ["GET /a/*"]})
    both = policy("p", match={"forward": ["GET /a/*", "GET /a/b", "GET /a/b/*"]})
    assert diff(made_of([wide], asking), made_of([both], asking)) == ()


def test_callers_and_requests_to_which_the_same_happens_stand_together() -> None:
    asking = [caller("b"), caller("a"), caller("c", operations=["healthcheck"])]
    old, new = made_of([policy()], asking), made_of([policy(timeout={"connect": "1s", "caller": "130s"})], asking)
    change = Change(path="timeout.connect", old="5s", new="1s", says="a connection may take 1s to open instead of 5s")
    every = tuple(name.value for name in OperationName)
    assert diff(old, new) == (
        Affected(callers=("a", "b"), requests=every, changes=(change,)),
        Affected(callers=("c",), requests=("healthcheck",), changes=(change,)),
    )


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (DIGESTS[:1], DIGESTS[:2], ["1 secret -> 2 secrets: 1 secret is newly accepted"]),
        (DIGESTS, DIGESTS[:1], ["3 secrets -> 1 secret: 2 secrets are no longer accepted"]),
        (
            DIGESTS[:1],
            DIGESTS[1:],
            ["1 secret -> 2 secrets: 2 secrets are newly accepted; 1 secret is no longer accepted"],
        ),
        (DIGESTS[:2], DIGESTS[1::-1], []),
    ],
)
def test_secrets_are_counted_and_never_shown(old: list[str], new: list[str], expected: list[str]) -> None:
    before, after = (made_of([policy()], [caller("billing", secret_sha256=list(held))]) for held in (old, new))
    shown = lines(before, after)
    heading = ["billing: whatever is asked for"] if expected else []
    assert shown == [*heading, *(f"  caller.secret_sha256 {one}" for one in expected)]
    assert not any(digest in str(shown) for digest in DIGESTS)


def test_a_secret_that_becomes_anothers_is_told_on_both_sides() -> None:
    sets = (
        made_of(
            [policy()],
            [caller("a", secret_sha256=list(DIGESTS[:held])), caller("b", secret_sha256=list(DIGESTS[held:]))],
        )
        for held in (2, 1)
    )
    assert lines(*sets) == [
        "a: whatever is asked for",
        "  caller.secret_sha256 2 secrets -> 1 secret: 1 secret is another caller's from now on",
        "b: whatever is asked for",
        "  caller.secret_sha256 1 secret -> 2 secrets: "
        "1 secret was another caller's until now, and this one's from now on",
    ]


def test_a_caller_that_is_renamed_takes_its_secrets_along() -> None:
    old, new = (made_of([policy()], [caller(name, secret_sha256=list(DIGESTS[:2]))]) for name in ("former", "latter"))
    assert lines(old, new) == [
        "latter: whatever is asked for",
        "  is a caller from now on, known by 2 secrets",
        "  caller.secret_sha256: 2 secrets were another caller's until now, and this one's from now on",
        "former: every operation",
        "  is refused from now on: the caller is no longer declared",
        "latter: every operation",
        "  may ask from now on (policy p)",
    ]


def test_a_caller_who_could_ask_for_nothing_is_told_to_be_gone() -> None:
    reading = policy(match=LOOKUPS)
    old = made_of([reading], [caller("a"), caller("idle", operations=["healthcheck"])])
    assert lines(old, made_of([reading], [caller("a")])) == [
        "idle: whatever is asked for",
        "  is no caller any more; it could ask for nothing before",
    ]


def test_a_forwarded_path_is_something_that_a_caller_could_ask_for() -> None:
    old = made_of([policy(match={"forward": ["GET /a"]})], [caller("a"), caller("b")])
    assert lines(old, made_of([policy(match={"forward": ["GET /a"]})], [caller("a")])) == [
        "b: GET /a",
        "  is refused from now on: the caller is no longer declared",
    ]


@pytest.mark.parametrize(
    ("digests", "says"),
    [
        ((DIGESTS[:0], DIGESTS[:1]), "whoever sends a secret that is nobody's is refused from now on"),
        ((DIGESTS[:1], DIGESTS[:0]), "whoever sends a secret is let in as well from now on: no caller has one"),
    ],
)
def test_the_first_secret_of_all_shuts_out_who_is_anonymous_and_sends_one(
    digests: tuple[tuple[str, ...], tuple[str, ...]], says: str
) -> None:
    old, new = (made_of([policy()], [caller("anonymous"), caller("b", secret_sha256=list(held))]) for held in digests)
    assert lines(old, new)[:2] == ["anonymous: whatever is asked for", f"  {says}"]


def test_who_is_let_in_without_a_secret_is_told() -> None:
    old, new = (made_of([policy()], callers) for callers in ([caller("a")], [caller("a"), caller("anonymous")]))
    assert lines(old, new)[:2] == [
        "anonymous: whatever is asked for",
        "  is a caller from now on, known by sending none",
    ]


# --- properties -----------------------------------------------------------------------------------------------------

CLAUSES = st.sampled_from([*(old for old, _ in CHANGED.values()), *(new for _, new in CHANGED.values())])
SETS = (
    st.tuples(test_match.policies, test_match.callers, st.lists(CLAUSES, min_size=4, max_size=4))
    .map(
        lambda found: (
            [
                policy(one.name, **{**clauses, "match": one.match.model_dump(mode="json")})
                for one, clauses in zip(found[0], found[2], strict=False)
            ],
            found[1],
        )
    )
    .filter(lambda found: not decide(*found)[1])
    .map(lambda found: made_of(*found))
)


def decisions(policies: PolicySet) -> dict[tuple[str, str], str]:
    return {(request.value, who): one.name for (request, who), one in policies.table.operations.items()}


def whom(affected: Iterable[Affected], said: Callable[[Change], bool]) -> set[tuple[str, str]]:
    return {
        (request, who)
        for one in affected
        for request in one.requests
        for who in one.callers
        if any(said(change) for change in one.changes)
    }


@given(policies=SETS)
def test_a_set_does_not_differ_from_itself(policies: PolicySet) -> None:
    assert diff(policies, policies) == ()


@given(old=SETS, new=SETS)
def test_who_is_let_in_one_way_is_refused_the_other(old: PolicySet, new: PolicySet) -> None:
    forth, back = diff(old, new), diff(new, old)

    def may(change: Change) -> bool:
        return change.says.startswith("may ask")

    def refused(change: Change) -> bool:
        return change.says.startswith("is refused")

    assert whom(forth, may) == whom(back, refused)
    assert whom(forth, refused) == whom(back, may)
    operations = set(OperationName)
    gone = {key for key in whom(forth, refused) if key[0] in operations}
    assert gone == decisions(old).keys() - decisions(new).keys()


@given(old=SETS, new=SETS)
def test_a_value_that_changes_for_somebody_changes_back(old: PolicySet, new: PolicySet) -> None:
    def is_of_a_value(change: Change) -> bool:
        return change.path.startswith(("timeout.", "headers.", "dedup.mode", "recover.within", "policy"))

    assert whom(diff(old, new), is_of_a_value) == whom(diff(new, old), is_of_a_value)


@given(old=SETS, new=SETS)
def test_neither_a_header_nor_a_question_is_told_where_it_does_not_belong(old: PolicySet, new: PolicySet) -> None:
    affected = diff(old, new)
    assert CANARY[1:] not in str(difference_as_json(affected)) + "\n".join(difference_lines(affected))
    asked = whom(affected, lambda change: change.path.startswith(("dedup.", "recover.")))
    assert {request for request, _ in asked} <= set(QUESTIONS)


# --- files ----------------------------------------------------------------------------------------------------------

FILES = {
    "callers.yaml": f'callers:\n  a: {{secret_sha256: "{DIGESTS[0]}"}}\n  b: {{secret_sha256: "{DIGESTS[1]}"}}\n',
    "checks.yaml": f"match: {{operations: ['*']}}\nheaders:\n  set: {{X-Key: {CANARY}, X-Site: north}}\n",
}


def directory(at: Path, files: Mapping[str, str]) -> PolicySet:
    at.mkdir()
    for name, text in files.items():
        (at / name).write_text(text)
    return load(at)


def test_comments_order_and_the_names_of_callers_files_are_no_change(tmp_path: Path) -> None:
    other = {
        "one.yml": f'# b comes first\ncallers: {{b: {{secret_sha256: ["{DIGESTS[1]}"]}}}}\n',
        "two.yaml": f'callers: {{a: {{operations: ["*"], secret_sha256: "{DIGESTS[0]}"}}}}\n',
        "checks.yml": f"headers:\n  set: {{X-Site: north, x-key: {CANARY}}}\nmatch: {{operations: ['*']}}\n",
    }
    assert diff(directory(tmp_path / "old", FILES), directory(tmp_path / "new", other)) == ()


def test_routes_are_named_beside_every_operation() -> None:
    asking = [caller("a")]
    match = {"operations": ["*"], "forward": ["GET /b", "GET /a"]}
    assert lines(made_of([policy("old", match=match)], asking), made_of([policy("new", match=match)], asking)) == [
        "a: every operation, GET /a, GET /b",
        "  policy old -> new: another policy governs, with the same values",
    ]


def test_a_policy_that_is_renamed_is_only_that(tmp_path: Path) -> None:
    renamed = {"callers.yaml": FILES["callers.yaml"], "all.yaml": FILES["checks.yaml"]}
    assert lines(directory(tmp_path / "old", FILES), directory(tmp_path / "new", renamed)) == [
        "a, b: every operation",
        "  policy checks -> all: another policy governs, with the same values",
    ]
