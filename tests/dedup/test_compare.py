"""Two files on a desk: one question, or two, and where they differ."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.dedup.compare import compare
from gateway.policy.model import FieldsClause
from tests.dedup.test_x12 import ADA, DATE, interchange, x12_body
from tests.test_cli import run

BODY: dict[str, Any] = {
    "controlNumber": "123456789",
    "tradingPartnerServiceId": "SIM-FAST",
    "subscriber": {"memberId": "CANARY1", "firstName": "Ada", "lastName": "Sample"},
    "dependents": [{"memberId": "D1"}, {"memberId": "D2"}],
    "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30", "1"]},
}


def paths(other: dict[str, Any], clause: FieldsClause | None = None) -> list[str]:
    first, second = (json.dumps(body).encode() for body in (BODY, other))
    return [one.path for one in compare(first, second, clause or FieldsClause(), is_x12=False)]


@pytest.mark.parametrize(
    "change",
    [
        {"controlNumber": "987654321"},
        {"submitterTransactionIdentifier": "mine"},
        {"tradingPartnerName": None},
        {"subscriber": {"lastName": "SAMPLE", "memberId": " CANARY1 ", "firstName": "ADA", "middleName": ""}},
        {"encounter": {"serviceTypeCodes": ["1", "30", "1"], "dateOfService": "20260102"}},
    ],
)
def test_the_shipped_rules_take_these_for_one_question(change: dict[str, Any]) -> None:
    assert paths(BODY | change) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"tradingPartnerServiceId": "SIM-SLOW"}, "tradingPartnerServiceId"),
        ({"subscriber": BODY["subscriber"] | {"memberId": "canary1"}}, "subscriber.memberId"),
        ({"encounter": BODY["encounter"] | {"dateOfService": "20260103"}}, "encounter.dateOfService"),
        ({"encounter": BODY["encounter"] | {"serviceTypeCodes": ["30", "2"]}}, "encounter.serviceTypeCodes[0]"),
        ({"dependents": [{"memberId": "D2"}, {"memberId": "D1"}]}, "dependents[0].memberId"),
    ],
)
def test_payer_member_date_services_and_order_of_dependents_make_two(change: dict[str, Any], path: str) -> None:
    assert path in paths(BODY | change)


def test_a_policy_may_say_otherwise() -> None:
    strict = FieldsClause.model_validate({"ignored": [], "case_folded": [], "sets": []})
    assert paths(BODY | {"controlNumber": "1"}, strict) == ["controlNumber"]


def test_a_difference_in_x12_is_named_by_its_segment() -> None:
    one = x12_body(interchange(ADA, DATE))
    two = x12_body(interchange(ADA.replace("MEMBER1", "MEMBER2"), DATE, "EQ*30"), patientId="p")
    assert [one.path for one in compare(one, two, FieldsClause(), is_x12=True)] == [
        "patientId",
        "x12.NM1[6][9][0][0]",
        "x12.EQ[8]",
    ]


def test_a_value_that_stands_where_a_segment_begins_is_no_name() -> None:
    one, two = (x12_body(interchange(ADA, "Sample*1", "SMITH*2", number)) for number in ("REF*1", "REF*2"))
    assert [one.path for one in compare(one, two, FieldsClause(), is_x12=True)] == ["x12.REF[9][1][0][0]"]
    two = x12_body(interchange(ADA, "Other*1", "SMITH*3", "REF*1"))
    assert [one.path for one in compare(one, two, FieldsClause(), is_x12=True)] == [
        "x12.?[7][0][0][0]",
        "x12.?[8][1][0][0]",
    ]


def files(tmp_path: Path, first: bytes, second: bytes) -> tuple[str, str]:
    (tmp_path / "a.json").write_bytes(first)
    (tmp_path / "b.json").write_bytes(second)
    return str(tmp_path / "a.json"), str(tmp_path / "b.json")


def test_the_command_says_where_and_not_what_unless_asked(tmp_path: Path) -> None:
    one = json.dumps(BODY).encode()
    two = json.dumps(BODY | {"subscriber": {"memberId": "CANARY2"}}).encode()
    pair = files(tmp_path, one, two)
    done = run("explain", "--compare", *pair)
    assert done.returncode == 1
    assert "subscriber.memberId" in done.stdout
    assert "CANARY" not in done.stdout + done.stderr
    assert "CANARY2" in run("explain", "--values", "--compare", *pair).stdout
    same = run("explain", "--compare", *files(tmp_path, one, json.dumps(BODY, indent=3).encode()))
    assert (same.returncode, same.stdout) == (0, "one question\n")


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b"not json", b'{"a":NaN}'])
def test_what_cannot_be_read_in_one_way_is_said(tmp_path: Path, body: bytes) -> None:
    done = run("explain", "--compare", *files(tmp_path, body, b"{}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read in exactly one way" in done.stderr
    assert "Traceback" not in done.stderr


def test_bodies_that_hold_x12_are_compared_as_x12_unless_told_otherwise(tmp_path: Path) -> None:
    pair = files(tmp_path, x12_body(interchange(ADA)), x12_body(interchange(ADA, number="000000009")))
    done = run("explain", "--compare", *pair)
    assert (done.returncode, done.stdout) == (0, "one question\n")
    assert run("explain", "--operation", "submit_eligibility", "--compare", *pair).returncode == 1


def test_what_is_never_deduplicated_is_not_compared(tmp_path: Path) -> None:
    done = run("explain", "--operation", "get_transaction", "--compare", *files(tmp_path, b"{}", b"{}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--operation: found get_transaction, expected one that is deduplicated")
