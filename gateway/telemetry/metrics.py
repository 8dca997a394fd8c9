"""What is counted, and how it is shown.

Rules
- What each request or call counts is a child that was looked up once; what an operator asks for is worked out when it
  is asked, in slices between which requests are served.
- Metrics are functions of records; what happens out of any request's sight is told by name.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

from prometheus_client.exposition import choose_encoder

from gateway.exchange import CallRecord, Decision, DecisionKind, Record, RecoveryRecord, Trace
from gateway.in_flight import InFlight
from gateway.policy.documents import Reading, Refusal
from gateway.policy.model import DedupMode
from gateway.telemetry.ages import BANDS, ROLES, Ages
from gateway.telemetry.families import Families
from gateway.telemetry.series import Exemplar, Histogram, Number
from gateway.tls import HandshakeFailure

NO_DECISION: Final = "none"
_KNOWN_STATUS: Final = frozenset(status.value for status in HTTPStatus)
_OTHER: Final = "other"
_DIGEST_CHARS: Final = 12
_SLICE: Final = 250  # ages worked out at once: some tenths of a millisecond


@dataclass(frozen=True, slots=True)
class _PerRequest:
    """What a request of certain labels counts."""

    requests: Number
    duration: Histogram
    own: Histogram
    budget: Histogram


class Metrics:
    """All metrics of one process. `wall_now` gives seconds since 1970."""

    def __init__(
        self,
        *,
        version: str,
        python_version: str,
        fetch_results: Iterable[str],
        wall_now: Callable[[], float],
    ) -> None:
        self._all = Families(version=version, python_version=python_version, fetch_results=fetch_results)
        self.registry = self._all.registry
        self._wall_now = wall_now
        self._per_request: dict[tuple[str, str, int, str], _PerRequest] = {}
        self._per_call: dict[tuple[str, str, str, int | None], Histogram] = {}
        self._per_decision: dict[tuple[str, str, str, str], tuple[Number, ...]] = {}
        self._in_flight = InFlight()
        self._now: Callable[[], float] = wall_now

    def watch(  # noqa: PLR0913 - one for each gauge
        self,
        *,
        in_flight: InFlight,
        now: Callable[[], float],
        token_age: Callable[[], float],
        followers: Callable[[], float],
        flights: Callable[[], float],
        queued: Callable[[], float],
    ) -> None:
        """Read these gauges from their sources at each scrape; `now` is the clock of what is in flight."""
        self._in_flight = in_flight
        self._now = now
        self._all.token_age.set_function(token_age)
        self._all.followers.set_function(followers)
        self._all.flights.set_function(flights)
        self._all.queued.set_function(queued)

    def watch_audit(
        self, *, waiting: Callable[[], float], is_available: Callable[[], bool], sequence: Callable[[], float]
    ) -> None:
        """Read these gauges of the audit trail from their sources at each scrape."""
        self._all.audit_waiting.set_function(waiting)
        self._all.audit_available.set_function(is_available)
        self._all.audit_sequence.set_function(sequence)

    # --- what is counted ---------------------------------------------------------------------------------------

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        dedup = record.dedup
        key = (record.operation, record.caller, record.status, dedup.kind if dedup is not None else NO_DECISION)
        children = self._per_request.get(key)
        if children is None:
            children = self._per_request[key] = self._children(*key)
        children.requests.value += 1
        bucket = children.duration.observe(record.duration_s)
        children.own.observe(record.own_s)
        if record.budget_s:
            children.budget.observe(record.duration_s / record.budget_s)
        if record.trace is not None:
            self._trace(children.duration, bucket, record.trace, record.duration_s)
        if dedup is not None:
            self._decided(record.operation, dedup)
        if record.follow_s is not None:
            self._all.follow_s.of(record.operation).observe(record.follow_s)
        if record.code:
            self._all.problems.of(record.code).value += 1
        if record.timed_out_by:
            self._all.timeouts.of(record.operation, record.timed_out_by).value += 1
        if not record.is_complete:
            self._all.incomplete.inc()

    def observe_call(self, call: CallRecord) -> None:
        """Count one finished upstream call."""
        key = (call.operation, call.payer, call.outcome, call.status)
        child = self._per_call.get(key)
        if child is None:
            labels = (call.operation, call.payer, call.outcome, _status_class(call.status))
            child = self._per_call[key] = self._all.upstream_s.of(*labels)
        bucket = child.observe(call.duration_s)
        if call.trace is not None:
            self._trace(child, bucket, call.trace, call.duration_s)
        if call.timed_out_by:
            self._all.call_timeouts.of(call.operation, call.payer, call.timed_out_by).value += 1

    def _children(self, operation: str, caller: str, status: int, decision: str) -> _PerRequest:
        return _PerRequest(
            self._all.requests.of(operation, caller, _status(status)),
            self._all.request_s.of(operation, caller, decision, _status_class(status)),
            self._all.own_s.of(operation),
            self._all.budget.of(operation),
        )

    def _trace(self, child: Histogram, bucket: int, trace: Trace, value: float) -> None:
        if trace.is_sampled:
            child.remember(bucket, Exemplar(trace.trace_id, value, self._wall_now()))

    def _decided(self, operation: str, decision: Decision) -> None:
        key = (operation, decision.mode, decision.kind, decision.reason)
        is_enforced = decision.mode == DedupMode.ENFORCE
        counters = self._per_decision.get(key)
        if counters is None:
            is_avoided = is_enforced and decision.kind in {DecisionKind.REPLAY, DecisionKind.FOLLOW}
            avoided = (self._all.avoided.of(operation, decision.kind),) if is_avoided else ()
            counters = self._per_decision[key] = (self._all.decisions.of(*key), *avoided)
        for counter in counters:
            counter.value += 1
        if decision.is_upstream_duplicate:
            self._all.avoided.of(operation, "upstream").value += 1
        if is_enforced and decision.age_s is not None:
            self._all.replay_age.observe(decision.age_s)
        if decision.difference:
            self._all.shadow.labels(decision.outcome, decision.difference).inc()

    def recovery_tried(self, operation: str) -> None:
        """Count one question whether a cut submission is there."""
        self._all.lookups.of(operation).value += 1

    def observe_recovery(self, record: RecoveryRecord) -> None:
        """Count what came of one cut submission."""
        self._all.recoveries.of(record.operation, record.recovery).value += 1

    def lease_lost(self) -> None:
        """Count one flight that another replica led on."""
        self._all.lost_leases.inc()

    def flight_taken_over(self) -> None:
        """Count one flight that was led on here."""
        self._all.takeovers.inc()

    def value_unusable(self) -> None:
        """Count one value that did not open."""
        self._all.unusable.inc()

    def answer_stored(self, size: int) -> None:
        """Count one answer that was put into Redis."""
        self._all.stored.inc()
        self._all.stored_bytes.inc(size)

    def token_fetched(self, result: str) -> None:
        """Count one question to the token endpoint."""
        self._all.token_fetches.labels(result).inc()

    def issuer_keys_fetched(self, issuer: str, is_good: bool) -> None:  # noqa: FBT001 - what came of it
        """Count one look for the keys of a platform."""
        self._all.issuer_key_fetches.labels(issuer, "good" if is_good else "failed").inc()

    def redis_failed(self, reason: str) -> None:
        """Count one thing that Redis did not do."""
        self._all.redis_errors.labels(reason).inc()

    def redis_left_alone(self, is_open: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        """Note that a breaker has opened, or closed."""
        self._all.breakers_open.inc(1 if is_open else -1)

    def policies_read(self, result: Reading | Refusal) -> None:
        """Note that the policy files were read, and what came of it."""
        is_good = isinstance(result, Reading)
        self._all.reloads.labels(result).inc()
        self._all.reload_ok.set(is_good)
        if is_good:
            self._all.reload_at.set(self._wall_now())

    def policies_in_force(self, digest: str, origin: str) -> None:
        """Note which policies are in force, and whether they are those of the directory or the last good ones."""
        self._all.policies.info({"digest": digest[:_DIGEST_CHARS], "origin": origin})

    def certificates_read(self, side: str, *, is_good: bool) -> None:
        """Note that a side's PEM files were read, and whether they can be used."""
        self._all.certificates_ok.labels(side).set(is_good)

    def certificate_in_force(self, side: str, ends_at: float) -> None:
        """Note when the certificate that a side is shown ends."""
        self._all.certificate_ends_at.labels(side).set(ends_at)

    def handshake_failed(self, reason: HandshakeFailure) -> None:
        """Count one handshake of a caller that failed."""
        self._all.handshakes_failed.labels(reason).inc()

    def expect(self, *, callers: Iterable[str], payers: Iterable[str]) -> None:
        """Know the callers and payers that the policies name, from now on."""
        self._all.expect(callers, payers)

    def audit_written(self, count: int) -> None:
        """Count entries of the audit trail."""
        self._all.audit_entries.inc(count)

    def audit_lost(self, reason: str, count: int) -> None:
        """Count entries that are not in the audit trail."""
        self._all.audit_lost.labels(reason).inc(count)

    def lines_skipped(self, count: int) -> None:
        """Count lines of the log that were not written."""
        self._all.skipped.inc(count)

    # --- what is shown -----------------------------------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """Return the content type, and the metrics in slices: as OpenMetrics where the scraper asks for it."""
        try:
            encode, content_type = choose_encoder(accept)
        except ValueError:  # a version that is none
            encode, content_type = choose_encoder("")
        return content_type, self._written(encode, is_openmetrics="openmetrics" in content_type)

    def _written(self, encode: Callable[[Any], bytes], *, is_openmetrics: bool) -> Iterator[bytes]:
        yield from self._count_ages()
        end = b"# EOF\n"
        for one in self._all.few:
            yield encode(one).removesuffix(end)  # a collector is all that an encoder needs of a registry
        for family in self._all.many:
            yield from family.written(is_openmetrics=is_openmetrics)
        if is_openmetrics:
            yield end

    def _count_ages(self) -> Iterator[bytes]:
        waiting, led = self._in_flight.waiting, self._in_flight.led
        ages = Ages()
        for exchanges, is_waiting in ((list(waiting), True), ([one for one in led if one not in waiting], False)):
            of_these = iter(exchanges)
            while batch := list(islice(of_these, _SLICE)):
                ages.add(batch, self._now(), is_waiting=is_waiting)
                yield b""
        for role in ROLES:
            self._all.oldest.of(role).value = ages.oldest_s[role]
            for payer in self._all.payers:
                for band in BANDS:
                    self._all.under_way.of(role, payer, band).value = ages.counts[role, payer, band]
            yield b""


def _status(status: int) -> str:
    return str(status) if status in _KNOWN_STATUS else _OTHER


def _status_class(status: int | None) -> str:
    if status is None:
        return "none"
    return f"{status // 100}xx" if status in _KNOWN_STATUS else _OTHER
