import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import OUTCOMES
from gateway.policy.model import Timeout
from gateway.telemetry.timeouts import TimedOut, after_answer, after_error, of_request, outcome_of

MARKS = Timeout()
GATEWAYS = b'{"error": "gateway_timeout", "error_description": "x", "traceId": "abc"}'
APIS = b'["the payer did not answer"]'
DOWN = "payer_unavailable"


def stated(outcome: str) -> bytes:
    return b'{"id": "t", "status": {"value": "%b", "description": "x"}, "benefits": []}' % outcome.encode()


@pytest.mark.parametrize(
    ("status", "body", "outcome", "elapsed_s", "by"),
    [
        (504, GATEWAYS, "other", 110.2, TimedOut.ENTERPRISE_GATEWAY),
        (504, GATEWAYS, "other", 45.0, TimedOut.ENTERPRISE_GATEWAY),  # nobody else answers in this shape
        (504, GATEWAYS, "other", 121.0, TimedOut.ENTERPRISE_GATEWAY),
        (504, APIS, "other", 120.3, TimedOut.CLEARINGHOUSE),
        (504, APIS, "other", 110.3, TimedOut.ENTERPRISE_GATEWAY),
        (504, b"", "other", 114.9, TimedOut.ENTERPRISE_GATEWAY),
        (504, b"", "other", 115.0, TimedOut.CLEARINGHOUSE),
        (504, b"", "other", 60.0, None),
        (200, b"", DOWN, 120.1, TimedOut.CLEARINGHOUSE),
        (200, b"", DOWN, 116.4, TimedOut.CLEARINGHOUSE),
        (200, b"", DOWN, 116.3, None),
        (200, b"", DOWN, 2.0, None),  # an outage that is known
        (200, b"", "eligible", 121.0, None),
        (502, GATEWAYS, "other", 110.0, None),
    ],
)
def test_an_answer_tells_whose_time_was_up(
    status: int, body: bytes, outcome: str, elapsed_s: float, by: TimedOut | None
) -> None:
    assert after_answer(status, body, outcome, elapsed_s, MARKS) == by


@pytest.mark.parametrize(
    ("code", "elapsed_s", "by"),
    [
        ("upstream_connect_timeout", 5.0, TimedOut.CONNECT),
        ("upstream_timeout", 125.0, TimedOut.GATEWAY),
        ("upstream_unreachable", 0.1, None),
        ("upstream_broken", 106.6, None),
        ("upstream_broken", 106.8, TimedOut.ENTERPRISE_GATEWAY),
        ("upstream_broken", 114.9, TimedOut.ENTERPRISE_GATEWAY),
        ("upstream_broken", 120.0, TimedOut.CLEARINGHOUSE),
        ("internal_error", 120.0, None),
        ("", 120.0, None),
    ],
)
def test_a_problem_tells_whose_time_was_up(code: str, elapsed_s: float, by: TimedOut | None) -> None:
    assert after_error(code, elapsed_s, MARKS) == by


@pytest.mark.parametrize(
    ("code", "status", "body", "had_left", "by_call", "by"),
    [
        ("", 200, b"", False, "", ""),
        ("", 200, b"", False, "clearinghouse", "clearinghouse"),
        ("", 504, b"", True, "enterprise_gateway", "caller"),  # whatever came later
        ("answer_pending", 504, b"", False, "", "gateway"),
        ("deadline_exceeded", 504, b"", False, "", "gateway"),
        ("answer_pending", 504, b"", False, "enterprise_gateway", "gateway"),  # cut while it was looked up
        ("upstream_connect_timeout", 504, b"", False, "", "connect"),
        ("", 504, GATEWAYS, False, "", "enterprise_gateway"),  # a follower's share
        ("", 504, APIS, False, "", ""),
        ("overloaded", 503, b"", False, "", ""),
    ],
)
def test_a_request_has_at_most_one_who_timed_out(  # noqa: PLR0913, PLR0917 - a table
    code: str,
    status: int,
    body: bytes,
    had_left: bool,  # noqa: FBT001
    by_call: str,
    by: str,
) -> None:
    assert of_request(code, status, body, had_left=had_left, by_call=by_call) == by


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_an_outcome_of_the_contract_is_read(outcome: str) -> None:
    assert outcome_of(200, stated(outcome)) == outcome


@pytest.mark.parametrize("body", [stated("something_else"), b"{}", b"", b"\xff", b'{"status": "eligible"}'])
def test_any_other_is_other(body: bytes) -> None:
    assert outcome_of(200, body) == "other"
    assert outcome_of(500, stated("eligible")) == "other"
    assert outcome_of(None, b"") == "none"


@given(st.binary(max_size=300))
def test_whatever_comes_the_outcome_is_of_a_closed_set(body: bytes) -> None:
    assert outcome_of(200, body) in OUTCOMES | {"other"}
