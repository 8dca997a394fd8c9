import hashlib
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.operations import BASE_PATH, OperationName
from gateway.policy.callers import Caller, CallerEntry, CallersFile, Issuer, LimitsClause
from gateway.policy.model import (
    DedupClause,
    DedupMode,
    FieldsClause,
    HeadersClause,
    Match,
    Policy,
    Timeout,
    TokenClause,
    is_under_base_path,
)
from gateway.policy.values import HOP_BY_HOP, PROTECTED_HEADERS, read_duration, read_rate, write_duration, write_rate

DIGEST = "0" * 64
DURATION = re.compile(r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)")


def cased(name: str) -> st.SearchStrategy[str]:
    """The name in any mixture of cases."""
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda flips: "".join(c.upper() if flip else c.lower() for c, flip in zip(name, flips, strict=True)),
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("250ms", 0.25), ("5s", 5.0), ("2m", 120.0), ("24h", 86400.0), ("30d", 2_592_000.0)),
        *(("0s", 0.0), ("0.5s", 0.5), ("1.5h", 5400.0), ("007s", 7.0)),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "5",
            "s",
            "5 s",
            " 5s",
            "5s ",
            "5s\n",
            "-5s",
            "+5s",
            "5S",
            "5sec",
            "1e3s",
            ".5s",
            "5.s",
            "5m30s",
            "inf",
            "1,5s",
        ),
        *(5, 5.0, 0, True, None, ["5s"], {"s": 5}),
    ],
)
def test_anything_else_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="a duration such as 250ms, 5s, 2m, 24h or 30d"):
        read_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400.0, "1d"), (90000.0, "25h"), (125.0, "125s"), (120.0, "2m"), (0.25, "250ms"), (1.5, "1500ms"), (0.0, "0s")],
)
def test_a_duration_is_written_in_the_largest_unit_that_divides_it(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@given(st.decimals(min_value=0, max_value=10**7, places=3), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_that_was_written_is_read_as_the_same(number: object, unit: str) -> None:
    seconds = read_duration(f"{number}{unit}")
    assert isinstance(seconds, float)

    written = write_duration(seconds)

    assert DURATION.fullmatch(written)
    again = read_duration(written)
    assert isinstance(again, float)
    assert math.isclose(again, seconds, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("text", ["9" * 400 + "s", "9" * 400 + "d"])
def test_a_duration_without_end_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Timeout.model_validate({"answer": text})


@pytest.mark.parametrize("field", ["connect", "answer"])
@pytest.mark.parametrize("text", ["0s", "0ms", "0.0d"])
def test_a_timeout_is_more_than_nothing(field: str, text: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Timeout.model_validate({field: text})


def test_a_window_of_nothing_is_allowed() -> None:
    assert DedupClause.model_validate({"window": "0s"}).window == 0.0


@given(st.sampled_from(sorted(PROTECTED_HEADERS)).flatmap(cased))
def test_a_protected_header_is_neither_set_nor_removed_in_any_case(spelled: str) -> None:
    for clause in ({"set": {spelled: "forged"}}, {"remove": [spelled]}):
        with pytest.raises(ValidationError, match="a header that the gateway does not answer for itself"):
            HeadersClause.model_validate(clause)


@pytest.mark.parametrize("name", sorted(PROTECTED_HEADERS))
def test_each_protected_header_is_refused_as_it_is_usually_written(name: str) -> None:
    for spelled in (name, name.title(), name.upper()):
        with pytest.raises(ValidationError, match="a header that the gateway does not answer for itself"):
            HeadersClause.model_validate({"set": {spelled: "forged"}})


def test_what_the_gateway_answers_for_is_protected() -> None:
    assert {
        *("authorization", "x-api-key", "x-optum-tenant-id", "x-optum-subtenant-id", "x-optum-correlation-id"),
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"),
    } <= PROTECTED_HEADERS


def test_every_hop_by_hop_header_is_protected() -> None:
    assert HOP_BY_HOP <= PROTECTED_HEADERS


@pytest.mark.parametrize("name", ["X-Site", "x-optum-eligibility-disable-value-add", "Accept", "x~odd!"])
def test_any_other_header_may_be_set_and_removed(name: str) -> None:
    clause = HeadersClause.model_validate({"set": {name: "a b"}, "remove": ["X-Other"]})

    assert clause.set == {name: "a b"}
    assert clause.touched == {name.lower(), "x-other"}


@pytest.mark.parametrize(
    "name", ["", "x_site", "X-Optum_Subtenant-Id", "x site", "x:site", "x-sité", "x-site\r\n", "x\x00"]
)
def test_a_name_that_is_no_token_or_has_an_underscore_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="a header name"):
        HeadersClause.model_validate({"set": {name: "a"}})


@pytest.mark.parametrize("value", ["", " a", "a ", "a\r\nX-Forged: b", "a\n", "a\x00", "é", "\t", "a\x7f"])
def test_a_value_that_could_end_the_header_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="a header value in visible ASCII"):
        HeadersClause.model_validate({"set": {"X-Site": value}})


@given(cased("x-site"), cased("x-site"))
def test_a_header_is_set_or_removed_and_not_both(one: str, other: str) -> None:
    with pytest.raises(ValidationError, match="either set or remove, not both: x-site"):
        HeadersClause.model_validate({"set": {"X-A": "a", one: "b"}, "remove": ["X-B", other]})


def test_every_header_that_is_both_set_and_removed_is_named() -> None:
    with pytest.raises(ValidationError, match="not both: x-a, x-b "):
        HeadersClause.model_validate({"set": {"X-B": "b", "X-C": "c", "X-A": "a"}, "remove": ["x-b", "x-a", "x-d"]})


def test_two_spellings_of_one_header_are_refused() -> None:
    with pytest.raises(ValidationError, match="each header once"):
        HeadersClause.model_validate({"set": {"X-Site": "a", "x-site": "b"}})


@pytest.mark.parametrize(
    "route", ["GET /a", "POST /a/*", "DELETE /", "GET /*", f"GET {BASE_PATH}/payers", "PATCH /a.b/~c"]
)
def test_a_route_is_a_method_and_a_path(route: str) -> None:
    assert Match.model_validate({"forward": [route]}).forward == (route,)


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        *((route, "a method and a path such as") for route in ("", "/a", "GET", "GET a", "get /a", "HEAD /a", "* /a")),
        *(
            (route, "a method and a path such as")
            for route in ("GET  /a", "GET /a b", "GET /a?b=c", "GET /é", "GET /a*b")
        ),
        *(
            (route, "a method and a path such as")
            for route in ("GET /a%2fb", "GET /**", "GET /a\n", "GET /a\\b", "TRACE /a")
        ),
        ("GET /a*", "only after a slash"),
        ("GET /a/../b", "without dot segments"),
        ("GET /./a", "without dot segments"),
        ("GET /../*", "without dot segments"),
        (f"POST {BASE_PATH}", "not already one of the nine operations"),
        (f"GET {BASE_PATH}/transactions/abc", "not already one of the nine operations"),
    ],
)
def test_anything_else_is_no_route(route: str, expected: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        Match.model_validate({"forward": [route]})


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (Policy, {"match": {}, "dedupe": {}}),
        (Match, {"operation": ["*"]}),
        (Timeout, {"read": "5s"}),
        (HeadersClause, {"sets": {}}),
        (TokenClause, {"retry": True}),
        (DedupClause, {"windows": "1h"}),
        (CallersFile, {"callers": {"a": {}}, "match": {}}),
        (CallerEntry, {"secret": "x"}),
    ],
)
def test_a_misspelt_field_is_an_error_and_never_a_default(model: type[BaseModel], document: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate(document)


@pytest.mark.parametrize("value", ["true", "yes", 1, 0, None, "on"])
@pytest.mark.parametrize(
    ("model", "field"),
    [(TokenClause, "inject"), (TokenClause, "retry_unauthorized"), (DedupClause, "exclude_prior_month")],
)
def test_a_switch_is_true_or_false_and_nothing_like_it(model: type[BaseModel], field: str, value: object) -> None:
    with pytest.raises(ValidationError, match="valid boolean"):
        model.model_validate({field: value})


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Europe/Berlin"])
def test_a_time_zone_is_one_that_the_database_knows(zone: str) -> None:
    assert DedupClause.model_validate({"time_zone": zone}).time_zone == zone


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "America", "EST5\x00", "local"]
)
def test_any_other_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="an IANA time zone"):
        DedupClause.model_validate({"time_zone": zone})


@pytest.mark.parametrize("name", ["a", "scheduling", "billing-2", "0", "a" * 63])
def test_a_name_of_a_caller_is_short_and_plain(name: str) -> None:
    assert list(CallersFile.model_validate({"callers": {name: {}}}).callers) == [name]
    assert Match.model_validate({"callers": [name]}).callers == (name,)


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a b", "a" * 64, "a\n", "é", "a.b"])
def test_any_other_name_of_a_caller_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="a name of lower-case letters"):
        CallersFile.model_validate({"callers": {name: {}}})
    with pytest.raises(ValidationError, match='a caller\'s name, or "\\*"'):
        Match.model_validate({"callers": [name]})


def test_a_match_names_at_least_one_caller() -> None:
    assert Match().callers == ("*",)
    with pytest.raises(ValidationError, match="at least 1 item"):
        Match.model_validate({"callers": []})


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_a_digest_has_64_lower_case_hex_digits(digest: str) -> None:
    for value in (digest, [DIGEST, digest]):
        with pytest.raises(ValidationError) as caught:
            CallerEntry.model_validate({"secret_sha256": value})
        assert not digest or digest not in str(caught.value)


@pytest.mark.parametrize(
    ("given_digests", "expected"),
    [(None, ()), (DIGEST, (DIGEST,)), ([DIGEST, "1" * 64], (DIGEST, "1" * 64))],
)
def test_a_caller_has_no_digest_or_one_or_several(given_digests: object, expected: tuple[str, ...]) -> None:
    entry = CallerEntry.model_validate({} if given_digests is None else {"secret_sha256": given_digests})

    assert entry.digests == expected


@pytest.mark.parametrize("subtenant", ["", "a b", "a/b", "é", "a" * 65, "a\n", "a,b"])
def test_a_subtenant_id_fits_a_header(subtenant: str) -> None:
    with pytest.raises(ValidationError, match="a subtenant id as Optum assigned it"):
        CallerEntry.model_validate({"subtenant": subtenant})
    with pytest.raises(ValidationError):
        HeadersClause.model_validate({"subtenant": subtenant})


@pytest.mark.parametrize(
    ("operations", "operation", "may"),
    [
        (("*",), OperationName.HEALTHCHECK, True),
        (("*",), None, True),
        (("healthcheck",), OperationName.HEALTHCHECK, True),
        (("healthcheck",), OperationName.SUBMIT_ELIGIBILITY, False),
        (("healthcheck",), None, False),
        (("forwarded",), None, True),
        (("forwarded",), OperationName.HEALTHCHECK, False),
        (("healthcheck", "forwarded"), None, True),
        (("healthcheck", "forwarded"), OperationName.HEALTHCHECK, True),
        (("healthcheck", "forwarded"), OperationName.SUBMIT_ELIGIBILITY, False),
        ((), OperationName.HEALTHCHECK, False),
        ((), None, False),
    ],
)
def test_a_caller_may_use_what_its_entry_lists(
    operations: tuple[str, ...],
    operation: OperationName | None,
    may: bool,  # noqa: FBT001 - a column of the table
) -> None:
    caller = Caller(name="billing", entry=CallerEntry.model_validate({"operations": operations}))

    assert caller.may_use(operation) is may


@pytest.mark.parametrize("operation", ["forward", "FORWARDED", "submit", "", "**", None])
def test_anything_else_is_no_operation_of_a_caller(operation: object) -> None:
    with pytest.raises(ValidationError, match="'forwarded' or '\\*'"):
        CallerEntry.model_validate({"operations": [operation]})


def test_a_policy_does_not_match_forwarded_paths_by_that_name() -> None:
    with pytest.raises(ValidationError, match="operations"):
        Match.model_validate({"operations": ["forwarded"]})


@pytest.mark.parametrize(
    ("path", "is_under"),
    [(BASE_PATH, True), (BASE_PATH + "/payers", True), (BASE_PATH + "x", False), ("/rcm", False), ("", False)],
)
def test_the_tree_of_the_api_ends_at_a_slash(path: str, is_under: bool) -> None:  # noqa: FBT001 - a column of the table
    assert is_under_base_path(path) is is_under


def test_a_policy_that_says_only_what_it_matches_has_the_documented_rest() -> None:
    policy = Policy.model_validate({"match": {"operations": ["*"]}})

    assert (policy.timeout.connect, policy.timeout.answer) == (5.0, 125.0)
    assert (policy.headers.subtenant, policy.headers.subtenant_choices, policy.headers.touched) == (
        "from-caller",
        (),
        frozenset(),
    )
    assert (policy.token.inject, policy.token.retry_unauthorized) == (True, True)
    assert (policy.dedup.mode, policy.dedup.window, policy.dedup.share) == (DedupMode.OFF, 0.0, "subtenant")


def test_no_policy_is_changed_after_it_was_read() -> None:
    policy = Policy.model_validate({"match": {"operations": ["*"]}})

    with pytest.raises(ValidationError, match="frozen"):
        policy.timeout = Timeout()


@pytest.mark.parametrize(
    "path",
    [
        "subscriber",
        "subscriber.memberId",
        "dependents",
        "dependents.dateOfBirth",
        "tradingPartnerServiceId",
        "encounter",
    ],
)
def test_no_policy_can_give_one_patients_answer_to_another(path: str) -> None:
    with pytest.raises(ValidationError, match="gets another's answer"):
        FieldsClause.model_validate({"ignored": ["controlNumber", path]})


@pytest.mark.parametrize("path", ["portalUsername", "subscriber.additionalIdentification.patientAccountNumber"])
def test_what_only_numbers_a_request_may_be_ignored(path: str) -> None:
    assert FieldsClause.model_validate({"ignored": [path]}).ignored == (path,)


def test_the_order_of_dependents_always_counts() -> None:
    with pytest.raises(ValidationError, match="that of dependents does"):
        FieldsClause.model_validate({"sets": ["dependents"]})


# --- callers: limits, certificates, issuers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate", "written"),
    [("50/s", 50.0, "50/s"), ("600/m", 10.0, "10/s"), ("1/h", 1 / 3600, "1/h"), ("90/m", 1.5, "90/m")],
)
def test_a_rate_is_read_once_and_written_in_the_smallest_unit(text: str, rate: float, written: str) -> None:
    assert read_rate(text) == pytest.approx(rate)
    assert write_rate(rate) == written


@given(st.integers(1, 999_999_999), st.sampled_from("smh"))
def test_a_rate_that_is_written_is_read_again(number: int, unit: str) -> None:
    rate = read_rate(f"{number}/{unit}")
    assert isinstance(rate, float)
    assert read_rate(write_rate(rate)) == pytest.approx(rate)


@pytest.mark.parametrize("value", ["0/s", "-1/s", "5", "5/d", "5 /s", "1.5/s", "", "5/s ", "9999999999/s", 5, None])
def test_whatever_else_is_no_rate(value: object) -> None:
    with pytest.raises(ValueError, match="50/s or 600/m"):
        read_rate(value)


@pytest.mark.parametrize(
    ("limits", "burst"),
    [({}, 1), ({"rate": "50/s"}, 50), ({"rate": "1/m"}, 1), ({"rate": "90/m"}, 2), ({"rate": "1/s", "burst": 9}, 9)],
)
def test_as_many_may_come_at_once_as_in_a_second(limits: dict[str, object], burst: int) -> None:
    assert LimitsClause.model_validate(limits).burst_size == burst


@pytest.mark.parametrize(
    "limits",
    [
        {"burst": 2},
        {"in_flight": 0},
        {"queue": -1},
        {"wait": "61s"},
        {"rate": "0/s"},
        {"in_flight": "5"},
        {"queue": 10_001},
    ],
)
def test_a_limit_that_says_nothing_or_too_much_is_refused(limits: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitsClause.model_validate(limits)


@pytest.mark.parametrize("name", ["dns:a", "dns:api.example.org", "uri:spiffe://mesh/ns/a/sa/b", "dns:_a.b-c"])
def test_a_name_of_a_certificate_says_its_kind(name: str) -> None:
    assert CallerEntry.model_validate({"certificates": [name]}).certificates == (name,)


@pytest.mark.parametrize(
    "entry",
    [
        *[
            {"certificates": [name]}
            for name in ("a", "dns:", "dns:A", "dns:*.a", "email:a@b", "uri:", "uri:a b", "dns:a.")
        ],
        *[{"subjects": [name]} for name in ("s", "cluster/", "/s", "Cluster/s", "cluster/a b", "")],
    ],
)
def test_whatever_else_is_no_name_of_a_certificate_and_no_subject(entry: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CallerEntry.model_validate(entry)


def test_the_digest_of_nothing_is_no_secrets() -> None:
    with pytest.raises(ValidationError, match="not of nothing"):
        CallerEntry.model_validate({"secret_sha256": hashlib.sha256(b"").hexdigest()})


ISSUER = {"issuer": "https://a", "audience": "us"}


@pytest.mark.parametrize(
    "more",
    [
        {"jwks": "https://a/keys"},
        {"jwks": "https://a:8443/keys?x=1", "ca": "/ca.crt", "bearer_file": "/token"},
        {"jwks": "http://localhost:1/keys"},
        {"jwks": "http://127.0.0.1:1/keys"},
        {"jwks": "/keys.json"},
    ],
)
def test_an_issuers_keys_are_at_a_url_or_in_a_file(more: dict[str, object]) -> None:
    assert Issuer.model_validate({**ISSUER, **more}).is_file is str(more["jwks"]).startswith("/")


@pytest.mark.parametrize(
    "more",
    [
        *[
            {"jwks": url}
            for url in ("http://a/keys", "keys.json", "ftp://a", "https://", "https://u:p@a/k", "https://a/k#x")
        ],
        {"jwks": "/keys.json", "ca": "/ca.crt"},
        {"jwks": "/keys.json", "bearer_file": "/token"},
        {"jwks": "https://a/keys", "ca": "ca.crt"},
        {"jwks": "https://a/keys", "issuer": ""},
        {"jwks": "https://a/keys", "audience": "a b"},
        {},
    ],
)
def test_an_issuer_that_could_be_read_along_the_way_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Issuer.model_validate({**ISSUER, **more})
