"""Who shares an answer with whom: everything that makes another question, and everything that does not."""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.dedup.compare import field_rules
from gateway.dedup.fingerprint import Asker, answering_headers, questions_of, read_question, subtenant_pattern
from gateway.exchange import Inbound
from gateway.policy.model import FieldsClause, HeadersClause
from gateway.sealing import Sealing, new_key
from tests.dedup.test_x12 import ADA, interchange

NAME = Sealing([new_key("k")]).name
RULES = field_rules(FieldsClause())
ASKER = Asker(upstream="https://api", credential="tenant-1", subtenant="north", caller="")
BODY: dict[str, Any] = {
    "controlNumber": "123456789",
    "tradingPartnerServiceId": "60054",
    "provider": {"organizationName": "Harbour Clinic", "npi": "1999999984"},
    "subscriber": {"memberId": "M1", "firstName": "Ada", "lastName": "Sample", "dateOfBirth": "19700101"},
    "dependents": [{"firstName": "Bo", "dateOfBirth": "20100101"}, {"firstName": "Cy", "dateOfBirth": "20120101"}],
    "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30", "1"]},
}

Change = Callable[[dict[str, Any]], None]


def key(
    body: dict[str, Any] | bytes,
    asker: Asker = ASKER,
    *,
    query: str = "",
    headers: tuple[tuple[str, str], ...] = (),
    x12: bool = False,
) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    operation = "submit_eligibility_x12" if x12 else "submit_eligibility"
    return read_question(raw, RULES, is_x12=x12).key(NAME, operation, asker, query=query, headers=headers)


def changed(change: Change) -> dict[str, Any]:
    body = deepcopy(BODY)
    change(body)
    return body


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.update(tradingPartnerServiceId="60055"),
        lambda b: b["subscriber"].update(memberId="M2"),
        lambda b: b["subscriber"].update(memberId="m1"),
        lambda b: b["subscriber"].update(firstName="Eda"),
        lambda b: b["subscriber"].update(dateOfBirth="19700102"),
        lambda b: b["subscriber"].pop("dateOfBirth"),
        lambda b: b["dependents"].reverse(),
        lambda b: b["dependents"].pop(),
        lambda b: b.update(dependents=[]),
        lambda b: b["encounter"].update(dateOfService="20260103"),
        lambda b: b["encounter"].update(serviceTypeCodes=["30"]),
        lambda b: b["encounter"].update(serviceTypeCodes=["30", "2"]),
        lambda b: b["provider"].update(npi="1999999976"),
        lambda b: b.update(subscriber={**b["subscriber"], "lastName": "Sam ple"}),
        lambda b: b.update(portalPassword="x"),
    ],
)
def test_whatever_is_asked_differently_is_not_shared(change: Change) -> None:
    assert key(changed(change)) != key(BODY)


@pytest.mark.parametrize(
    "other",
    [
        Asker(upstream="https://other", credential="tenant-1", subtenant="north", caller=""),
        Asker(upstream="https://api", credential="tenant-2", subtenant="north", caller=""),
        Asker(upstream="https://api", credential="tenant-1", subtenant="south", caller=""),
        Asker(upstream="https://api", credential="tenant-1", subtenant="", caller=""),
        Asker(upstream="https://api", credential="tenant-1", subtenant="north", caller="billing"),
    ],
)
def test_whoever_asks_on_anothers_behalf_shares_nothing(other: Asker) -> None:
    assert key(BODY, other) != key(BODY)
    assert key(BODY, query="a=1") != key(BODY)
    assert key(BODY, headers=(("x-optum-rcmelig-mock-scenarios", "A"),)) != key(BODY)


def shuffled(value: Any, source: random.Random) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        pairs = [(name, shuffled(inner, source)) for name, inner in value.items()]
        source.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, list):
        return [shuffled(inner, source) for inner in value]
    return value


@given(seed=st.integers(), indent=st.sampled_from([None, 1, 4]), number=st.integers(0, 10**9 - 1), upper=st.booleans())
def test_however_it_is_written_down_it_is_shared(seed: int, indent: int | None, number: int, upper: bool) -> None:  # noqa: FBT001
    source = random.Random(seed)  # noqa: S311
    body = shuffled(BODY, source)
    body["controlNumber"] = f"{number:09d}"
    body["submitterTransactionIdentifier"] = f"s{number}"
    subscriber = body["subscriber"]
    subscriber["middleName"] = source.choice([None, "", "  "])
    subscriber["firstName"] = f" {subscriber['firstName'].upper() if upper else subscriber['firstName']} "
    subscriber["memberId"] = f"{subscriber['memberId']} "
    body["provider"]["organizationName"] = "HARBOUR   clinic"
    body["providerCode"] = source.choice([None, [], {}, {"a": None}])
    source.shuffle(body["encounter"]["serviceTypeCodes"])
    assert key(json.dumps(body, indent=indent).encode()) == key(BODY)


def test_x12_is_shared_by_what_it_asks() -> None:
    def of(text: str) -> bytes:
        return key({"x12": text}, x12=True)

    whole = interchange(ADA)
    assert of(whole) == of(interchange(ADA, number="000000777"))
    assert of(whole.replace("~", "~\n")) == of(whole)
    for before, after in (("SAMPLE", "SIMPLE"), ("ADA", "EDA")):
        if before in whole:
            assert of(whole.replace(before, after)) != of(whole)


@pytest.mark.parametrize("rules", [{"ignored": ["controlNumber"]}, {"case_folded": ["memberId"]}, {"sets": []}])
def test_policies_that_read_questions_by_other_rules_share_nothing(rules: dict[str, list[str]]) -> None:
    others = field_rules(FieldsClause.model_validate(rules))
    raw = json.dumps(BODY).encode()
    assert read_question(raw, others, is_x12=False).key(NAME, "submit_eligibility", ASKER, query="", headers=()) != key(
        raw
    )


def test_json_and_x12_of_the_same_bytes_are_two_questions() -> None:
    raw = json.dumps({"x12": interchange(ADA)}).encode()
    assert key(raw) != key(raw, x12=True)
    assert len(questions_of(raw, RULES)) == 2
    assert len(questions_of(json.dumps(BODY).encode(), RULES)) == 1


def test_what_is_stored_is_found_by_subtenant_and_by_question_and_by_nothing_else() -> None:
    from fnmatch import fnmatchcase  # noqa: PLC0415

    stored = key(BODY).decode()
    question = read_question(json.dumps(BODY).encode(), RULES, is_x12=False)
    other = read_question(json.dumps(BODY | {"a": 1}).encode(), RULES, is_x12=False)
    assert fnmatchcase(stored, subtenant_pattern(NAME, "north").decode())
    assert not fnmatchcase(stored, subtenant_pattern(NAME, "south").decode())
    assert fnmatchcase(stored, question.pattern(NAME, "north").decode())
    assert not fnmatchcase(stored, question.pattern(NAME, "south").decode())
    assert not fnmatchcase(stored, other.pattern(NAME, "north").decode())


def inbound(*headers: tuple[str, str]) -> Inbound:
    return Inbound(
        method="POST",
        raw_target="/",
        headers=CIMultiDict(headers),
        raw_headers=tuple((name.encode(), value.encode()) for name, value in headers),
        body=b"",
    )


@pytest.mark.parametrize(
    ("headers", "clause", "expected"),
    [
        ((("X-Optum-Rcmelig-Mock-Scenarios", "A"),), {}, (("x-optum-rcmelig-mock-scenarios", "A"),)),
        ((("x_optum_new", "A"),), {}, (("x-optum-new", "A"),)),
        ((("x-optum-b", "1"), ("x-optum-a", "2")), {}, (("x-optum-a", "2"), ("x-optum-b", "1"))),
        ((("x-optum-b", "2"), ("x-optum-b", "1")), {}, (("x-optum-b", "2"), ("x-optum-b", "1"))),
        ((("x-optum-correlation-id", "A"), ("x-optum-trace-id", "B"), ("x-team", "C")), {}, ()),
        ((("x-optum-tenant-id", "A"), ("x-optum-subtenant-id", "B")), {}, ()),
        ((("x-optum-a", "theirs"),), {"set": {"X-Optum-A": "ours"}}, (("x-optum-a", "ours"),)),
        ((("x-optum-a", "theirs"),), {"remove": ["X-Optum-A"]}, ()),
        ((("x-optum-eligibility-disable-value-add", "Deduplication"),), {}, ()),
        (
            (("x-optum-eligibility-disable-value-add", "b, deduplication,A"),),
            {},
            (("x-optum-eligibility-disable-value-add", "a"), ("x-optum-eligibility-disable-value-add", "b")),
        ),
    ],
)
def test_headers_that_may_change_the_answer_are_part_of_the_question(
    headers: tuple[tuple[str, str], ...], clause: dict[str, Any], expected: tuple[tuple[str, str], ...]
) -> None:
    assert answering_headers(inbound(*headers), HeadersClause.model_validate(clause)) == expected
