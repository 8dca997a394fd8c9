from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.exchange import Record
from gateway.policy.model import Timeout
from gateway.telemetry.metrics import DURATION_BUCKETS_S, Metrics

Make = Callable[..., Record]
PREFIX = "eligibility_gateway_"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", python_version="3.11.9", fetch_results=["issued", "refused"])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


LABELS = {"operation": "submit_eligibility", "caller": "scheduling", "status": "200"}


def test_one_record_is_one_request_in_each_metric_of_requests(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(duration_s=2.0, upstream_s=1.5))
    metrics.observe(record(duration_s=3.0, upstream_s=2.5))

    assert value(metrics, "requests_total", **LABELS) == 2
    assert value(metrics, "request_duration_seconds_count", **LABELS) == 2
    assert value(metrics, "request_duration_seconds_sum", **LABELS) == 5.0
    upstream = {"operation": "submit_eligibility", "status": "200"}
    assert value(metrics, "upstream_duration_seconds_count", **upstream) == 2
    assert value(metrics, "upstream_duration_seconds_sum", **upstream) == 4.0
    assert value(metrics, "incomplete_replies_total") == 0


def test_two_that_differ_in_a_label_are_counted_apart(metrics: Metrics, record: Make) -> None:
    metrics.observe(record())
    metrics.observe(record(status=502, upstream_status=502))
    metrics.observe(record(caller="billing"))
    metrics.observe(record(operation="healthcheck"))

    for label in ({}, {"status": "502"}, {"caller": "billing"}, {"operation": "healthcheck"}):
        assert value(metrics, "requests_total", **{**LABELS, **label}) == 1


@pytest.mark.parametrize(
    ("status", "label"),
    [
        (200, "200"),
        (404, "404"),
        (502, "502"),
        (799, "other"),
        (0, "other"),
        (299, "other"),
        (600, "other"),
        (-1, "other"),
    ],
)
def test_a_status_that_no_standard_knows_is_other(metrics: Metrics, record: Make, status: int, label: str) -> None:
    metrics.observe(record(status=status, upstream_status=status))

    assert value(metrics, "requests_total", **{**LABELS, "status": label}) == 1
    assert value(metrics, "upstream_duration_seconds_count", operation="submit_eligibility", status=label) == 1


def test_however_many_statuses_are_invented_they_are_one_time_series(metrics: Metrics, record: Make) -> None:
    for status in range(600, 1000):
        metrics.observe(record(status=status, upstream_status=status))

    assert value(metrics, "requests_total", **{**LABELS, "status": "other"}) == 400
    (family,) = (family for family in metrics.registry.collect() if family.name == PREFIX + "requests")
    assert {sample.labels["status"] for sample in family.samples} == {"other"}


def test_a_call_without_an_answer_has_the_status_none(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(status=504, upstream_status=None, upstream_s=125.0))

    assert value(metrics, "upstream_duration_seconds_count", operation="submit_eligibility", status="none") == 1


def test_a_request_that_was_never_sent_has_no_upstream_duration(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(status=401, code="unauthenticated", upstream_s=None, upstream_status=None, upstream_calls=0))

    assert value(metrics, "upstream_duration_seconds_count", operation="submit_eligibility", status="none") is None
    assert value(metrics, "problems_total", code="unauthenticated") == 1


def test_an_upstreams_answer_is_no_problem_of_ours(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(status=500, upstream_status=500))

    (family,) = (family for family in metrics.registry.collect() if family.name == PREFIX + "problems")
    assert family.samples == []


def test_a_reply_that_was_torn_is_counted(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(is_complete=False))

    assert value(metrics, "incomplete_replies_total") == 1


def test_every_result_of_a_fetch_is_there_before_the_first_one(metrics: Metrics) -> None:
    assert value(metrics, "token_fetches_total", result="issued") == 0
    metrics.token_fetched("issued")
    metrics.token_fetched("issued")
    assert value(metrics, "token_fetches_total", result="issued") == 2
    assert value(metrics, "token_fetches_total", result="refused") == 0


def test_what_redis_did_not_do_is_counted_by_reason(metrics: Metrics) -> None:
    metrics.redis_failed("timeout")

    assert value(metrics, "redis_errors_total", reason="timeout") == 1


def test_gauges_are_read_from_their_sources_at_each_scrape(metrics: Metrics) -> None:
    in_flight = [0.0]
    metrics.watch(in_flight=lambda: in_flight[0], token_age=lambda: 7.0, followers=lambda: 0.0, flights=lambda: 0.0)

    assert value(metrics, "requests_in_flight") == 0.0
    in_flight[0] = 3.0
    assert value(metrics, "requests_in_flight") == 3.0
    assert value(metrics, "token_age_seconds") == 7.0


def test_what_is_running_is_said(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version="1.2.3", python_version="3.11.9") == 1


def test_buckets_lie_dense_around_the_marks_at_which_requests_are_cut() -> None:
    assert list(DURATION_BUCKETS_S) == sorted(set(DURATION_BUCKETS_S))
    assert {110, 120} <= set(DURATION_BUCKETS_S)
    for mark in (110, 120):
        assert len([bucket for bucket in DURATION_BUCKETS_S if abs(bucket - mark) <= 10]) >= 5


def test_a_request_that_ran_into_the_shipped_timeout_lies_in_a_bucket_with_an_end() -> None:
    """It takes the timeout and a little more; two calls, after a 401, may take it twice."""
    assert DURATION_BUCKETS_S[-1] > Timeout().answer


@pytest.mark.parametrize("seconds", [0.0, 109.9, 110.0, 119.9, 120.0, 10_000.0])
def test_a_duration_is_counted_from_its_bucket_upward(metrics: Metrics, record: Make, seconds: float) -> None:
    metrics.observe(record(duration_s=seconds))

    for bucket in DURATION_BUCKETS_S:
        counted = value(metrics, "request_duration_seconds_bucket", **LABELS, le=str(float(bucket)))
        assert counted == (1 if seconds <= bucket else 0)
    assert value(metrics, "request_duration_seconds_bucket", **LABELS, le="+Inf") == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (OPENMETRICS, "application/openmetrics-text"),
        (f"text/plain;q=0.5, {OPENMETRICS};q=0.9", "application/openmetrics-text"),
        ("text/plain", "text/plain"),
        ("*/*", "text/plain"),
        ("", "text/plain"),
        ("application/json", "text/plain"),
    ],
)
def test_the_scraper_is_answered_in_the_language_it_asks_for(
    metrics: Metrics,
    record: Make,
    accept: str,
    content_type: str,
) -> None:
    metrics.observe(record())
    metrics.watch(in_flight=lambda: 1.0, token_age=lambda: float("nan"), followers=lambda: 0.0, flights=lambda: 0.0)

    body, answered = metrics.exposition(accept)

    assert answered.startswith(content_type)
    text = body.decode()
    is_openmetrics = content_type != "text/plain"
    assert text.endswith("# EOF\n") is is_openmetrics
    families = list((read_openmetrics if is_openmetrics else read_text)(text))
    assert families
    assert all(family.name.startswith(PREFIX) and family.documentation for family in families)


def test_two_processes_in_one_do_not_share_their_numbers(record: Make) -> None:
    one, other = (Metrics(version="1", python_version="3", fetch_results=[]) for _ in range(2))

    one.observe(record())

    assert value(one, "requests_total", **LABELS) == 1
    assert value(other, "requests_total", **LABELS) is None
