"""Whatever text stands where values take text: it is refused in words, or arrives as that text and nothing else."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from tests.chart.engine import CHART, Object, Refused, minimal, read, read_values, render
from tests.chart.test_values import closed

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: make shipping"
)

Path = tuple[str | int, ...]

EVIL = (
    *("1e3", "true", "null", "", 'a: "', "{{ fail 1 }}"),
    "x\n      hostNetwork: true",
)
WHOLE_TEXTS = {"policies"}  # read as documents, and refused as such: test_chart.py
BESIDE = {"global", "enabled"}
# Values under which every template makes something and every text stands in some object.
FILLED: dict[str, Any] = {
    "nameOverride": "egw",
    "fullnameOverride": "insurance",
    "commonLabels": {"example.org/a": "a"},
    "annotations": {"example.org/c": "c"},
    "serviceAccount": {"name": "shared"},
    "dnsConfig": {"searches": ["example.org"]},
    "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["redis.example.org"]}],
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
    "adminService": {"annotations": {"a": "b"}},
    "dashboard": {"enabled": True, "namespace": "monitoring"},
    "serviceMonitor": {"enabled": True, "namespace": "monitoring", "interval": "15s", "scrapeTimeout": "10s"},
    "prometheusRule": {"enabled": True, "namespace": "monitoring", "labels": {"a": "b"}},
    "httpRoute": {
        "enabled": True,
        "annotations": {"a": "b"},
        "hostnames": ["*.example.org"],
        "parentRefs": [{"name": "internal"}],
    },
    "ingress": {"enabled": True, "className": "nginx", "hosts": ["eligibility.example.org"], "tlsSecretName": "tls"},
    "certificate": {
        "enabled": True,
        "secretName": "listener",
        "dnsNames": ["*.example.org"],
        "issuerRef": {"name": "internal"},
    },
    "upstream": {"caConfigMap": "upstream-ca", "certificateSecretName": "upstream-certificate"},
    "tls": {
        "enabled": True,
        "secretName": "shown",
        "clients": {"certificate": "optional", "caSecretName": "callers-ca"},
    },
    "settings": {"allow_plaintext": True},
    "valkey": {"enabled": True},
}
OPERATORS = {"Certificate", "HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
SHIPPED = read((CHART / "values.yaml").read_text())


def joined(one: Any, other: Any) -> Any:  # noqa: ANN401 - values are of any type
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return {**one, **other, **{key: joined(one[key], other[key]) for key in one.keys() & other.keys()}}


def filled() -> dict[str, Any]:
    every = read_values(CHART / "ci" / "everything-values.yaml")
    values: dict[str, Any] = deepcopy(joined(joined(SHIPPED, every), FILLED))
    return values


def leaves(values: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:  # noqa: ANN401 - values are of any type
    """Every place that is neither a mapping nor a list."""
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, part in parts:
        if path or key not in WHOLE_TEXTS | BESIDE:
            yield from leaves(part, (*path, key))
    if not isinstance(values, dict | list):
        yield path, values


def base(path: Path) -> dict[str, Any]:
    """The values around a place: of what excludes each other, the one that it belongs to."""
    values = filled()
    for large in {"dashboard", "prometheusRule"} - {path[0]}:
        values[large]["enabled"] = False
    if path == ("ingress", "tlsSecretName"):
        values["certificate"]["enabled"] = False
    if path[0] == "podMonitor":
        values["serviceMonitor"]["enabled"] = False
        values["podMonitor"] = {**values["serviceMonitor"], "enabled": True}
    if path[0] == "existingPolicies":
        values |= {"policies": {}, "existingPolicies": {"configMap": "made-elsewhere"}}
    return values


def put(path: Path, value: object) -> dict[str, Any]:
    values = base(path)
    place: Any = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


def refused_in_words(values: dict[str, Any]) -> list[Object] | None:
    """The objects, or None where the values are refused in words that somebody wrote for this."""
    try:
        return render(values)
    except Refused as refusal:
        said = str(refusal)
    assert "nil pointer" not in said
    assert re.search(r"- at '|: found ", said), said
    return None


def shape(value: Any) -> Any:  # noqa: ANN401 - of any type
    """What a manifest is without its texts: keys, lengths and types."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value)


def texts(objects: list[Object]) -> set[str]:
    return {value for _, value in leaves(objects) if isinstance(value, str)}


TEXTS = [path for path, value in leaves(filled()) if isinstance(value, str)]


@pytest.mark.long
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: ".".join(map(str, path)))
def test_a_text_is_refused_or_arrives_as_that_text(path: Path) -> None:
    made = shape(render(base(path)))
    for evil in EVIL:
        objects = refused_in_words(put(path, evil))
        if evil and objects is not None:  # nothing is left out
            assert shape(objects) == made, evil
            assert any(evil in text for text in texts(objects)), evil


def test_there_is_a_text_in_every_group_that_takes_one() -> None:
    assert len(TEXTS) > 100
    assert {"secret", "priorityClassName", "ingress", "httpRoute", "certificate"} <= {path[0] for path in TEXTS}


# Those of the chart itself; below them Kubernetes decides what may be missing.
NAMED = [path for path, _ in closed(SCHEMA) if path] + [
    (*path, name) for path, schema in closed(SCHEMA) for name in schema["properties"]
]
NULLABLE = sorted({path for path in NAMED if path[0] not in BESIDE})


@pytest.mark.long
@pytest.mark.parametrize("path", NULLABLE, ids=".".join)
def test_a_value_that_is_taken_away_is_refused_in_words_or_missed_by_nothing(path: tuple[str, ...]) -> None:
    for one in refused_in_words(put(path, None)) or ():
        if one["kind"] == "NetworkPolicy":
            assert all(rule["to"] and rule["ports"] for rule in one["spec"].get("egress", ()))
            assert all(rule["from"] and rule["ports"] for rule in one["spec"]["ingress"])
        if one["kind"] not in OPERATORS:
            kubernetes_validate.validate(one, "1.37", strict=True)


SCALAR = re.compile(r"^\s*(?:- )?[\w./]+: \{\{-? (?!toYaml)(.+?) -?\}\}$", re.MULTILINE)
NUMBER_FIRST = {".": ("deployment.yaml", "hpa.yaml")}  # of `with int`


def test_every_value_of_a_template_is_quoted_or_a_number() -> None:
    for file in sorted((CHART / "templates").rglob("*.*")):
        if file.name == "NOTES.txt":
            continue
        for said in SCALAR.findall(file.read_text()):
            is_number = said.startswith("int ") or file.name in NUMBER_FIRST.get(said, ())
            assert is_number or said.endswith(("| quote", "| toJson")), (file.name, said)


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["commonLabels", "podLabels", "serviceMonitor", "podMonitor", "prometheusRule", "dashboard"]
)
@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/component", "helm.sh/chart"])
def test_a_label_by_which_selectors_go_is_the_charts(value: str, key: str) -> None:
    labels = {key: "other"}
    is_group = value in SHIPPED and "labels" in SHIPPED[value]
    with pytest.raises(Refused) as refusal:
        render(minimal(**{value: {"labels": labels} if is_group else labels}))
    assert f"{value}{'.labels' if is_group else ''}: found {key}, expected labels of your own" in str(refusal.value)


@pytest.mark.parametrize("value", ["commonLabels", "podLabels", "podAnnotations", "annotations", "nodeSelector"])
@pytest.mark.parametrize("key", ["two words", "a/b/c", "-a", "a\nb", "EXAMPLE.org/a", ""])
def test_a_key_that_kubernetes_would_refuse_is_refused_here(value: str, key: str) -> None:
    with pytest.raises(Refused, match="invalid propertyName"):
        render(minimal(**{value: {key: "a"}}))


def test_a_label_of_all_objects_may_be_another_one_for_the_pods() -> None:
    objects = render(minimal(commonLabels={"team": "a"}, podLabels={"team": "b"}))
    (one,) = [one for one in objects if one["kind"] == "Deployment"]
    assert one["metadata"]["labels"]["team"] == "a"
    assert one["spec"]["template"]["metadata"]["labels"]["team"] == "b"
