"""`python -m bench.variant silent|crowded serve`: the gateway without telemetry, or with that of a large fleet.

`silent` tells no metric and no log of any request or call; everything else is as it is. `crowded` begins with what 50
callers, 9 operations and 20 payers leave behind, each with every decision that it can have.
"""

import sys
from typing import Any

import gateway.app
from gateway.cli import main
from gateway.exchange import CallRecord, Decision, DecisionKind, Record
from gateway.http.ingress import Observers
from gateway.http.upstream import CallObservers
from gateway.operations import QUESTIONS, OperationName
from gateway.telemetry.metrics import Metrics

CALLERS, PAYERS = 50, 20
_OBSERVERS, _CALL_OBSERVERS = gateway.app._observers, gateway.app._call_observers  # noqa: SLF001 - what is taken out


def _nobody(*_: object) -> None:
    """Tell nobody."""


def silent(*arguments: Any) -> Observers:  # noqa: ANN401 - the app's own
    """Whom the ingress tells, when nobody is."""
    told = _OBSERVERS(*arguments)
    return Observers(now=told.now, new_id=told.new_id, on_record=_nobody, on_defect=told.on_defect)


def silent_calls(*arguments: Any) -> CallObservers:  # noqa: ANN401 - the app's own
    """Whom the upstream tells, when nobody is."""
    return CallObservers(now=_CALL_OBSERVERS(*arguments).now, on_call=_nobody)


def crowded(**options: Any) -> Metrics:  # noqa: ANN401 - the app's own
    """The metrics of a process that has served many."""
    payers = [f"PAYER-{number:02}" for number in range(PAYERS)]
    metrics = Metrics(**{**options, "payers": payers})
    for operation in OperationName:
        for caller in range(CALLERS):
            for kind in DecisionKind if operation in QUESTIONS else (None,):
                metrics.observe(_record(operation, f"caller-{caller:02}", kind))
        for payer in payers:
            metrics.observe_call(_call(operation, payer))
    return metrics


def _record(operation: str, caller: str, kind: DecisionKind | None) -> Record:
    return Record(
        operation=operation,
        caller=caller,
        policy="all",
        method="POST",
        status=200,
        code="",
        correlation_id="",
        trace_id="",
        duration_s=1.0,
        upstream_s=None,
        upstream_status=None,
        upstream_calls=0,
        token_wait_s=0.0,
        follow_s=1.0 if kind is DecisionKind.FOLLOW else None,
        own_s=0.001,
        budget_s=130.0,
        payer="other",
        timed_out_by="",
        recovery="",
        left_s=None,
        dedup=Decision(mode="enforce", kind=kind) if kind is not None else None,
        request_bytes=0,
        reply_bytes=0,
        is_complete=True,
        trace=None,
    )


def _call(operation: str, payer: str) -> CallRecord:
    return CallRecord(
        operation=operation,
        caller="",
        payer=payer,
        status=200,
        outcome="eligible",
        timed_out_by="",
        correlation_id="",
        trace_id="",
        duration_s=1.0,
        is_awaited=True,
        trace=None,
    )


if __name__ == "__main__":
    if sys.argv.pop(1) == "silent":
        setattr(gateway.app, "_observers", silent)  # noqa: B010 - what a caller of the app cannot say
        setattr(gateway.app, "_call_observers", silent_calls)  # noqa: B010
    else:
        setattr(gateway.app, "Metrics", crowded)  # noqa: B010
    main()
