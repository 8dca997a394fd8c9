"""`python -m bench.variant timed|crowded serve`: the gateway with a stop-watch on its telemetry, or a large fleet's.

`timed` adds up the CPU that making records, counting and logging take, where they take it: in the process, with the
caches as requests leave them. `crowded` begins with what 50 callers, 9 operations and 20 payers leave behind, each
with every decision that it can have.
"""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import gateway.http.ingress
import gateway.http.upstream
import gateway.observing
import gateway.telemetry.log
import gateway.telemetry.metrics
from gateway.cli import main
from gateway.exchange import CallRecord, Decision, DecisionKind, Record
from gateway.operations import QUESTIONS, OperationName
from gateway.telemetry.metrics import Metrics

CALLERS, PAYERS = 50, 20
TIMED_METRIC = "bench_telemetry_microseconds"


class StopWatch:
    """Adds up the CPU time of this thread in what it is put around; what is nested counts once."""

    def __init__(self) -> None:
        self.ns = 0
        self._depth = 0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same work, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the work takes
            self._depth += 1
            began = time.thread_time_ns()
            try:
                return work(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.ns += time.thread_time_ns() - began

        return timed


def put_stop_watch() -> None:
    """Time everything that telemetry does for a request."""
    watch = StopWatch()
    for owner, name in (
        (gateway.http.ingress.Ingress, "_record"),
        (gateway.http.upstream.Upstream, "_ended"),
        (gateway.telemetry.metrics.Metrics, "observe"),
        (gateway.telemetry.log._Lines, "_write_out"),  # noqa: SLF001 - the bench looks behind every door
        (gateway.observing, "log_record"),
    ):
        setattr(owner, name, watch.around(getattr(owner, name)))
    exposition = Metrics.exposition

    def shown(metrics: Metrics, accept: str) -> tuple[str, Iterator[bytes]]:
        content_type, slices = exposition(metrics, accept)
        return content_type, chain(slices, [f"{TIMED_METRIC} {watch.ns // 1000}\n".encode()])

    setattr(Metrics, "exposition", shown)  # noqa: B010 - what a caller of the app cannot say


def crowded(**options: Any) -> Metrics:  # noqa: ANN401 - the app's own
    """The metrics of a process that has served many."""
    payers = [f"PAYER-{number:02}" for number in range(PAYERS)]
    metrics = Metrics(**options)
    metrics.expect(callers=(), payers=payers)
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
        identified_by="secret",
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
    if sys.argv.pop(1) == "timed":
        put_stop_watch()
    else:
        setattr(gateway.observing, "Metrics", crowded)  # noqa: B010
    main()
