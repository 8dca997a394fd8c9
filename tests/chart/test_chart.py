"""The chart as a whole: every set of values renders, lints, and is what Kubernetes and the operators take."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.chart.engine import (
    CHART,
    NAMESPACE,
    VALUES_FILES,
    Object,
    Refused,
    by_template,
    every_values_file,
    findings,
    minimal,
    notes,
    only,
    packaged,
    read,
    read_values,
    render,
)
from tests.running import ROOT

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: make shipping"
)

CRDS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "tests" / "chart" / "crds").glob("*.json"))}
OLDEST, NEWEST = "1.30", "1.37"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
HINT = 1


def refuse_what_no_crd_has(one: Object) -> None:
    Draft202012Validator(CRDS[one["kind"].lower()]).validate(one)


def refuse_what_kubernetes_does(version: str) -> Callable[[Object], object]:
    return lambda one: kubernetes_validate.validate(one, version, strict=True)


# --- every values file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@every_values_file
def test_every_object_is_one_that_kubernetes_takes(values_file: Path, version: str) -> None:
    objects = render(read_values(values_file))
    assert objects
    for one in objects:
        check = refuse_what_no_crd_has if one["kind"].lower() in CRDS else refuse_what_kubernetes_does(version)
        check(one)


@pytest.mark.parametrize("kind", CRDS)
def test_a_field_that_an_operator_does_not_know_is_noticed(kind: str) -> None:
    found = [one for file in VALUES_FILES for one in render(read_values(file)) if one["kind"].lower() == kind]
    assert found
    with pytest.raises(ValidationError, match="'speed' was unexpected"):
        refuse_what_no_crd_has({**found[0], "spec": {**found[0]["spec"], "speed": 1}})


@every_values_file
def test_every_values_file_lints(values_file: Path) -> None:
    said = findings(read_values(values_file), f"v{OLDEST}.0")
    assert said == [(HINT, "icon is recommended")]


@every_values_file
def test_every_object_is_named_and_labelled_by_its_release(values_file: Path) -> None:
    seen = set()
    for one in render(read_values(values_file)):
        metadata = one["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "eligibility-gateway"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "spring"
        assert metadata["labels"]["app.kubernetes.io/version"] == VERSION
        assert metadata["namespace"] in {NAMESPACE, "monitoring"}
        seen.add((one["kind"], metadata["name"]))
    assert len(seen) == len(render(read_values(values_file)))


@every_values_file
def test_every_selector_finds_pods_of_this_release_and_of_one_part(values_file: Path) -> None:
    objects = render(read_values(values_file))
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in objects if one["kind"] == "Deployment"]
    services = [one["metadata"]["labels"] for one in objects if one["kind"] == "Service"]
    for one in objects:
        selector = one["spec"].get("selector") or one["spec"].get("podSelector") if "spec" in one else None
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        assert set(wanted) == {f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")}
        among = services if one["kind"] == "ServiceMonitor" else pods
        assert sum(wanted.items() <= labels.items() for labels in among) == 1, one["kind"]


def test_every_template_makes_something_in_some_values_file() -> None:
    made: dict[str, int] = {}
    for file in VALUES_FILES:
        for template, objects in by_template(read_values(file)).items():
            made[template] = made.get(template, 0) + len(objects)
    assert {template for template, count in made.items() if not count} == {"validate.yaml"}


def test_a_long_name_leaves_room_for_what_is_added_to_it() -> None:
    values = read_values(CHART / "ci" / "everything-values.yaml")
    names = [one["metadata"]["name"] for one in render(values, release="a" * 53)]
    assert max(map(len, names)) <= 63
    assert all(name.startswith("aaaa") and "eligibility-gateway" in name for name in names)


def test_a_release_that_is_a_number_is_still_text() -> None:
    for one in render(minimal(fullnameOverride="gateway"), release="2026"):
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "2026"


@pytest.mark.parametrize("release", ["2026", "front.office"])
def test_a_release_that_is_no_name_of_a_service_wants_another_one(release: str) -> None:
    with pytest.raises(
        Refused, match=f"a name in the place of {release}-eligibility-gateway, which no Service may have"
    ):
        render(minimal(), release=release)


def test_a_new_chart_restarts_no_pod_that_it_does_not_change() -> None:
    deployment = only(render(minimal()), "Deployment")
    assert "helm.sh/chart" in deployment["metadata"]["labels"]
    assert "helm.sh/chart" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_an_umbrellas_own_values_are_let_pass() -> None:
    assert render(minimal(**{"global": {"domain": "example.org"}, "enabled": True})) == render(minimal())


# --- what is said ----------------------------------------------------------------------------------------------------


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(Refused) as refusal:
        render({})
    for sentence in (
        "upstream.url: found nothing, expected the API's address",
        "secret.name: found nothing, expected the name of an existing Secret",
        "policies: found no file with `callers:`, expected one that says who may call, or existingPolicies.configMap",
    ):
        assert sentence in str(refusal.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"existingPolicies": {"configMap": "others"}},
        "policies: found beside existingPolicies.configMap, expected one of them",
    ),
    ({"policies": {"broken.yaml": "match: ["}}, "policies.broken.yaml: found no YAML mapping"),
    ({"policies": {"callers.yaml": ""}}, "policies: found no file with `callers:`"),
    ({"policies": {"callers.yaml": None}}, "policies: found no file with `callers:`"),
    (
        {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
        "podMonitor.enabled: found beside serviceMonitor.enabled, expected one of them",
    ),
    (
        {"autoscaling": {"enabled": True, "minReplicas": 11}},
        "autoscaling.minReplicas: found 11, expected at most maxReplicas = 10",
    ),
    (
        {"autoscaling": {"enabled": True, "requestsInFlight": {"averageValue": 0}, "cpu": {"averageUtilization": 0}}},
        "autoscaling: found no metric",
    ),
    (
        {"autoscaling": {"enabled": True}, "settings": {"max_in_flight": 1500}},
        "autoscaling.requestsInFlight.averageValue: found 2000, expected less than settings.max_in_flight = 1500",
    ),
    ({"networkPolicy": {"enabled": True}}, "networkPolicy.callers: found nobody"),
    ({"networkPolicy": {"enabled": True}}, "networkPolicy.redis.to: found nothing"),
    ({"ingress": {"enabled": True}}, "ingress.hosts: found none"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: found none"),
    ({"certificate": {"enabled": True}}, "certificate.issuerRef.name: found nothing"),
    ({"certificate": {"enabled": True}}, "certificate.dnsNames: found none"),
    ({"policies": {"broken.yaml": "  \n"}}, "policies.broken.yaml: found no YAML mapping"),
    ({"policies": {"more.yaml": "# a\n---\nmatch: {}\n---\nmatch: {}\n"}}, "policies.more.yaml: found a second YAML"),
    ({"policies": {"more.yaml": "match: {}\n--- \nmatch: {}\n"}}, "policies.more.yaml: found a second YAML document"),
    ({"policies": {"more.yaml": f"match: {{}} # {'x' * 1_000_000}"}}, "bytes, expected at most 1000000: a ConfigMap"),
    ({"policies": {"callers.yaml": "callers: {}"}}, "policies.callers.yaml: found nobody among `callers:`"),
    ({"policies": {"callers.yaml": "callers:\n"}}, "policies.callers.yaml: found nobody among `callers:`"),
    (
        {"policies": {"callers.yaml": "callers: {anonymous: {}}"}, "settings": {"allow_public_anonymous": False}},
        "policies.callers.yaml: found the caller anonymous with a listener beyond its pod",
    ),
    ({"settings": {"otlp_endpoint": "http://a:b@c:4318"}}, "settings.otlp_endpoint: found credentials"),
    ({"extraEnv": [{"name": "GATEWAY_KEYS", "value": "a"}]}, "extraEnv: found GATEWAY_KEYS, expected it as a value of"),
    ({"upstream": {"url": "sandbox-apigw.optum.com"}}, "upstream.url: found something else, expected https://HOST"),
    ({"upstream": {"url": "https://a.example.org/rcm"}}, "upstream.url: found something else"),
    ({"upstream": {"url": "https://a:b@example.org"}}, "upstream.url: found something else"),
    ({"upstream": {"url": "https://example.org:70000"}}, "upstream.url: found something else"),
    ({"upstream": {"url": "https://example.org\n"}}, "upstream.url: found something else"),
    (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "podDisruptionBudget.maxUnavailable: found 0, expected at least 1",
    ),
    ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "podDisruptionBudget.maxUnavailable: found 0%"),
    (
        {"httpRoute": {"enabled": True, "timeouts": {"request": "2m9s999ms"}}},
        "httpRoute.timeouts.request: found 2m9s999ms, expected at least 130s",
    ),
    (
        {"httpRoute": {"enabled": True, "timeouts": {"backendRequest": "3m"}}},
        "httpRoute.timeouts.backendRequest: found 3m, expected at most request = 135s",
    ),
    (
        {"networkPolicy": {"enabled": True}, "upstream": {"url": "https://example.org:8443/"}},
        "networkPolicy.upstream.ports: found none that is 8443, expected the port of upstream.url among them",
    ),
    (
        {
            "networkPolicy": {"enabled": True},
            "upstream": {"url": "http://example.org"},
            "settings": {"allow_plaintext": True},
        },
        "networkPolicy.upstream.ports: found none that is 80,",
    ),
    ({"upstream": {"url": "http://example.org"}}, "upstream.url: found http://, expected https://, or settings.allow"),
    ({"upstream": {"url": "http://localhost.example.org"}}, "upstream.url: found http://, expected https://"),
    (
        {"upstream": {"url": "http://127.0.0.1", "caConfigMap": "a"}},
        "upstream.caConfigMap: found beside an address without TLS, expected https://",
    ),
    ({"valkey": {"enabled": True}}, "valkey.enabled: found without settings.allow_plaintext: true, expected both"),
    ({"tls": {"enabled": True}}, "tls.secretName: found nothing, expected a Secret with tls.crt and tls.key, or"),
    ({"tls": {"secretName": "a"}}, "tls.enabled: found false beside other values of tls, expected true"),
    (
        {"tls": {"enabled": True, "secretName": "a", "clients": {"certificate": "required"}}},
        "tls.clients.certificate: found required without caSecretName, expected optional or required, and the CAs",
    ),
    (
        {"tls": {"enabled": True, "secretName": "a", "clients": {"certificate": "off", "caSecretName": "b"}}},
        "tls.clients.certificate: found off beside caSecretName, expected optional or required, and the CAs",
    ),
    ({"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}, "found with the type ClusterIP, expected the type"),
]
# What is just within the bounds that those are beyond.
RIGHT: list[dict[str, Any]] = [
    {"policies": {"lookups.yaml": "# a\n---\n# b\nmatch: {operations: [healthcheck]}\n"}},
    {"podDisruptionBudget": {"maxUnavailable": "10%"}},
    {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}], "timeouts": {"request": "0s"}}},
    {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}], "timeouts": {"backendRequest": "2m10s"}}},
    {"upstream": {"url": "https://[2001:db8::1]:8443/"}},
    {"upstream": {"url": "http://[2001:db8::1]:8443/"}, "settings": {"allow_plaintext": True}},
    {"upstream": {"url": "http://127.0.0.1:8081"}},
    {"tls": {"enabled": True, "secretName": "shown"}},
    {"tls": {"enabled": True}, "certificate": {"enabled": True, "issuerRef": {"name": "a"}}},
    {"settings": {"drain_grace_s": 0, "drain_timeout_s": 3600}, "terminationGracePeriodSeconds": 3620},
    {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"]}},
]


@pytest.mark.parametrize("more", RIGHT, ids="-".join)
def test_what_goes_together_is_taken(more: dict[str, Any]) -> None:
    for one in render(minimal(**more)):
        if one["kind"].lower() not in CRDS:
            refuse_what_kubernetes_does(NEWEST)(one)


@pytest.mark.parametrize(("more", "sentence"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_go_together_is_refused_in_a_sentence(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused) as refusal:
        render(minimal(**more))
    assert sentence in str(refusal.value)


def test_the_notes_say_how_to_try_it_and_what_the_trial_store_is_not() -> None:
    said = notes(minimal())
    assert f"helm test spring --namespace {NAMESPACE}" in said
    assert "port-forward service/spring-eligibility-gateway " in said
    assert "valkey" not in said
    trial = notes(read_values(CHART / "ci" / "trial-values.yaml"))
    assert "no TLS, no password and no replica" in trial
    assert "redis-url: redis://spring-eligibility-gateway-valkey:6379" in trial


def test_the_notes_name_the_way_in_where_policies_come_from_and_an_image_that_nobody_publishes() -> None:
    said = notes(minimal())
    assert "the nodes must have eligibility-gateway:" in said
    assert "the ConfigMap spring-eligibility-gateway-policies." in said
    assert "From outside" not in said
    everything = notes(read_values(CHART / "ci" / "everything-values.yaml"))
    assert "\n  https://eligibility.example.org\n" in everything
    assert "no image is published" not in everything
    plain = notes(minimal(ingress={"enabled": True, "hosts": ["a.example.org"]}))
    assert "\n  http://a.example.org\n" in plain
    route = notes(read_values(CHART / "ci" / "gateway-api-values.yaml"))
    assert "by the HTTPRoute" in route
    assert "\n  eligibility.example.org\n" in route
    assert "the ConfigMap made-elsewhere, which is made elsewhere." in route


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_chart_and_program_have_one_version() -> None:
    chart = read((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_package_holds_what_templates_read_and_no_tests() -> None:
    names = packaged()
    assert {"rules/alerts.yaml", "rules/recording.yaml", "dashboards/eligibility-gateway.json"} <= set(names)
    assert {"policies/discovery.yaml", "policies/eligibility.yaml", "policies/lookups.yaml"} <= set(names)
    assert [name for name in names if name.startswith(("ci/", "rules/tests/"))] == []
    assert not any(path.is_symlink() for path in CHART.rglob("*"))
