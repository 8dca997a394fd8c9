import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.recovery.subject import Subject, agrees, subject_of

ISA = "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1030*^*00501*000000001*0*T*:~"
PAYER = "NM1*PR*2*SOME PAYER*****PI*PAYER-1~"
SUBSCRIBER = "NM1*IL*1*ROE*RICHARD****MI*M0001~DMG*D8*19710304*M~"
DEPENDENT = "NM1*03*1*ROE*RITA~DMG*D8*20100506*F~"
SUBJECT = Subject(payer="payer1", member_id="m0001", birth_date="19710304", first_name="richard", last_name="roe")
QUESTION: dict[str, Any] = {
    "tradingPartnerServiceId": "PAYER-1",
    "subscriber": {"memberId": "M0001", "firstName": "Richard", "lastName": "Roe", "dateOfBirth": "19710304"},
}
ANSWER: dict[str, Any] = {
    "payer": {"chcId": "PAYER-1"},
    "patient": {"memberId": "m-0001", "firstName": "RICHARD", "lastName": "ROE", "dateOfBirth": "1971-03-04"},
}


def read(document: object, *, is_x12: bool = False) -> Subject | None:
    return subject_of(json.dumps(document).encode(), is_x12=is_x12)


def test_json_and_x12_say_the_same() -> None:
    assert read(QUESTION) == SUBJECT
    assert read({"x12": ISA + PAYER + SUBSCRIBER}, is_x12=True) == SUBJECT
    assert read({"x12": (ISA + PAYER + SUBSCRIBER).replace("~", "~\n")}, is_x12=True) == SUBJECT


def test_a_dependent_is_the_patient() -> None:
    child = Subject(payer="payer1", member_id="m0001", birth_date="20100506", first_name="rita", last_name="roe")

    assert read({"x12": ISA + PAYER + SUBSCRIBER + DEPENDENT}, is_x12=True) == child
    dependent = {"firstName": "Rita", "lastName": "Roe", "dateOfBirth": "20100506"}
    assert read(QUESTION | {"dependents": [dependent]}) == child


@pytest.mark.parametrize(
    ("document", "is_x12"),
    [
        ([], False),
        ({}, False),
        ({"subscriber": "text"}, False),
        ({"subscriber": {}, "dependents": {"a": 1}}, False),
        ({"x12": "short"}, True),
        ({"x12": "x" * 200}, True),
        ({"x12": 7}, True),
        ({}, True),
    ],
)
def test_what_cannot_be_read_names_nobody(document: object, is_x12: bool) -> None:  # noqa: FBT001 - a table
    assert read(document, is_x12=is_x12) is None


def test_a_transaction_of_the_same_payer_and_patient_agrees() -> None:
    assert agrees(SUBJECT, ANSWER)
    assert agrees(SUBJECT, {"subscriber": ANSWER["patient"]})
    assert agrees(SUBJECT, {"patient": {"memberId": "M0001"}})
    assert agrees(SUBJECT, {"patient": {"dateOfBirth": "1971-03-04"}, "subscriber": {"memberId": "M0001"}})


@pytest.mark.parametrize(
    "differing",
    [
        {"payer": {"chcId": "PAYER-2"}},
        *({"patient": ANSWER["patient"] | {name: "other"}} for name in ANSWER["patient"]),
        {"patient": {}},
        {"patient": {"firstName": "Richard", "lastName": "Roe"}},  # many are called so
        {"patient": "text"},
    ],
)
def test_one_contradiction_is_enough_and_a_name_is_not(differing: dict[str, object]) -> None:
    assert not agrees(SUBJECT, ANSWER | differing)


def test_a_submission_that_names_nobody_agrees_with_nobody() -> None:
    nobody = read({"subscriber": {}})
    assert nobody is not None
    assert not agrees(nobody, ANSWER)


@given(st.dictionaries(st.sampled_from(sorted(ANSWER["patient"])), st.text(max_size=8)))
def test_a_stranger_never_agrees(patient: dict[str, str]) -> None:
    stranger = Subject(payer="", member_id="m9", birth_date="20200101", first_name="", last_name="")

    stated = {str(value) for value in patient.values()}
    if not any(value.lower().strip("-_ ") in {"m9", "20200101"} for value in stated):
        assert not agrees(stranger, {"patient": patient})


def test_a_subject_shows_nothing_of_itself() -> None:
    assert repr(SUBJECT) == "Subject()"
