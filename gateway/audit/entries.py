"""What the trail says of what happened: each entry is a function of one record.

Rules
- Every value comes from a closed set, is a well-formed id, a number, or a keyed digest: no entry holds PHI.
- `at` is when the entry was made, in UTC; what it tells of began `duration_s` before.
- What is not so is left out of nothing: every request has the same members in the same order.
"""

from datetime import datetime
from typing import Final

import orjson

from gateway.exchange import CallRecord, Record, RecoveryRecord

_OPTIONS: Final = orjson.OPT_UTC_Z


def of_request(record: Record, at: datetime) -> bytes:
    """One finished request, whatever became of it."""
    dedup = record.dedup
    return _written(
        {
            "at": at,
            "entry": "request",
            "caller": record.caller,
            "identified_by": record.identified_by,
            "subtenant": record.subtenant,
            "operation": record.operation,
            "policy": record.policy,
            "method": record.method,
            "status": record.status,
            "code": record.code,
            "dedup": dedup.kind if dedup is not None else None,
            "dedup_mode": dedup.mode if dedup is not None else None,
            "dedup_reason": dedup.reason if dedup is not None else None,
            "dedup_age_s": dedup.age_s if dedup is not None else None,
            "upstream_status": record.upstream_status,
            "upstream_calls": record.upstream_calls,
            "recovery": record.recovery,
            "is_complete": record.is_complete,
            "left_s": record.left_s,
            "duration_s": record.duration_s,
            "tag": record.tag,
            "correlation_id": record.correlation_id,
            "trace_id": record.trace_id,
        }
    )


def of_call(call: CallRecord, at: datetime) -> bytes:
    """An upstream call that ended after the request which made it had its entry."""
    return _written(
        {
            "at": at,
            "entry": "call",
            "caller": call.caller,
            "operation": call.operation,
            "upstream_status": call.status,
            "outcome": call.outcome,
            "timed_out_by": call.timed_out_by,
            "duration_s": call.duration_s,
            "correlation_id": call.correlation_id,
            "trace_id": call.trace_id,
        }
    )


def of_recovery(record: RecoveryRecord, at: datetime) -> bytes:
    """What came of looking for a submission that was cut."""
    return _written(
        {
            "at": at,
            "entry": "recovery",
            "caller": record.caller,
            "operation": record.operation,
            "recovery": record.recovery,
            "duration_s": record.duration_s,
            "correlation_id": record.correlation_id,
            "trace_id": record.trace_id,
        }
    )


def of_event(event: str, at: datetime, **facts: str | int | bool | None) -> bytes:
    """Something that happened to the process."""
    return _written({"at": at, "entry": event, **facts})


def _written(members: dict[str, object]) -> bytes:
    return orjson.dumps(members, option=_OPTIONS)
