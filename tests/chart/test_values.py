"""What values may say: each is commented, each is in the schema, and what is mistyped is refused."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.settings import Settings, variable
from tests.chart.engine import CHART, Refused, minimal, read, render

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES_TEXT = (CHART / "values.yaml").read_text()
FROM_ABOVE = {"global", "enabled"}  # what an umbrella hands down: its own values, and its `condition:`
SECRETS = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
Path = tuple[str, ...]


def closed(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every object of the schema whose keys the chart decides, but for the program's settings."""
    if "properties" in schema and path != ("settings",):
        yield path, schema
        for name, part in schema["properties"].items():
            yield from closed(part, (*path, name))


def at(values: Any, path: Path) -> Any:  # noqa: ANN401 - values are of any type
    for name in path:
        values = values[name]
    return values


def keys_with_comments() -> dict[Path, bool]:
    """Every key of values.yaml that stands on a line of its own, and whether a comment stands above it."""
    found: dict[Path, bool] = {}
    parents: list[tuple[int, str]] = []
    above = ""
    for line in VALUES_TEXT.splitlines():
        match = re.match(r"( *)(\w+):", line)
        if match is not None:
            indent = len(match[1])
            parents = [(deep, name) for deep, name in parents if deep < indent]
            parents.append((indent, match[2]))
            found[tuple(name for _, name in parents)] = above.strip().startswith("#")
        above = line
    return found


# --- values.yaml and its schema --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "schema"), list(closed(SCHEMA)), ids=[".".join(path) for path, _ in closed(SCHEMA)])
def test_what_may_be_said_and_what_is_there_are_the_same(path: Path, schema: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False
    from_above = set() if path else FROM_ABOVE
    assert set(schema["properties"]) - from_above == set(at(read(VALUES_TEXT), path))


def test_every_value_has_a_comment() -> None:
    commented = keys_with_comments()
    decided = {(*path, name) for path, schema in closed(SCHEMA) for name in schema["properties"]}
    assert {".".join(path) for path in decided if path[0] not in FROM_ABOVE and not commented.get(path)} == set()


def test_values_alone_are_taken_by_the_schema_so_that_the_chart_says_what_is_missing() -> None:
    with pytest.raises(Refused, match=re.escape("upstream.url: found nothing")):
        render({})


# --- what is refused -------------------------------------------------------------------------------------------------

MISTYPED: list[tuple[dict[str, Any], str]] = [
    ({"nameOverride": "A_B"}, "/nameOverride"),
    ({"fullnameOverride": "x" * 46}, "/fullnameOverride"),
    ({"commonLabels": {"team": 7}}, "/commonLabels/team"),
    ({"replicaCount": "three"}, "/replicaCount"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
    ({"image": {"registry": "https://registry.example.org"}}, "/image/registry"),
    ({"upstream": {"url": 443}}, "/upstream/url"),
    ({"secret": {"keys": {"redisUrl": "redis url"}}}, "/secret/keys/redisUrl"),
    ({"settings": {"log_level": "loud"}}, "/settings/log_level"),
    ({"settings": {"max_in_flight": 0}}, "/settings/max_in_flight"),
    ({"settings": {"drain_timeout_s": "150s"}}, "/settings/drain_timeout_s"),
    ({"policies": {"callers.json": "{}"}}, "/policies"),
    ({"policies": {"callers.yaml": {"callers": {}}}}, "/policies/callers.yaml"),
    ({"existingPolicies": {"configMap": "Two Words"}}, "/existingPolicies/configMap"),
    ({"serviceAccount": {"create": "yes"}}, "/serviceAccount/create"),
    ({"podAnnotations": {"on": True}}, "/podAnnotations/on"),
    ({"podLabels": {"on": True}}, "/podLabels/on"),
    ({"podSecurityContext": "restricted"}, "/podSecurityContext"),
    ({"securityContext": []}, "/securityContext"),
    ({"resources": "1Gi"}, "/resources"),
    ({"startupProbe": "/readyz"}, "/startupProbe"),
    ({"livenessProbe": "/livez"}, "/livenessProbe"),
    ({"readinessProbe": "/readyz"}, "/readinessProbe"),
    ({"preStopSleepSeconds": "10s"}, "/preStopSleepSeconds"),
    ({"terminationGracePeriodSeconds": "3m"}, "/terminationGracePeriodSeconds"),
    ({"minReadySeconds": -1}, "/minReadySeconds"),
    ({"minReadySeconds": 600}, "/minReadySeconds"),  # as long as Kubernetes waits for progress
    ({"preStopSleepSeconds": 601}, "/preStopSleepSeconds"),
    ({"terminationGracePeriodSeconds": 1e18}, "/terminationGracePeriodSeconds"),
    ({"replicaCount": 1e9}, "/replicaCount"),
    ({"annotations": {"on": True}}, "/annotations/on"),
    ({"revisionHistoryLimit": -1}, "/revisionHistoryLimit"),
    ({"dnsConfig": []}, "/dnsConfig"),
    ({"hostAliases": [{"ip": "192.0.2.1"}]}, "/hostAliases/0"),
    ({"service": {"loadBalancerSourceRanges": ["192.0.2.1"]}}, "/service/loadBalancerSourceRanges/0"),
    ({"extraEnv": {"A": "b"}}, "/extraEnv"),
    ({"extraEnv": [{"name": "A=B", "value": "c"}]}, "/extraEnv/0/name"),
    ({"extraVolumes": {}}, "/extraVolumes"),
    ({"extraVolumeMounts": ["ca"]}, "/extraVolumeMounts/0"),
    ({"nodeSelector": {"gpu": False}}, "/nodeSelector/gpu"),
    ({"tolerations": {}}, "/tolerations"),
    ({"affinity": []}, "/affinity"),
    ({"topologySpreadConstraints": "zone"}, "/topologySpreadConstraints"),
    ({"priorityClassName": 1000}, "/priorityClassName"),
    ({"service": {"type": "ExternalName"}}, "/service/type"),
    ({"service": {"port": 70000}}, "/service/port"),
    ({"adminService": {"port": "admin"}}, "/adminService/port"),
    ({"autoscaling": {"maxReplicas": "many"}}, "/autoscaling/maxReplicas"),
    ({"podDisruptionBudget": {"maxUnavailable": "one"}}, "/podDisruptionBudget/maxUnavailable"),
    ({"networkPolicy": {"callers": ["scheduling"]}}, "/networkPolicy/callers/0"),
    ({"networkPolicy": {"callers": [{}]}}, "/networkPolicy/callers/0"),
    ({"networkPolicy": {"upstream": {"to": [{"podSelector": None}]}}}, "/networkPolicy/upstream/to/0/podSelector"),
    ({"networkPolicy": {"redis": {"ports": []}}}, "/networkPolicy/redis/ports"),
    ({"serviceMonitor": {"interval": "15"}}, "/serviceMonitor/interval"),
    ({"podMonitor": {"enabled": 1}}, "/podMonitor/enabled"),
    ({"prometheusRule": {"runbookBaseUrl": "wiki"}}, "/prometheusRule/runbookBaseUrl"),
    ({"dashboard": {"labels": {"grafana_dashboard": 1}}}, "/dashboard/labels/grafana_dashboard"),
    ({"ingress": {"hosts": [{"host": "example.org"}]}}, "/ingress/hosts/0"),
    ({"ingress": {"hosts": ["*.example.org"]}}, "/ingress/hosts/0"),
    ({"ingress": {"hosts": ["example..org"]}}, "/ingress/hosts/0"),
    ({"httpRoute": {"hostnames": ["a.*.example.org"]}}, "/httpRoute/hostnames/0"),
    ({"httpRoute": {"timeouts": {"request": 135}}}, "/httpRoute/timeouts/request"),
    ({"certificate": {"issuerRef": {"kind": 3}}}, "/certificate/issuerRef/kind"),
    ({"tls": {"clients": {"certificate": "yes"}}}, "/tls/clients/certificate"),
    ({"valkey": {"image": {"repository": "https://example.org/valkey"}}}, "/valkey/image/repository"),
]


@pytest.mark.parametrize(("more", "place"), MISTYPED, ids=[place for _, place in MISTYPED])
def test_what_is_mistyped_is_refused_where_it_stands(more: dict[str, Any], place: str) -> None:
    with pytest.raises(Refused) as refusal:
        render(minimal(**more))
    assert f"at '{place}':" in str(refusal.value)


def test_something_mistyped_is_refused_in_every_group() -> None:
    assert {place.split("/")[1] for _, place in MISTYPED} == set(SCHEMA["properties"]) - FROM_ABOVE


@pytest.mark.parametrize("path", [path for path, _ in closed(SCHEMA)], ids=".".join)
def test_a_key_that_nobody_knows_is_refused(path: Path) -> None:
    values = minimal()
    place = values
    for name in path:
        place = place.setdefault(name, {})
    place["replicas"] = 3
    with pytest.raises(Refused, match="additional properties 'replicas' not allowed"):
        render(values)


@pytest.mark.parametrize("setting", sorted({*SECRETS, "keys", "upstream_url", "listen", "policies", "nonsense"}))
def test_neither_a_secret_nor_what_the_chart_decides_is_a_setting(setting: str) -> None:
    with pytest.raises(Refused, match=f"additional properties '{setting}' not allowed"):
        render(minimal(settings={setting: "x"}))


def test_there_are_secrets_among_the_settings() -> None:
    assert {"redis_url", "upstream_client_id", "upstream_client_secret"} <= SECRETS


def test_every_setting_of_the_schema_is_one_of_the_program_with_its_own_words() -> None:
    settings = SCHEMA["properties"]["settings"]["properties"]
    page = (CHART.parent / "docs" / "configuration.md").read_text()
    for name, schema in settings.items():
        assert schema["description"] == Settings.model_fields[name].description
        assert f"| `{variable(name)}` |" in page
        assert "default" not in schema
