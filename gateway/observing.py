"""Who is told what happens: metrics, log and traces, each by the same records."""

import importlib.metadata
import platform
import random
import time
from collections.abc import Callable
from typing import Final

from gateway.exchange import CallRecord, Record, RecoveryRecord
from gateway.http.ingress import Observers
from gateway.http.upstream import CallObservers
from gateway.policy.files import PolicySet
from gateway.recovery.step import Sources as RecoverySources
from gateway.settings import Settings, variable
from gateway.start import StartError
from gateway.telemetry.log import Log, log_call, log_record, log_recovery
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import NoTraces, Traces, TracingUnavailable
from gateway.token.step import FetchResult

VERSION: Final = importlib.metadata.version("eligibility-gateway")


def open_metrics(log: Log) -> Metrics:
    """Return the metrics of this process."""
    metrics = Metrics(
        version=VERSION,
        python_version=platform.python_version(),
        fetch_results=FetchResult,
        wall_now=time.time,
    )
    log.on_skipped(metrics.lines_skipped)
    return metrics


def announce(policies: PolicySet, settings: Settings, metrics: Metrics, log: Log) -> None:
    """Tell the metrics whom the policies name, and the log what their author may not think of."""
    payers = {payer for policy in policies.policies for payer in policy.metrics.payers}
    metrics.expect(callers=policies.callers, payers=payers)
    longest_s = max(p.timeout.connect + p.timeout.answer + p.recover.within for p in policies.policies)
    if settings.drain_timeout_s < longest_s:
        log.warning(
            "notice",
            notice=f"{variable('drain_timeout_s')} is {settings.drain_timeout_s:g}: a call and its recovery may "
            f"take {longest_s:g} s, and what a stop cuts short is asked, and paid for, again",
        )
    for notice in policies.notices:
        log.warning("notice", notice=notice)


def open_traces(settings: Settings) -> Traces | NoTraces:
    """Return what keeps traces, or nothing that does. Raises StartError."""
    if not settings.otlp_endpoint:
        return NoTraces()
    try:
        return Traces(
            settings.otlp_endpoint,
            share=settings.trace_sample_ratio,
            version=VERSION,
            chance=random.Random(),  # noqa: S311 - ids of spans are no secrets
            wall_now=time.time,
        )
    except TracingUnavailable as error:
        raise StartError(
            f"{variable('otlp_endpoint')}: found no OpenTelemetry installed, expected the extra: "
            "pip install 'eligibility-gateway[otel]'",
        ) from error


def of_recoveries(metrics: Metrics, log: Log, now: Callable[[], float], new_id: Callable[[], str]) -> RecoverySources:
    """Who is told how a search for a cut submission ended."""

    def on_ended(record: RecoveryRecord) -> None:
        metrics.observe_recovery(record)
        log_recovery(log, record)

    return RecoverySources(
        now=now,
        wall_now=time.time,
        jitter=random.random,
        new_id=new_id,
        on_tried=metrics.recovery_tried,
        on_ended=on_ended,
    )


def of_calls(metrics: Metrics, log: Log, traces: Traces | NoTraces, now: Callable[[], float]) -> CallObservers:
    """Who is told how an upstream call ended."""

    def on_call(call: CallRecord) -> None:
        metrics.observe_call(call)
        log_call(log, call)
        traces.on_call(call)

    return CallObservers(now=now, on_call=on_call, begin_trace=traces.call)


def of_requests(
    metrics: Metrics, log: Log, traces: Traces | NoTraces, now: Callable[[], float], new_id: Callable[[], str]
) -> Observers:
    """Who is told how a request ended."""

    def on_record(record: Record) -> None:
        metrics.observe(record)
        log_record(log, record)
        traces.on_record(record)

    return Observers(
        now=now,
        new_id=new_id,
        on_record=on_record,
        on_defect=lambda defect: log.error("defect", error=type(defect).__name__),
        begin_trace=traces.begin,
    )
