import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.recovery.find import Ambiguous, NotThere, There, Unreadable, get_target, is_answer, list_target, read_list
from gateway.recovery.subject import Subject

SENT_AT = datetime(2026, 1, 2, 12, 0, tzinfo=UTC).timestamp()
SUBJECT = Subject(payer="p", member_id="m1", birth_date="19700101", first_name="ada", last_name="sample")


def one(**differing: object) -> dict[str, Any]:
    return {
        "id": "t-1",
        "correlationId": "c-1",
        "sourceType": "new",
        "processedDate": "2026-01-02T12:01:55Z",
        "status": {"value": "eligible"},
        "payer": {"chcId": "P"},
        "patient": {"memberId": "M-1", "dateOfBirth": "1970-01-01"},
    } | differing


def listed(*transactions: object) -> bytes:
    return json.dumps(transactions).encode()


def test_the_targets_are_the_contracts() -> None:
    assert list_target("c-1", SENT_AT) == (
        "/rcm/eligibility/v1/transactions?correlationId=c-1&startDateTime=2026-01-02T11:59:00Z&limit=10"
    )
    assert get_target("t-1") == "/rcm/eligibility/v1/transactions/t-1"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (listed(one()), There("t-1")),
        (listed(one(sourceType="duplicate")), There("t-1")),
        (listed(one(), one(id="t-2", sourceType="historical")), There("t-1")),
        (listed(one(processedDate="2026-01-02T11:59:00Z")), There("t-1")),  # clocks differ
        (listed(one(processedDate="2026-01-02T12:01:55")), There("t-1")),  # without a zone it is UTC
        (listed(), NotThere()),
        (listed(one(correlationId="c-2")), NotThere()),
        (listed(one(correlationId=None)), NotThere()),
        (listed("text", 7, None), NotThere()),
        (listed(one(sourceType=[])), NotThere()),
        (listed(one(status="eligible")), NotThere()),
        (listed(one(status={"value": "in_progress"})), NotThere()),
        (listed(one(status={"value": None})), NotThere()),
        (listed(one(), one(id="t-2")), Ambiguous()),
        (listed(one(processedDate="2026-01-02T11:58:59Z")), Ambiguous()),
        (listed(one(processedDate=None)), Ambiguous()),
        (listed(one(id=None)), Unreadable()),
        (listed(one(id="a/b")), Unreadable()),
        (listed(one(id="")), Unreadable()),
        (b"{}", Unreadable()),
        (b"<html>", Unreadable()),
        (b"", Unreadable()),
    ],
)
def test_a_list_says_whether_the_transaction_is_there(body: bytes, found: object) -> None:
    assert read_list(body, "c-1", SENT_AT) == found


@pytest.mark.parametrize(
    "differing",
    [
        {"id": "t-2"},
        {"correlationId": "c-2"},
        {"sourceType": "historical"},
        {"processedDate": "2020-01-01T00:00:00Z"},
        {"patient": {"memberId": "M-2"}},
    ],
)
def test_what_was_read_whole_is_checked_again(differing: dict[str, object]) -> None:
    assert is_answer(json.dumps(one()).encode(), There("t-1"), "c-1", SENT_AT, SUBJECT)
    assert not is_answer(json.dumps(one(**differing)).encode(), There("t-1"), "c-1", SENT_AT, SUBJECT)


@given(st.binary(max_size=100))
def test_whatever_comes_it_is_no_answer_and_no_error(body: bytes) -> None:
    assert not isinstance(read_list(body, "c-1", SENT_AT), There)
    assert not is_answer(body, There("t-1"), "c-1", SENT_AT, SUBJECT)
