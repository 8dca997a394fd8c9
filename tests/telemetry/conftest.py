from collections.abc import Callable
from typing import Any

import pytest

from gateway.exchange import CallRecord, Record

RECORD: dict[str, Any] = {
    "operation": "submit_eligibility",
    "caller": "scheduling",
    "identified_by": "secret",
    "policy": "eligibility",
    "method": "POST",
    "status": 200,
    "code": "",
    "correlation_id": "c-1",
    "trace_id": "t-1",
    "duration_s": 1.23456789,
    "upstream_s": 1.0,
    "upstream_status": 200,
    "upstream_calls": 1,
    "token_wait_s": 0.0,
    "follow_s": None,
    "own_s": 0.002,
    "budget_s": 130.0,
    "payer": "other",
    "timed_out_by": "",
    "recovery": "",
    "left_s": None,
    "dedup": None,
    "request_bytes": 10,
    "reply_bytes": 20,
    "is_complete": True,
    "trace": None,
}
CALL: dict[str, Any] = {
    "operation": "submit_eligibility",
    "caller": "scheduling",
    "payer": "other",
    "status": 200,
    "outcome": "eligible",
    "timed_out_by": "",
    "correlation_id": "c-1",
    "trace_id": "t-1",
    "duration_s": 1.5,
    "is_awaited": True,
    "trace": None,
}


@pytest.fixture
def record() -> Callable[..., Record]:
    """Make a record of a finished request; what is named differs from a good one."""
    return lambda **differing: Record(**(RECORD | differing))


@pytest.fixture
def call() -> Callable[..., CallRecord]:
    """Make a record of a finished call; what is named differs from a good one."""
    return lambda **differing: CallRecord(**(CALL | differing))
