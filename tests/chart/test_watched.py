"""How the fleet is scraped, alerted on and scaled: what the rules, the dashboard and the HPA go by is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from tests.chart.engine import CHART, VALUES_FILES, Object, minimal, only, read, read_values, render
from tests.running import ROOT
from tests.slo.pack import FILES, rules

SELECTED = re.compile(r'up\{job=~"([^"]+)"\}')
SCRAPES = {"ServiceMonitor": ("serviceMonitor", "endpoints"), "PodMonitor": ("podMonitor", "podMetricsEndpoints")}
every_kind = pytest.mark.parametrize("kind", SCRAPES)


def scrape(kind: str, release: str = "spring", **more: Any) -> Object:  # noqa: ANN401 - values are of any type
    value, endpoints = SCRAPES[kind]
    values = minimal(**{value: {"enabled": True, **more.pop("monitor", {})}, **more})
    (endpoint,) = only(render(values, release), kind)["spec"][endpoints]
    return dict(endpoint)


def job(endpoint: Object) -> str:
    """What the last relabeling makes of `job`."""
    last = endpoint["relabelings"][-1]
    assert (last["action"], last["targetLabel"]) == ("replace", "job")
    return str(last["replacement"])


def everything() -> dict[str, Any]:
    return read_values(CHART / "ci" / "everything-values.yaml")


# --- scraping --------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("release", ["spring", "eligibility-gateway", "eligibility-gateway-2", "a" * 53])
@pytest.mark.parametrize("named", [{}, {"nameOverride": "egw"}, {"fullnameOverride": "insurance"}], ids=str)
def test_the_rules_find_the_job_whatever_the_release_is_called(kind: str, release: str, named: dict[str, str]) -> None:
    selectors = {pattern for rule in rules() for pattern in SELECTED.findall(rule.expression)}
    assert selectors
    for pattern in selectors:
        assert re.fullmatch(pattern, job(scrape(kind, release, **named)))


@every_kind
def test_two_installations_are_two_jobs(kind: str) -> None:
    jobs = {job(scrape(kind, release)) for release in ("spring", "autumn", "eligibility-gateway")}
    assert jobs == {"spring-eligibility-gateway", "autumn-eligibility-gateway", "eligibility-gateway"}


@every_kind
def test_an_operators_relabelings_come_before_the_jobs(kind: str) -> None:
    own = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    endpoint = scrape(kind, monitor={"relabelings": [own], "interval": "15s", "metricRelabelings": [own]})
    assert endpoint["relabelings"][0] == own
    assert len(endpoint["relabelings"]) == 2
    assert (endpoint["interval"], endpoint["metricRelabelings"]) == ("15s", [own])
    assert not {"interval", "scrapeTimeout", "metricRelabelings"} & scrape(kind).keys()


@every_kind
def test_the_port_that_is_scraped_is_the_admin_port_of_what_is_selected(kind: str) -> None:
    values = minimal(**{SCRAPES[kind][0]: {"enabled": True}})
    objects = render(values)
    if kind == "ServiceMonitor":
        ports = only(objects, "Service", "spring-eligibility-gateway-admin")["spec"]["ports"]
    else:
        ports = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert scrape(kind)["port"] == "admin"
    assert "admin" in {port["name"] for port in ports}


# --- rules and dashboard ---------------------------------------------------------------------------------------------


def groups(values: dict[str, Any]) -> list[Object]:
    found: list[Object] = only(render(values), "PrometheusRule")["spec"]["groups"]
    return found


def test_the_rules_are_those_of_the_files_to_the_letter() -> None:
    shipped = [group for file in FILES for group in read(file.read_text())["groups"]]
    assert groups(minimal(prometheusRule={"enabled": True})) == shipped
    assert "{{ $value | humanizePercentage }}" in str(shipped)


@pytest.mark.parametrize("base", ["https://wiki.example.org/gateway", "https://wiki.example.org/gateway/"])
def test_a_runbooks_address_is_made_whole_where_its_beginning_is_given(base: str) -> None:
    values = minimal(prometheusRule={"enabled": True, "runbookBaseUrl": base})
    annotated = [rule["annotations"] for group in groups(values) for rule in group["rules"] if "alert" in rule]
    shipped = [rule.annotations["runbook_url"] for rule in rules() if rule.is_alert]
    assert [one["runbook_url"] for one in annotated] == [f"https://wiki.example.org/gateway/{url}" for url in shipped]


def test_the_dashboard_is_the_file_to_the_letter_under_the_label_of_grafanas_sidecar() -> None:
    dashboard = only(render(everything()), "ConfigMap", "spring-eligibility-gateway-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Eligibility"}
    ((name, text),) = dashboard["data"].items()
    assert text == (CHART / "dashboards" / name).read_text()
    assert json.loads(text)["panels"]


# --- as many as are needed -------------------------------------------------------------------------------------------


def test_replicas_follow_the_requests_under_way_and_else_the_cpu() -> None:
    spec = only(render(everything()), "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] == "spring-eligibility-gateway"
    pods, cpu = spec["metrics"]
    assert pods["pods"]["target"] == {"type": "AverageValue", "averageValue": "2000"}
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}


def test_the_metric_that_scales_is_one_of_the_program() -> None:
    (metric,) = [
        metric["pods"]["metric"]["name"]
        for metric in only(render(everything()), "HorizontalPodAutoscaler")["spec"]["metrics"]
        if metric["type"] == "Pods"
    ]
    assert f"| `{metric}` | gauge |" in (ROOT / "docs" / "metrics.md").read_text()
    assert f"seriesQuery: {metric}{{" in (CHART / "values.yaml").read_text()


def test_a_metric_that_is_not_wanted_is_not_asked_for() -> None:
    spec = only(render(read_values(CHART / "ci" / "gateway-api-values.yaml")), "HorizontalPodAutoscaler")["spec"]
    assert [metric["type"] for metric in spec["metrics"]] == ["Resource"]


def test_a_replica_is_taken_away_in_no_less_time_than_it_needs_to_end() -> None:
    objects = render(everything())
    down = only(objects, "HorizontalPodAutoscaler")["spec"]["behavior"]["scaleDown"]
    grace_s = only(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    (policy,) = down["policies"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] >= grace_s
    assert down["stabilizationWindowSeconds"] >= 300


def test_a_replica_that_holds_its_target_still_takes_requests() -> None:
    asked = only(render(minimal(autoscaling={"enabled": True})), "HorizontalPodAutoscaler")["spec"]["metrics"][0]
    assert int(asked["pods"]["target"]["averageValue"]) < Settings.model_fields["max_in_flight"].default


@pytest.mark.parametrize("values_file", VALUES_FILES, ids=lambda file: file.stem)
def test_one_replica_at_a_time_may_be_taken_away_on_purpose(values_file: Path) -> None:
    values = read_values(values_file)
    budgets = [one for one in render(values) if one["kind"] == "PodDisruptionBudget"]
    if not values.get("podDisruptionBudget", {}).get("enabled", True):
        assert budgets == []
        return
    (budget,) = budgets
    assert budget["spec"]["maxUnavailable"] == 1
    (gateway,) = [
        one for one in render(values) if one["kind"] == "Deployment" and "-valkey" not in one["metadata"]["name"]
    ]
    assert budget["spec"]["selector"] == gateway["spec"]["selector"]
