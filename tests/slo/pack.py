"""The rule files as they are shipped, and what their unit tests say of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import promql_parser
from ruamel.yaml import YAML

from tests.running import ROOT

RULES = ROOT / "helm" / "rules"
FILES = (RULES / "recording.yaml", RULES / "alerts.yaml")
UNIT_TESTS = tuple(sorted((RULES / "tests").glob("*.yaml")))
_FIRING = re.compile(r'alertname="(\w+)"')


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the pack; of an alert also what is said to people."""

    group: str
    name: str
    expression: str
    is_alert: bool
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    def selectors(self) -> list[promql_parser.VectorSelector]:
        """Every selector of its expression."""
        return selectors_of(self.expression)


def rules() -> list[Rule]:
    """Every rule, in the order of the files."""
    return [
        Rule(
            group["name"],
            rule.get("alert") or rule["record"],
            rule["expr"],
            "alert" in rule,
            rule.get("labels", {}),
            rule.get("annotations", {}),
        )
        for file in FILES
        for group in read(file)["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.is_alert]


def selectors_of(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector of an expression; ValueError where it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def expectations() -> Iterator[dict[str, Any]]:
    """What the unit tests expect of which expression."""
    for file in UNIT_TESTS:
        for case in read(file)["tests"]:
            yield from case["promql_expr_test"]


def firing() -> set[str]:
    """The alerts that fire in some unit test."""
    samples = [sample["labels"] for one in expectations() for sample in one.get("exp_samples", ())]
    return {name for labels in samples if 'alertstate="firing"' in labels for name in _FIRING.findall(labels)}


def quiet() -> set[str]:
    """The alerts of which some unit test says that they do not fire."""
    expressions = [one["expr"] for one in expectations() if not one.get("exp_samples")]
    return {name for text in expressions if text.startswith("ALERTS{") for name in _FIRING.findall(text)}


def read(file: Any) -> Any:  # noqa: ANN401 - whatever stands in a YAML file
    return YAML(typ="safe").load(file)
