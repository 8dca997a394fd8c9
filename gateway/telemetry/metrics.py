"""Metrics, prefix `eligibility_gateway_`.

Rules
- Every label value comes from a closed set: operations, callers of the policy files, status codes of the
  standard, results named in the code. Nothing that a caller can invent becomes a time series.
- Children are looked up once and kept: `labels()` costs more than the observation.
- Buckets end well above the two-minute mark and lie dense around 110 s and 120 s, where requests are cut.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder

from gateway.exchange import Decision, DecisionKind, Record
from gateway.policy.model import DedupMode

DURATION_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60),
    *(75, 90, 100, 105, 110, 115, 118, 120, 122, 125, 130),
)
AGE_BUCKETS_S: Final = (1, 10, 60, 300, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)
_PREFIX: Final = "eligibility_gateway"
_KNOWN_STATUS: Final = frozenset(status.value for status in HTTPStatus)
_OTHER: Final = "other"


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, *, version: str, python_version: str, fetch_results: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._durations: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._by_decision: dict[tuple[str, str, str, str], tuple[Counter, ...]] = {}
        self._upstream: dict[tuple[str, int | None], Histogram] = {}
        info = Info(f"{_PREFIX}_build", "What is running.", registry=self.registry)
        info.info({"version": version, "python_version": python_version})
        self._requests = Counter(
            f"{_PREFIX}_requests",
            "Finished requests.",
            ("operation", "caller", "status"),
            registry=self.registry,
        )
        self._request_s = Histogram(
            f"{_PREFIX}_request_duration_seconds",
            "From the request's head to the reply's last byte.",
            ("operation", "caller", "status"),
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._upstream_s = Histogram(
            f"{_PREFIX}_upstream_duration_seconds",
            "The last upstream call of a request; status is `none` where no answer came.",
            ("operation", "status"),
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            f"{_PREFIX}_requests_in_flight",
            "Requests being worked on.",
            registry=self.registry,
        )
        self._refused = Counter(
            f"{_PREFIX}_problems",
            "Replies that the gateway itself gave instead of an upstream's answer, by their stable code.",
            ("code",),
            registry=self.registry,
        )
        self._incomplete = Counter(
            f"{_PREFIX}_incomplete_replies",
            "Replies that were not delivered whole: the caller left, or the upstream was cut off.",
            registry=self.registry,
        )
        self._token_fetches = Counter(
            f"{_PREFIX}_token_fetches",
            "Questions to the upstream's token endpoint.",
            ("result",),
            registry=self.registry,
        )
        for result in fetch_results:
            self._token_fetches.labels(result)
        self._declare_dedup()
        self._token_age = Gauge(
            f"{_PREFIX}_token_age_seconds",
            "Age of the token at hand; NaN where there is none.",
            registry=self.registry,
        )
        self._redis_errors = Counter(
            f"{_PREFIX}_redis_errors",
            "Pipelines and commands that Redis did not carry out, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._breakers_open = Gauge(
            f"{_PREFIX}_redis_breakers_open",
            "Connections to Redis that are left alone for a while, of the two to each server. While one is, requests "
            "pass as if there were no Redis, and errors are not counted.",
            registry=self.registry,
        )

    def _declare_dedup(self) -> None:
        self._decisions = Counter(
            f"{_PREFIX}_dedup_decisions",
            "Requests by what deduplication did with them, or in shadow mode would have done.",
            ("operation", "mode", "decision", "reason"),
            registry=self.registry,
        )
        self._avoided = Counter(
            f"{_PREFIX}_dedup_calls_avoided",
            "Upstream calls that were not made, by what answered instead; `upstream`: made, and answered by the "
            "upstream's own deduplication.",
            ("operation", "by"),
            registry=self.registry,
        )
        self._replay_age = Histogram(
            f"{_PREFIX}_dedup_replay_age_seconds",
            "How old an answer was when it was replayed.",
            buckets=AGE_BUCKETS_S,
            registry=self.registry,
        )
        self._shadow = Counter(
            f"{_PREFIX}_dedup_shadow_replays",
            "In shadow mode: replays that would have been, by the outcome they would have stated, and by what they "
            "would have got wrong (none, details, outcome, no_answer: the fresh call got none).",
            ("outcome", "difference"),
            registry=self.registry,
        )
        self._followers = Gauge(
            f"{_PREFIX}_dedup_followers_waiting",
            "Requests that wait for another's answer in this process.",
            registry=self.registry,
        )
        self._flights = Gauge(
            f"{_PREFIX}_dedup_flights",
            "Questions under way in this process, led here or elsewhere.",
            registry=self.registry,
        )
        self._lost_leases, self._takeovers, self._unusable = (
            Counter(f"{_PREFIX}_dedup_{name}", text, registry=self.registry)
            for name, text in (
                ("lost_leases", "Flights that another replica led on before their answer was there."),
                ("takeovers", "Flights that were led on here after their leader was lost."),
                ("unusable_values", "Values in Redis that did not open: foreign key, tampered with, or swapped."),
            )
        )
        self._stored_bytes = Counter(
            f"{_PREFIX}_dedup_stored_bytes",
            "Bytes of answers that were put into Redis for their window, compressed and sealed.",
            registry=self.registry,
        )
        self._stored = Counter(
            f"{_PREFIX}_dedup_stored_answers",
            "Answers that were put into Redis for their window.",
            registry=self.registry,
        )

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        token_age: Callable[[], float],
        followers: Callable[[], float],
        flights: Callable[[], float],
    ) -> None:
        """Read these gauges from their sources at each scrape."""
        self._in_flight.set_function(in_flight)
        self._token_age.set_function(token_age)
        self._followers.set_function(followers)
        self._flights.set_function(flights)

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        key = (record.operation, record.caller, record.status)
        pair = self._durations.get(key)
        if pair is None:
            labels = (record.operation, record.caller, _status(record.status))
            pair = self._durations[key] = (self._requests.labels(*labels), self._request_s.labels(*labels))
        pair[0].inc()
        pair[1].observe(record.duration_s)
        if record.upstream_s is not None:
            upstream_key = (record.operation, record.upstream_status)
            upstream = self._upstream.get(upstream_key)
            if upstream is None:
                upstream = self._upstream[upstream_key] = self._upstream_s.labels(
                    record.operation,
                    _status(record.upstream_status),
                )
            upstream.observe(record.upstream_s)
        if record.code:
            self._refused.labels(record.code).inc()
        if not record.is_complete:
            self._incomplete.inc()
        if record.dedup is not None:
            self._decided(record.operation, record.dedup)

    def _decided(self, operation: str, decision: Decision) -> None:
        key = (operation, decision.mode, decision.kind, decision.reason)
        is_enforced = decision.mode == DedupMode.ENFORCE
        counters = self._by_decision.get(key)
        if counters is None:
            is_avoided = is_enforced and decision.kind in {DecisionKind.REPLAY, DecisionKind.FOLLOW}
            avoided = (self._avoided.labels(operation, decision.kind),) if is_avoided else ()
            counters = self._by_decision[key] = (self._decisions.labels(*key), *avoided)
        for counter in counters:
            counter.inc()
        if decision.is_upstream_duplicate:
            self._avoided.labels(operation, "upstream").inc()
        if is_enforced and decision.age_s is not None:
            self._replay_age.observe(decision.age_s)
        if decision.difference:
            self._shadow.labels(decision.outcome, decision.difference).inc()

    def lease_lost(self) -> None:
        """Count one flight that another replica led on."""
        self._lost_leases.inc()

    def flight_taken_over(self) -> None:
        """Count one flight that was led on here."""
        self._takeovers.inc()

    def value_unusable(self) -> None:
        """Count one value that did not open."""
        self._unusable.inc()

    def answer_stored(self, size: int) -> None:
        """Count one answer that was put into Redis."""
        self._stored.inc()
        self._stored_bytes.inc(size)

    def token_fetched(self, result: str) -> None:
        """Count one question to the token endpoint."""
        self._token_fetches.labels(result).inc()

    def redis_failed(self, reason: str) -> None:
        """Count one thing that Redis did not do."""
        self._redis_errors.labels(reason).inc()

    def redis_left_alone(self, is_open: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        """Note that a breaker has opened, or closed."""
        self._breakers_open.inc(1 if is_open else -1)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, as OpenMetrics where the scraper asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _status(status: int | None) -> str:
    if status is None:
        return "none"
    return str(status) if status in _KNOWN_STATUS else _OTHER
