"""Which metrics there are, prefix `eligibility_gateway_`.

Rules
- Every label value comes from a closed set: operations, callers and payers of the policy files, status codes of the
  standard, results named in the code. Nothing that a caller can invent becomes a time series.
- Buckets end well above the two-minute mark and lie dense around 110 s and 120 s, where requests are cut.
- A counter that an alert asks about is there from the start: the first event must be an increase.
"""

import math
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client import Histogram as ClientHistogram

from gateway.errors import every_problem
from gateway.exchange import OTHER_PAYER, OUTCOMES, Recovery
from gateway.operations import QUESTIONS
from gateway.policy.documents import Reading, Refusal
from gateway.telemetry.series import Histograms, Numbers
from gateway.telemetry.timeouts import NO_OUTCOME, OTHER_OUTCOME, TimedOut
from gateway.tls import HandshakeFailure

DURATION_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60),
    *(75, 90, 100, 105, 110, 115, 118, 120, 122, 125, 130),
)
OWN_BUCKETS_S: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
BUDGET_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1)
AGE_BUCKETS_S: Final = (1, 10, 60, 300, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)
_EXPECTED: Final = (("lead", "2xx"), ("lead", "5xx"), ("follow", "2xx"), ("replay", "2xx"))
_PREFIX: Final = "eligibility_gateway_"


class Families:
    """All metrics of one process.

    `few` holds those of few labels, which the library writes; `many` are the others; `registry` holds both, for whoever
    wants to read them one by one.
    """

    def __init__(self, *, version: str, python_version: str, fetch_results: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._few = CollectorRegistry()
        self.many: list[Numbers | Histograms] = []
        self.payers: tuple[str, ...] = ()
        info = Info(f"{_PREFIX}build", "What is running.", registry=self._few)
        info.info({"version": version, "python_version": python_version})
        self._declare_requests()
        self._declare_calls()
        self._declare_dedup()
        self._declare_token(fetch_results)
        self._declare_process()
        self.few = tuple(self._few._collector_to_names)  # noqa: SLF001 - the only list there is
        for collector in (*self.few, *self.many):
            self.registry.register(collector)
        self.expect((), ())

    def expect(self, callers: Iterable[str], payers: Iterable[str]) -> None:
        """Have what is asked about most from the start: where a series is born with an event, nobody sees the event.

        Payers and callers that were expected before stay: a counter that goes away is one that has lost its history.
        """
        self.payers = tuple(sorted({*self.payers, *payers, OTHER_PAYER}))
        for operation in QUESTIONS:
            for payer in self.payers:
                for by in (TimedOut.CLEARINGHOUSE, TimedOut.ENTERPRISE_GATEWAY, TimedOut.GATEWAY, TimedOut.CONNECT):
                    self.call_timeouts.of(operation, payer, by)
                for outcome in sorted(OUTCOMES):
                    self.upstream_s.of(operation, payer, outcome, "2xx")
                self.upstream_s.of(operation, payer, NO_OUTCOME, "none")
                self.upstream_s.of(operation, payer, OTHER_OUTCOME, "5xx")
            for caller in callers:
                for status in ("200", "502", "503", "504"):
                    self.requests.of(operation, caller, status)
                for decision, status_class in _EXPECTED:
                    self.request_s.of(operation, caller, decision, status_class)

    def _numbers(self, name: str, text: str, *labels: str, is_gauge: bool = False) -> Numbers:
        family = Numbers(_PREFIX + name, text, labels, is_gauge=is_gauge)
        self.many.append(family)
        return family

    def _histograms(
        self, name: str, text: str, *labels: str, bounds: Iterable[float] = DURATION_BUCKETS_S
    ) -> Histograms:
        family = Histograms(_PREFIX + name, text, labels, tuple(bounds))
        self.many.append(family)
        return family

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._few)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._few)

    def _declare_requests(self) -> None:
        self.requests = self._numbers("requests", "Finished requests.", "operation", "caller", "status")
        self.request_s = self._histograms(
            "request_duration_seconds",
            "From the request's head to the reply's last byte.",
            *("operation", "caller", "decision", "status_class"),
        )
        self.own_s = self._histograms(
            "own_duration_seconds",
            "Time that a request spent in the gateway itself and its Redis: not with the upstream, the token endpoint, "
            "a leader, or the caller.",
            "operation",
            bounds=OWN_BUCKETS_S,
        )
        self.budget = self._histograms(
            "budget_used_ratio",
            "Share of its time that a request took: of the policy's `timeout`, or of the caller's `Prefer: wait`.",
            "operation",
            bounds=BUDGET_BUCKETS,
        )
        self.under_way = self._numbers(
            "requests_in_flight",
            "Requests under way by age in seconds. `detached`: led on though the caller was answered or has left.",
            *("role", "payer", "age"),
            is_gauge=True,
        )
        self.queued = self._gauge("requests_queued", "Requests that wait for the turn of their caller.")
        self.oldest = self._numbers(
            "oldest_request_age_seconds",
            "Age of the oldest request under way; 0 where there is none.",
            "role",
            is_gauge=True,
        )
        self.timeouts = self._numbers(
            "timeouts",
            "Requests that ended without an answer because somebody's time was up, by whose.",
            *("operation", "by"),
        )
        for operation in QUESTIONS:
            for by in TimedOut:
                self.timeouts.of(operation, by)
        self.problems = self._numbers(
            "problems",
            "Replies that the gateway itself gave instead of an upstream's answer, by their stable code.",
            "code",
        )
        for problem in every_problem():
            self.problems.of(problem.code)
        self.incomplete = self._counter(
            "incomplete_replies",
            "Replies that were not delivered whole: the caller left, or the upstream was cut off.",
        )

    def _declare_calls(self) -> None:
        self.upstream_s = self._histograms(
            "upstream_duration_seconds",
            "Upstream calls, also those whose caller has left; outcome and status class are `none` without an answer.",
            *("operation", "payer", "outcome", "status_class"),
        )
        self.call_timeouts = self._numbers(
            "upstream_timeouts",
            "Upstream calls that ended without an answer because somebody's time was up, by whose.",
            *("operation", "payer", "by"),
        )
        self.recoveries = self._numbers(
            "recoveries",
            "Submissions that were cut without an answer and looked for upstream, by what came of it.",
            *("operation", "result"),
        )
        self.lookups = self._numbers("recovery_lookups", "Questions whether a cut submission is there.", "operation")
        for operation in QUESTIONS:
            self.lookups.of(operation)
            for result in Recovery:
                self.recoveries.of(operation, result)

    def _declare_token(self, fetch_results: Iterable[str]) -> None:
        self.token_fetches = self._counter("token_fetches", "Questions to the upstream's token endpoint.", "result")
        for result in fetch_results:
            self.token_fetches.labels(result)
        self.token_age = self._gauge("token_age_seconds", "Age of the token at hand; NaN where there is none.")

        self.issuer_key_fetches = self._counter(
            "issuer_key_fetches",
            "Looks for the public keys of an issuer of the policy files, by what came of them: good or failed.",
            *("issuer", "result"),
        )

    def _declare_process(self) -> None:
        self.redis_errors = self._counter(
            "redis_errors",
            "Pipelines and commands that Redis did not carry out, by reason.",
            "reason",
        )
        self.breakers_open = self._gauge(
            "redis_breakers_open",
            "Connections to Redis that are left alone for a while, of the two to each server. While one is, requests "
            "pass as if there were no Redis, and errors are not counted.",
        )
        self.reload_ok = self._gauge(
            "policies_last_reload_successful",
            "Whether the policy files were good when they were last read: 1, or 0 while an earlier state is in force.",
        )
        self.reload_at = self._gauge(
            "policies_last_reload_success_timestamp_seconds",
            "When the policy files were last read and good, in seconds since 1970.",
        )
        self.reloads = self._counter(
            "policies_reloads",
            "Readings of policy files that were new, or asked for: adopted, unchanged, or why they were refused.",
            "result",
        )
        for result in (*Reading, *Refusal):
            self.reloads.labels(result)
        self.policies = Info(
            f"{_PREFIX}policies",
            "Which policies are in force: the first 12 digits of the SHA-256 of their files, and whether they are "
            "those of the directory or, because it cannot be used, the last good ones.",
            registry=self._few,
        )
        self._declare_audit()
        self.certificate_ends_at = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the first of the certificates that are shown to this side ends, in seconds since 1970.",
            "side",
        )
        self.certificates_ok = self._gauge(
            "certificates_last_reload_successful",
            "Whether a side's PEM files were good when they were last read: 1, or 0 while earlier ones are in force.",
            "side",
        )
        self.handshakes_failed = self._counter(
            "tls_handshakes_failed", "TLS handshakes of callers that were not completed, by why.", "reason"
        )
        for reason in HandshakeFailure:
            self.handshakes_failed.labels(reason)
        self.skipped = self._counter(
            "log_lines_skipped",
            "Lines that were not written: beyond GATEWAY_LOG_REQUESTS_PER_S, or to a log that nobody reads.",
        )

    def _declare_audit(self) -> None:
        self.audit_entries = self._counter("audit_entries", "Entries that were written to the audit trail.")
        self.audit_lost = self._counter(
            "audit_entries_lost",
            "Entries that are not in the audit trail: `full`, there was no room for them while it could not be "
            "written; `ended`, the process ended before it could be.",
            "reason",
        )
        for reason in ("full", "ended"):
            self.audit_lost.labels(reason)
        self.audit_waiting = self._gauge("audit_entries_waiting", "Entries that are not written yet.")
        self.audit_available = self._gauge(
            "audit_available", "Whether the audit trail is written as it should be: 1 or 0; NaN where there is none."
        )
        self.audit_sequence = self._gauge(
            "audit_sequence", "The number of the last entry of the audit trail; NaN where there is none."
        )
        for gauge in (self.audit_available, self.audit_sequence):
            gauge.set(math.nan)

    def _declare_dedup(self) -> None:
        self.decisions = self._numbers(
            "dedup_decisions",
            "Requests by what deduplication did with them, or in shadow mode would have done.",
            *("operation", "mode", "decision", "reason"),
        )
        self.avoided = self._numbers(
            "dedup_calls_avoided",
            "Upstream calls that were not made, by what answered instead; `upstream`: made, and answered by the "
            "upstream's own deduplication.",
            *("operation", "by"),
        )
        self.follow_s = self._histograms(
            "dedup_follow_duration_seconds",
            "For how long a follower waited for its leader's answer.",
            "operation",
        )
        self.replay_age = ClientHistogram(
            f"{_PREFIX}dedup_replay_age_seconds",
            "How old an answer was when it was replayed.",
            buckets=AGE_BUCKETS_S,
            registry=self._few,
        )
        self.shadow = self._counter(
            "dedup_shadow_replays",
            "In shadow mode: replays that would have been, by the outcome they would have stated, and by what they "
            "would have got wrong (none, details, outcome, no_answer: the fresh call got none).",
            *("outcome", "difference"),
        )
        self.followers = self._gauge(
            "dedup_followers_waiting", "Requests that wait for another's answer in this process."
        )
        self.flights = self._gauge("dedup_flights", "Questions under way in this process, led here or elsewhere.")
        self.lost_leases, self.takeovers, self.unusable, self.stored_bytes, self.stored = (
            self._counter(f"dedup_{name}", text)
            for name, text in (
                ("lost_leases", "Flights that another replica led on before their answer was there."),
                ("takeovers", "Flights that were led on here after their leader was lost."),
                ("unusable_values", "Values in Redis that did not open: foreign key, tampered with, or swapped."),
                (
                    "stored_bytes",
                    "Bytes of answers that were put into Redis for their window, compressed and sealed.",
                ),
                ("stored_answers", "Answers that were put into Redis for their window."),
            )
        )
