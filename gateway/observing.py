"""Who is told what happens: metrics, log, traces and the audit trail, each by the same records."""

import asyncio
import importlib.metadata
import math
import platform
import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from gateway.audit.book import Book
from gateway.audit.tag import Tags
from gateway.audit.target import Target
from gateway.audit.trail import End, Origin, Trail
from gateway.audit.trail import Sources as AuditSources
from gateway.exchange import CallRecord, Record, RecoveryRecord
from gateway.http.ingress import Observers
from gateway.http.upstream import CallObservers
from gateway.policy.files import PolicySet
from gateway.recovery.step import Sources as RecoverySources
from gateway.sealing import Mac, Sealing
from gateway.settings import Settings, variable
from gateway.start import DISTRUST, StartError
from gateway.telemetry.log import Log, log_call, log_record, log_recovery
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import NoTraces, Traces, TracingUnavailable
from gateway.tls import Distrust, distrust
from gateway.token.step import FetchResult

_AGAIN_S: Final = 60.0
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
    if settings.tls_client_certificate == "off" and any(one.entry.certificates for one in policies.callers.values()):
        log.warning(
            "notice",
            notice=f"callers have certificates, but {variable('tls_client_certificate')} is off: nobody is asked",
        )
    for notice in policies.notices:
        log.warning("notice", notice=notice)


def open_audit(settings: Settings, sealing: Sealing, metrics: Metrics, log: Log) -> Book:
    """Begin the audit trail, if there is to be one. Raises StartError."""
    if settings.audit is None:
        return Book(None, None, wall_now=_utc_now, on_end=lambda _: None)
    call = asyncio.get_running_loop().call_soon_threadsafe  # the log is the loop's
    (kid, key), *_ = sealing.signing_keys("audit")
    (_, tag_key), *_ = sealing.signing_keys("audit-tag")
    trail = Trail(
        Target(settings.audit),
        Mac(key),
        Origin(replica=socket.gethostname(), version=VERSION, kid=kid),
        AuditSources(
            now=time.monotonic,
            wall_now=_utc_now,
            on_written=metrics.audit_written,
            on_lost=metrics.audit_lost,
            on_trouble=lambda reason: call(partial(log.warning, "audit trail cannot be written", reason=reason)),
            on_again=lambda: call(partial(log.info, "audit trail is written again")),
        ),
    )
    try:
        trail.open()
    except OSError as error:
        raise StartError(
            f"{variable('audit')}: found {settings.audit} ({error.strerror}), expected a file that this process alone "
            "appends to, a directory for one, a named pipe that somebody reads, or '-'",
        ) from error
    metrics.watch_audit(
        waiting=lambda: trail.waiting, is_available=lambda: trail.is_available, sequence=lambda: trail.tip.seq
    )

    def on_end(end: End) -> None:
        (log.warning if end.lost else log.info)("audit trail ended", audit_last=str(end.tip), lost=end.lost)

    return Book(trail, Tags(Mac(tag_key)), wall_now=_utc_now, on_end=on_end)


def _utc_now() -> datetime:
    return datetime.now(UTC)


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


def of_issuers(metrics: Metrics, log: Log) -> Callable[[str, str], None]:
    """Who is told whether an issuer's keys could be had: the log when that changes, the metrics each time."""
    failing: set[str] = set()

    def on_fetched(issuer: str, reason: str) -> None:
        metrics.issuer_keys_fetched(issuer, not reason)
        if reason and issuer not in failing:
            failing.add(issuer)
            log.warning("an issuer's keys cannot be had", issuer=issuer, reason=reason)
        elif not reason and issuer in failing:
            failing.discard(issuer)
            log.info("an issuer's keys are there again", issuer=issuer)

    return on_fetched


def of_recoveries(
    metrics: Metrics, log: Log, audit: Book, now: Callable[[], float], new_id: Callable[[], str]
) -> RecoverySources:
    """Who is told how a search for a cut submission ended."""

    def on_ended(record: RecoveryRecord) -> None:
        metrics.observe_recovery(record)
        log_recovery(log, record)
        audit.recovery(record)

    return RecoverySources(
        now=now,
        wall_now=time.time,
        jitter=random.random,
        new_id=new_id,
        on_tried=metrics.recovery_tried,
        on_ended=on_ended,
    )


def of_distrust(log: Log, now: Callable[[], float]) -> Callable[[BaseException], None]:
    """Tell the log why no secure connection to the upstream is made: at once where that changes, else once a minute."""
    told: dict[Distrust, float] = {}

    def on_distrust(error: BaseException) -> None:
        reason = distrust(error)
        if reason is None or now() - told.get(reason, -math.inf) < _AGAIN_S:
            return
        told[reason] = now()
        log.warning("the upstream is not trusted, or does not trust us", reason=reason.value, notice=DISTRUST[reason])

    return on_distrust


def of_calls(  # noqa: PLR0913 - one for each who is told
    metrics: Metrics,
    log: Log,
    traces: Traces | NoTraces,
    audit: Book,
    now: Callable[[], float],
    *,
    on_distrust: Callable[[BaseException], None],
) -> CallObservers:
    """Who is told how an upstream call ended."""

    def on_call(call: CallRecord) -> None:
        metrics.observe_call(call)
        log_call(log, call)
        traces.on_call(call)
        audit.call(call)

    return CallObservers(now=now, on_call=on_call, begin_trace=traces.call, on_distrust=on_distrust)


def of_requests(  # noqa: PLR0913 - one for each who is told
    metrics: Metrics,
    log: Log,
    traces: Traces | NoTraces,
    audit: Book,
    *,
    now: Callable[[], float],
    new_id: Callable[[], str],
) -> Observers:
    """Who is told how a request ended."""

    def on_record(record: Record) -> None:
        metrics.observe(record)
        log_record(log, record)
        traces.on_record(record)
        audit.request(record)

    return Observers(
        now=now,
        new_id=new_id,
        on_record=on_record,
        on_defect=lambda defect: log.error("defect", error=type(defect).__name__),
        begin_trace=traces.begin,
        tag_of=audit.tag_of,
    )
