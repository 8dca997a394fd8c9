from collections.abc import Callable

import pytest
from multidict import CIMultiDict
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.errors import every_problem
from gateway.exchange import (
    CallRecord,
    Decision,
    DecisionKind,
    Exchange,
    Inbound,
    Record,
    Recovery,
    RecoveryRecord,
    Trace,
)
from gateway.in_flight import InFlight
from gateway.policy.documents import Reading, Refusal
from gateway.policy.model import Timeout
from gateway.telemetry.families import DURATION_BUCKETS_S
from gateway.telemetry.metrics import Metrics
from tests.running import total

Make = Callable[..., Record]
MakeCall = Callable[..., CallRecord]
PREFIX = "eligibility_gateway_"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


def new_metrics() -> Metrics:
    metrics = Metrics(
        version="1.2.3",
        python_version="3.11.9",
        fetch_results=["issued", "refused"],
        wall_now=lambda: 1_700_000_000.0,
    )
    metrics.expect(callers=(), payers=["PAYER-1"])
    return metrics


def watched(metrics: Metrics, in_flight: InFlight, now: float = 1000.0) -> Metrics:
    metrics.watch(
        in_flight=in_flight,
        now=lambda: now,
        token_age=lambda: 7.0,
        followers=lambda: 0.0,
        flights=lambda: 0.0,
        queued=lambda: 0.0,
    )
    return metrics


def under_way(age_s: float, kind: DecisionKind | None = None, payer: str = "other", now: float = 1000.0) -> Exchange:
    inbound = Inbound(method="POST", raw_target="/", headers=CIMultiDict(), raw_headers=(), body=b"")
    decision = None if kind is None else Decision(mode="enforce", kind=kind)
    return Exchange(inbound=inbound, correlation_id="c", started_at=now - age_s, dedup=decision, payer=payer)


def shown(metrics: Metrics, accept: str = "") -> str:
    return b"".join(metrics.exposition(accept)[1]).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


OPERATION = {"operation": "submit_eligibility"}
LABELS = {**OPERATION, "caller": "scheduling", "status": "200"}
DURATION = {**OPERATION, "caller": "scheduling", "decision": "none", "status_class": "2xx"}
UPSTREAM = {**OPERATION, "payer": "other", "outcome": "eligible", "status_class": "2xx"}


def test_one_record_is_one_request_in_each_metric_of_requests(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(duration_s=2.0, own_s=0.25))
    metrics.observe(record(duration_s=3.0, own_s=0.5))

    assert value(metrics, "requests_total", **LABELS) == 2
    assert value(metrics, "request_duration_seconds_count", **DURATION) == 2
    assert value(metrics, "request_duration_seconds_sum", **DURATION) == 5.0
    assert value(metrics, "own_duration_seconds_sum", **OPERATION) == 0.75
    assert value(metrics, "incomplete_replies_total") == 0


def test_one_call_is_one_observation_of_its_payer_and_outcome(metrics: Metrics, call: MakeCall) -> None:
    metrics.observe_call(call(duration_s=1.5))
    metrics.observe_call(call(duration_s=2.5))
    metrics.observe_call(call(payer="PAYER-1"))

    assert value(metrics, "upstream_duration_seconds_count", **UPSTREAM) == 2
    assert value(metrics, "upstream_duration_seconds_sum", **UPSTREAM) == 4.0
    assert value(metrics, "upstream_duration_seconds_count", **{**UPSTREAM, "payer": "PAYER-1"}) == 1


def test_the_share_of_its_time_that_a_request_took_is_counted_where_it_has_a_time(
    metrics: Metrics, record: Make
) -> None:
    metrics.observe(record(duration_s=65.0, budget_s=130.0))
    metrics.observe(record(budget_s=None))

    assert value(metrics, "budget_used_ratio_bucket", **OPERATION, le="0.4") == 0
    assert value(metrics, "budget_used_ratio_bucket", **OPERATION, le="0.5") == 1
    assert value(metrics, "budget_used_ratio_count", **OPERATION) == 1


def test_a_followers_wait_is_counted(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(dedup=Decision(mode="enforce", kind=DecisionKind.FOLLOW), follow_s=12.0))

    assert value(metrics, "dedup_follow_duration_seconds_sum", **OPERATION) == 12.0
    assert value(metrics, "request_duration_seconds_count", **{**DURATION, "decision": "follow"}) == 1


def test_who_timed_out_is_counted_for_requests_and_for_calls(metrics: Metrics, record: Make, call: MakeCall) -> None:
    metrics.observe(record(status=504, timed_out_by="caller"))
    metrics.observe_call(call(status=None, outcome="none", timed_out_by="gateway"))

    assert value(metrics, "timeouts_total", **OPERATION, by="caller") == 1
    assert value(metrics, "timeouts_total", **OPERATION, by="connect") == 0
    assert value(metrics, "upstream_timeouts_total", **OPERATION, payer="other", by="gateway") == 1
    assert value(metrics, "upstream_timeouts_total", **OPERATION, payer="PAYER-1", by="gateway") == 0


def test_what_came_of_a_cut_submission_is_counted(metrics: Metrics) -> None:
    metrics.recovery_tried("submit_eligibility")
    metrics.observe_recovery(
        RecoveryRecord(
            operation="submit_eligibility",
            caller="scheduling",
            payer="other",
            recovery=Recovery.RECOVERED,
            timed_out_by="enterprise_gateway",
            correlation_id="c-1",
            trace_id="t-1",
            duration_s=5.0,
            trace=None,
        )
    )

    assert value(metrics, "recovery_lookups_total", **OPERATION) == 1
    assert value(metrics, "recoveries_total", **OPERATION, result="recovered") == 1
    assert value(metrics, "recoveries_total", **OPERATION, result="not_found") == 0


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
    metrics.observe(record(status=status))

    assert value(metrics, "requests_total", **{**LABELS, "status": label}) == 1


def test_however_many_statuses_are_invented_they_are_one_time_series(metrics: Metrics, record: Make) -> None:
    for status in range(600, 1000):
        metrics.observe(record(status=status, upstream_status=status))

    assert value(metrics, "requests_total", **{**LABELS, "status": "other"}) == 400
    (family,) = (family for family in metrics.registry.collect() if family.name == PREFIX + "requests")
    assert {sample.labels["status"] for sample in family.samples} == {"other"}


def test_a_call_without_an_answer_has_the_status_class_none(metrics: Metrics, call: MakeCall) -> None:
    metrics.observe_call(call(status=None, outcome="none", duration_s=125.0))

    labels = {**UPSTREAM, "outcome": "none", "status_class": "none"}
    assert value(metrics, "upstream_duration_seconds_count", **labels) == 1


def test_a_problem_of_ours_is_counted_by_its_code(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(status=401, code="unauthenticated"))

    assert value(metrics, "problems_total", code="unauthenticated") == 1


def test_an_upstreams_answer_is_no_problem_of_ours(metrics: Metrics, record: Make) -> None:
    metrics.observe(record(status=500, upstream_status=500))

    (family,) = (family for family in metrics.registry.collect() if family.name == PREFIX + "problems")
    assert {sample.value for sample in family.samples} == {0}


def test_every_problem_is_there_before_the_first_one(metrics: Metrics) -> None:
    for problem in every_problem():
        assert value(metrics, "problems_total", code=problem.code) == 0


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


def test_what_is_under_way_is_shown_by_role_payer_and_age_at_each_scrape(metrics: Metrics) -> None:
    in_flight = InFlight()
    watched(metrics, in_flight)
    text = shown(metrics)
    assert total(text, "requests_in_flight") == 0
    assert 'requests_in_flight{role="lead",payer="PAYER-1",age="110-120"} 0.0' in text

    led = under_way(115.0, DecisionKind.LEAD, "PAYER-1")
    in_flight.waiting |= {led, under_way(3.0, DecisionKind.FOLLOW), under_way(61.0)}
    in_flight.led |= {led, under_way(121.0, DecisionKind.LEAD)}
    text = shown(metrics)
    assert total(text, "requests_in_flight") == 4
    for labels in (
        'role="lead",payer="PAYER-1",age="110-120"',
        'role="follow",payer="other",age="0-10"',
        'role="other",payer="other",age="60-90"',
        'role="detached",payer="other",age="120+"',
    ):
        assert f"requests_in_flight{{{labels}}} 1.0" in text
    assert 'oldest_request_age_seconds{role="detached"} 121.0' in text

    in_flight.waiting.clear()
    in_flight.led.clear()
    assert total(shown(metrics), "requests_in_flight") == 0


def test_a_caller_that_has_left_leads_nobody_but_its_call_goes_on(metrics: Metrics) -> None:
    in_flight = InFlight()
    led = under_way(30.0, DecisionKind.LEAD)
    led.left_at = 990.0
    in_flight.waiting.add(led)
    in_flight.led.add(led)

    text = shown(watched(metrics, in_flight))
    assert total(text, "requests_in_flight") == 1
    assert 'requests_in_flight{role="detached",payer="other",age="30-60"} 1.0' in text


def test_a_trace_that_is_sampled_is_the_exemplar_of_its_bucket(metrics: Metrics, record: Make, call: MakeCall) -> None:
    trace = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    metrics.observe(record(duration_s=115.5, trace=trace))
    metrics.observe_call(call(duration_s=3.0, trace=Trace("1" * 32, "2" * 16, is_sampled=False)))

    watched(metrics, InFlight())
    text = shown(metrics, OPENMETRICS)
    assert '="118.0"} 1.0 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 115.5 1700000000.000' in text
    assert "1" * 32 not in text
    assert "trace_id" not in shown(metrics)


def test_a_scrape_is_worked_out_in_slices(metrics: Metrics, record: Make) -> None:
    for caller in range(100):
        metrics.observe(record(caller=f"caller-{caller}"))

    _, slices = watched(metrics, InFlight()).exposition("")
    assert max(part.count(b"\n") for part in slices) <= 6 * (len(DURATION_BUCKETS_S) + 3)


def test_policies_that_were_read_are_told_apart_from_those_that_are_in_force(metrics: Metrics) -> None:
    metrics.policies_read(Reading.ADOPTED)
    metrics.policies_in_force("0123456789abcdef", "directory")
    metrics.policies_read(Refusal.INVALID)

    assert value(metrics, "policies_last_reload_successful") == 0
    assert value(metrics, "policies_last_reload_success_timestamp_seconds") == 1_700_000_000.0
    assert value(metrics, "policies_info", digest="0123456789ab", origin="directory") == 1
    assert [value(metrics, "policies_reloads_total", result=result) for result in ("adopted", "invalid")] == [1, 1]
    assert value(metrics, "policies_reloads_total", result="exposed") == 0


def test_there_is_one_digest_at_a_time(metrics: Metrics) -> None:
    metrics.policies_in_force("a" * 64, "last_good")
    metrics.policies_in_force("b" * 64, "directory")

    assert shown(metrics).count("eligibility_gateway_policies_info{") == 1


def test_a_payer_that_policies_name_later_is_told_apart_from_then_on(metrics: Metrics) -> None:
    metrics.expect(callers=["later"], payers=["SIM-LATER"])

    assert (
        value(metrics, "upstream_timeouts_total", operation="submit_eligibility", payer="SIM-LATER", by="gateway") == 0
    )
    assert value(metrics, "upstream_timeouts_total", operation="submit_eligibility", payer="PAYER-1", by="gateway") == 0
    assert value(metrics, "requests_total", operation="submit_eligibility", caller="later", status="200") == 0


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
        counted = value(metrics, "request_duration_seconds_bucket", **DURATION, le=str(float(bucket)))
        assert counted == (1 if seconds <= bucket else 0)
    assert value(metrics, "request_duration_seconds_bucket", **DURATION, le="+Inf") == 1


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
    watched(metrics, InFlight())
    answered, slices = metrics.exposition(accept)

    assert answered.startswith(content_type)
    text = b"".join(slices).decode()
    is_openmetrics = content_type != "text/plain"
    assert text.endswith("# EOF\n") is is_openmetrics
    families = list((read_openmetrics if is_openmetrics else read_text)(text))
    assert families
    assert all(family.name.startswith(PREFIX) and family.documentation for family in families)


def test_two_processes_in_one_do_not_share_their_numbers(record: Make) -> None:
    one, other = new_metrics(), new_metrics()

    one.observe(record())

    assert value(one, "requests_total", **LABELS) == 1
    assert value(other, "requests_total", **LABELS) is None
