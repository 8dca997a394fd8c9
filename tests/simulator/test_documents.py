import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator import x12
from gateway.simulator.answers import transaction_document
from gateway.simulator.inquiry import Inquiry, Rejected, iso_date, read_inquiry
from gateway.simulator.payers import PAYERS, Outcome, Payer, payer_for
from gateway.simulator.records import Transaction

Body = Callable[..., dict[str, Any]]
X12 = Callable[..., str]
AT = datetime(2026, 1, 2, 10, 30, tzinfo=UTC)
NAMES = (
    "subscriber",
    "encounter",
    "dateOfService",
    "controlNumber",
    "dependents",
    "provider",
    "npi",
    "dateOfBirth",
    "firstName",
    "serviceTypeCodes",
    "tradingPartnerServiceId",
    "additionalIdentification",
)
ID = "11111111-2222-4333-8444-555555555555"


def transaction(inquiry: Inquiry, payer: Payer, outcome: Outcome | None = None) -> Transaction:
    return Transaction(
        id=ID,
        tenant_id="tenant",
        correlation_id="corr",
        source_type="new",
        source_id=None,
        processed_at=AT,
        outcome=outcome or payer.outcome,
        payer=payer,
        inquiry=inquiry,
        discoveries=(),
    )


def inquiry_of(body: dict[str, Any]) -> Inquiry:
    inquiry = read_inquiry(body)
    assert isinstance(inquiry, Inquiry)
    return inquiry


@pytest.mark.parametrize("payer_id", sorted(PAYERS))
def test_a_271_is_cut_by_its_own_delimiters_and_its_counts_agree(body_for: Body, payer_id: str) -> None:
    payer = payer_for(payer_id)
    document = transaction_document(transaction(inquiry_of(body_for(payer_id)), payer))
    if payer.outcome in {Outcome.PROCESSING_ERROR, Outcome.PAYER_NOT_IN_SYSTEM}:
        assert "x12-271" not in document
        return
    text = document["x12-271"]
    message = x12.cut(text)
    assert message is not None
    assert (text[105], len(message.segments[0])) == ("~", 17)
    names = [segment[0] for segment in message.segments]
    start, end = names.index("ST"), names.index("SE")
    assert message.segments[end][1] == str(end - start + 1)
    assert message.segments[0][13] == message.segments[-1][2] == "100000001"
    assert x12.element(message.named("NM1", "PR"), 9) == payer_id
    rows = [segment for segment in message.segments if segment[0] == "EB"]
    assert len(rows) == len(document.get("benefits", [])) + (payer.outcome in {Outcome.ELIGIBLE, Outcome.INELIGIBLE})


def test_a_dependent_is_the_patient(body_for: Body) -> None:
    body = body_for("SIM-FAST", dependents=[{"firstName": "Rita", "lastName": "Roe", "dateOfBirth": "20150607"}])
    document = transaction_document(transaction(inquiry_of(body), payer_for("SIM-FAST")))
    assert document["patient"] == {"firstName": "Rita", "lastName": "Roe", "dateOfBirth": "2015-06-07"}
    assert document["subscriber"]["firstName"] == "Richard"
    assert "~NM1*03*1*ROE*RITA~" in document["x12-271"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_in_a_request_can_break_out_of_its_element(first: str, last: str) -> None:
    body = {
        "tradingPartnerServiceId": "SIM-FAST",
        "subscriber": {"firstName": first, "lastName": last, "memberId": "M*1~SE*0"},
        "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30"]},
    }
    plain = body | {"subscriber": {"firstName": "A", "lastName": "B", "memberId": "M1"}}
    cut = [
        x12.cut(transaction_document(transaction(inquiry_of(each), payer_for("SIM-FAST")))["x12-271"])
        for each in (body, plain)
    ]
    shapes = [[(segment[0], len(segment)) for segment in message.segments] for message in cut if message is not None]
    assert len(shapes) == 2
    assert shapes[0] == shapes[1]


def test_json_and_x12_ask_the_same_question(body_for: Body, x12_for: X12) -> None:
    from_json, from_x12 = inquiry_of(body_for("SIM-FAST")), x12.read_inquiry(x12_for("SIM-FAST"))
    assert isinstance(from_x12, Inquiry)
    for field in (
        "payer_id",
        "npi",
        "account_number",
        "date_of_service",
        "service_types",
        "control_number",
    ):
        assert getattr(from_json, field) == getattr(from_x12, field), field
    assert from_x12.subscriber.date_of_birth == from_json.subscriber.date_of_birth == "1971-03-04"
    assert from_x12.subscriber.member_id == from_json.subscriber.member_id


@pytest.mark.parametrize(("element", "component", "repetition", "segment"), ["|>!\n", "*:^~", "+<\\'"])
def test_the_delimiters_are_those_that_isa_declares(
    x12_for: X12,
    element: str,
    component: str,
    repetition: str,
    segment: str,
) -> None:
    marks = {ord("*"): element, ord(":"): component, ord("^"): repetition, ord("~"): segment}
    spelled = x12_for("SIM-FAST").translate(marks)
    inquiry = x12.read_inquiry(spelled)
    assert isinstance(inquiry, Inquiry)
    assert (inquiry.payer_id, inquiry.service_types) == ("SIM-FAST", ("30", "98"))


def test_line_breaks_between_segments_are_not_data(x12_for: X12) -> None:
    broken = "\n" + x12_for("SIM-FAST").replace("~", "~\r\n")
    assert x12.read_inquiry(broken) == x12.read_inquiry(x12_for("SIM-FAST"))


def test_numbering_does_not_make_a_different_question_but_a_date_of_birth_does(x12_for: X12) -> None:
    first = x12.read_inquiry(x12_for("SIM-FAST", "100000001"))
    again = x12.read_inquiry(x12_for("SIM-FAST", "200000002"))
    other = x12.read_inquiry(x12_for("SIM-FAST").replace("19710304", "19710305"))
    assert isinstance(first, Inquiry)
    assert isinstance(again, Inquiry)
    assert isinstance(other, Inquiry)
    assert first.digest == again.digest != other.digest


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for each in (text, "ISA" + text, re.sub(r"\s", "*", text) * 3):
        assert isinstance(x12.read_inquiry(each), Inquiry | Rejected)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
        max_leaves=20,
    ),
)
def test_any_object_is_read_or_refused(document: object) -> None:
    if isinstance(document, dict):
        assert isinstance(read_inquiry(document), Inquiry | Rejected)


@pytest.mark.parametrize(
    ("text", "date"),
    [("19710304", "1971-03-04"), ("1971-03-04", "1971-03-04"), ("20260229", None), ("1971034", None), ("", None)],
)
def test_dates_are_real_days(text: str, date: str | None) -> None:
    assert iso_date(text) == date


def test_every_id_has_a_payer() -> None:
    assert payer_for("SIM-HMO").hmo
    assert (payer_for("60054").id, payer_for("60054").outcome) == ("60054", Outcome.ELIGIBLE)
    assert payer_for("").outcome is Outcome.PAYER_NOT_IN_SYSTEM
    assert {payer.outcome for payer in PAYERS.values()} == set(Outcome)
