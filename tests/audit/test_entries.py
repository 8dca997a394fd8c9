"""What an entry says, and what a tag is the digest of."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.audit.entries import of_call, of_event, of_recovery, of_request
from gateway.audit.step import AuditStep, Availability
from gateway.audit.tag import About, Tags
from gateway.errors import AuditUnavailable
from gateway.exchange import (
    CallRecord,
    Decision,
    DecisionKind,
    Exchange,
    Inbound,
    Outbound,
    Record,
    Recovery,
    RecoveryRecord,
    Reply,
)
from gateway.operations import OPERATIONS, OperationName
from gateway.policy.model import AuditClause, Match, Policy
from gateway.sealing import Mac
from tests.telemetry.conftest import CALL, RECORD

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TAGS = Tags(Mac(b"t" * 32))
DECISION = Decision(mode="enforce", kind=DecisionKind.REPLAY, age_s=12.5)

record = cast("Callable[..., Record]", lambda **more: Record(**(RECORD | more)))
call = cast("Callable[..., CallRecord]", lambda **more: CallRecord(**(CALL | more)))


def asked(operation: OperationName | None, target: str, body: bytes = b"", *, is_forwarded: bool = False) -> Exchange:
    inbound = Inbound(method="GET", raw_target=target, headers=CIMultiDict(), raw_headers=(), body=body)
    return Exchange(
        inbound=inbound,
        correlation_id="c-1",
        started_at=0.0,
        operation=OPERATIONS[operation] if operation is not None else None,
        is_forwarded=is_forwarded,
    )


# --- entries ---------------------------------------------------------------------------------------------------------


def test_an_entry_says_who_asked_what_and_what_came_of_it() -> None:
    entry = json.loads(of_request(record(dedup=DECISION, subtenant="s-1", tag="q:1", left_s=3.0), AT))

    assert (
        entry.items()
        >= {
            "at": "2026-01-02T03:04:05Z",
            "entry": "request",
            "caller": record().caller,
            "subtenant": "s-1",
            "dedup": "replay",
            "dedup_mode": "enforce",
            "dedup_age_s": 12.5,
            "tag": "q:1",
            "left_s": 3.0,
            "status": record().status,
        }.items()
    )


def test_every_request_has_the_same_members_in_the_same_order() -> None:
    one, two = (json.loads(of_request(record(dedup=dedup), AT)) for dedup in (None, DECISION))

    assert list(one) == list(two)
    assert (one["dedup"], one["dedup_mode"], one["dedup_reason"], one["dedup_age_s"]) == (None, None, None, None)


def test_what_happens_beside_requests_has_entries_of_its_own() -> None:
    recovery = RecoveryRecord(
        operation="submit_eligibility",
        caller="billing",
        payer="other",
        recovery=Recovery.NOT_FOUND,
        timed_out_by="clearinghouse",
        correlation_id="c-1",
        trace_id="",
        duration_s=2.0,
        trace=None,
    )

    assert json.loads(of_call(call(), AT))["entry"] == "call"
    assert json.loads(of_recovery(recovery, AT)).items() >= {"entry": "recovery", "recovery": "not_found"}.items()
    assert json.loads(of_event("policies", AT, before="a", after="b")) == {
        "at": "2026-01-02T03:04:05Z",
        "entry": "policies",
        "before": "a",
        "after": "b",
    }


# --- tags ------------------------------------------------------------------------------------------------------------

BASE = "/rcm/eligibility/v1"


@pytest.mark.parametrize(
    ("exchange", "about", "what"),
    [
        (asked(OperationName.SUBMIT_DISCOVERY, f"{BASE}/coverage-discovery", b"{}"), About.BODY, b"{}"),
        (asked(OperationName.GET_TRANSACTION, f"{BASE}/transactions/t-1?a=b"), About.ID, b"t-1"),
        (asked(OperationName.GET_DISCOVERY, f"{BASE}/coverage-discovery/t-1"), About.ID, b"t-1"),
        (asked(OperationName.LIST_TRANSACTIONS, f"{BASE}/transactions?a=b"), About.QUERY, b"a=b"),
        (asked(None, "/extra/t-1?a=b", is_forwarded=True), About.PATH, b"/extra/t-1?a=b"),
        (asked(None, "/extra/\udcff", is_forwarded=True), About.PATH, b"/extra/\xff"),
        (asked(None, "/extra", b"body", is_forwarded=True), About.BODY, b"body"),
    ],
)
def test_a_tag_is_of_what_a_request_is_about(exchange: Exchange, about: About, what: bytes) -> None:
    assert TAGS.of(exchange) == TAGS.made(about, what)


@pytest.mark.parametrize(
    "exchange",
    [
        asked(OperationName.HEALTHCHECK, f"{BASE}/healthcheck"),
        asked(OperationName.SUBMIT_ELIGIBILITY, BASE),
        asked(None, "/nowhere/t-1?a=b", b"body"),
    ],
)
def test_what_was_refused_unread_or_asks_for_nothing_has_no_tag(exchange: Exchange) -> None:
    assert TAGS.of(exchange) == ""


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from(About), st.sampled_from(About))
def test_tags_are_the_same_for_the_same_and_for_nothing_else(
    one: bytes, two: bytes, about_one: About, about_two: About
) -> None:
    is_same = (one, about_one) == (two, about_two)

    assert (TAGS.made(about_one, one) == TAGS.made(about_two, two)) is is_same
    assert TAGS.made(about_one, one) != Tags(Mac(b"u" * 32)).made(about_one, one)
    assert TAGS.question(one) == TAGS.made(About.QUESTION, one)


# --- the step --------------------------------------------------------------------------------------------------------


class Now:
    """A trail that can be written, or not."""

    def __init__(self, *, is_available: bool) -> None:
        self.is_available = is_available


async def forward(_exchange: Exchange, _outbound: Outbound, /) -> Reply:
    return Reply(status=200, reason="OK", headers=CIMultiDict(), body=b"")


@pytest.mark.parametrize("is_available", [True, False])
@pytest.mark.parametrize("unavailable", ["proceed", "reject"])
async def test_a_policy_decides_whether_a_request_may_pass_unseen(unavailable: str, is_available: bool) -> None:  # noqa: FBT001 - a column
    exchange = asked(OperationName.HEALTHCHECK, f"{BASE}/healthcheck")
    exchange.policy = Policy(match=Match(), audit=AuditClause.model_validate({"unavailable": unavailable}))
    outbound = Outbound(method="GET", raw_target="", headers=CIMultiDict(), body=b"")
    step = AuditStep(cast("Availability", Now(is_available=is_available)))

    if unavailable == "reject" and not is_available:
        with pytest.raises(AuditUnavailable) as caught:
            await step(forward, exchange, outbound)
        assert (caught.value.retry_safe, caught.value.retry_after_s) == (True, 5)
    else:
        assert (await step(forward, exchange, outbound)).status == 200
    assert exchange.must_be_audited is (unavailable == "reject" and is_available)
