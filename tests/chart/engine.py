"""Helm's own engine in a process of its own, and what it makes of the chart.

Facts
- The engine is Go in a shared library: it raises the limit of open files and takes signals for the whole process that
  loads it. Other tests run in this one.
- It reads YAML as Kubernetes does: 0440 is octal, `no` is false.
"""

import json
import re
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import pytest

from tests.running import ROOT

CHART = ROOT / "helm"
VALUES_FILES = tuple(sorted((CHART / "ci").glob("*-values.yaml")))
RELEASE, NAMESPACE = "spring", "front-office"

Object = dict[str, Any]

if find_spec("helm_python") is None:
    pytest.skip("helm-python-sdk is not installed: make shipping", allow_module_level=True)

every_values_file = pytest.mark.parametrize("values_file", VALUES_FILES, ids=lambda file: file.stem)


class Refused(Exception):
    """The chart, or its schema, does not take these values."""


def render(values: Mapping[str, Any], release: str = RELEASE) -> list[Object]:
    """Every object of the chart. Raises Refused."""
    return [one for objects in by_template(values, release).values() for one in objects]


def by_template(values: Mapping[str, Any], release: str = RELEASE) -> dict[str, list[Object]]:
    """The objects of each template. Raises Refused."""
    refusal, templates = _rendered(json.dumps(values), release)
    if refusal is not None:
        raise Refused(refusal)
    return {name: [one for one in objects if one] for name, objects in templates.items()}


def notes(values: Mapping[str, Any]) -> str:
    """What Helm says after an installation."""
    text: str = _engine().submit(_notes_there, json.dumps(values)).result()
    return text


def only(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind, and of a name if several have it."""
    (found,) = [one for one in objects if one["kind"] == kind and (not name or one["metadata"]["name"] == name)]
    return found


def read_values(values_file: Any) -> dict[str, Any]:  # noqa: ANN401 - a path
    """A file of values, as Helm reads it."""
    return read(values_file.read_text())


def read(text: str) -> dict[str, Any]:
    """A YAML document, as Helm and Kubernetes read it."""
    document: dict[str, Any] = _engine().submit(_read_there, text).result()
    return document


def findings(values: Mapping[str, Any], kube_version: str) -> list[tuple[int, str]]:
    """What `helm lint` says: severities (1 is a hint) and sentences."""
    found: list[tuple[int, str]] = _engine().submit(_lint_there, json.dumps(values), kube_version).result()
    return found


def packaged() -> list[str]:
    """The files that a package of the chart holds, beside templates and metadata."""
    names: list[str] = _engine().submit(_packaged_there).result()
    return names


def minimal(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - values are of any type
    """The least that the chart takes, and more; what is a mapping in both is joined."""
    values = read_values(CHART / "ci" / "minimal-values.yaml")
    for key, value in more.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return values


@cache
def _engine() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))


@cache
def _rendered(values: str, release: str) -> tuple[str | None, dict[str, list[Object]]]:
    return _engine().submit(_render_there, values, release).result()


# --- in the engine's process -----------------------------------------------------------------------------------------


def _render_there(values: str, release: str) -> tuple[str | None, dict[str, list[Object]]]:
    import helm_python as helm  # noqa: PLC0415 - here alone

    with helm.Chart.load(CHART) as chart:
        try:
            chart.validate_schema(json.loads(values))
            manifests = chart.render(json.loads(values), name=release, namespace=NAMESPACE)
        except helm.HelmError as error:
            return str(error), {}
    return None, {
        name.partition("/templates/")[2]: [
            helm.values_from_yaml(document) for document in re.split(r"^---$", text, flags=re.MULTILINE)
        ]
        for name, text in manifests.items()
        if name.endswith(".yaml")
    }


def _notes_there(values: str) -> str:
    import helm_python as helm  # noqa: PLC0415 - here alone

    with helm.Chart.load(CHART) as chart:
        manifests: dict[str, str] = chart.render(json.loads(values), name=RELEASE, namespace=NAMESPACE)
    return "".join(text for name, text in manifests.items() if name.endswith("NOTES.txt"))


def _read_there(text: str) -> dict[str, Any]:
    import helm_python as helm  # noqa: PLC0415 - here alone

    document: dict[str, Any] = helm.values_from_yaml(text)
    return document


def _lint_there(values: str, kube_version: str) -> list[tuple[int, str]]:
    import helm_python as helm  # noqa: PLC0415 - here alone

    report = helm.lint(CHART, json.loads(values), kube_version=kube_version)
    return [(one["severity"], one["error"]) for one in report["messages"]]


def _packaged_there() -> list[str]:
    import helm_python as helm  # noqa: PLC0415 - here alone

    with helm.Chart.load(CHART) as chart:
        return [file["name"] for file in chart.files]
