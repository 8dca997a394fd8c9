import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.operations import OperationName
from gateway.policy.explain import Explanation, describe, explain
from gateway.policy.files import PolicySet

Loaded = Callable[[Mapping[str, str | bytes]], PolicySet]
DIGEST = "ab" * 32
OTHER = "cd" * 32
FILES = {
    "callers.yaml": f"""\
callers:
  billing:
    secret_sha256: ["{DIGEST}", "{OTHER}"]
    subtenant: s-1
  scheduling:
    secret_sha256: "{"ef" * 32}"
    operations: [healthcheck]
  anonymous: {{}}
""",
    "checks.yaml": """\
match:
  operations: [submit_eligibility, healthcheck]
timeout:
  connect: 250ms
headers:
  set:
    X-Site: north
  remove: []
dedup: {mode: shadow}
""",
}


@pytest.fixture
def policies(loaded: Loaded) -> PolicySet:
    return loaded(FILES)


@pytest.fixture
def origins(policies: PolicySet, tmp_path: Path) -> dict[str, tuple[object, str]]:
    explanation = explain(policies, OperationName.SUBMIT_ELIGIBILITY, "billing")
    return {v.path: (v.value, v.origin.replace(f"{tmp_path}/", "")) for v in explanation.values}


@pytest.mark.parametrize(
    ("path", "value", "origin"),
    [
        ("match.operations", ["submit_eligibility", "healthcheck"], "checks.yaml:2"),
        ("match.callers", ["*"], "default"),
        ("match.forward", [], "default"),
        ("timeout.connect", "250ms", "checks.yaml:4"),
        ("timeout.answer", "125s", "default"),
        ("headers.subtenant", "from-caller", "default"),
        ("headers.set.X-Site", "north", "checks.yaml:7"),
        ("headers.remove", [], "checks.yaml:8"),
        ("token.inject", True, "default"),
        ("dedup.mode", "shadow", "checks.yaml:9"),
        ("dedup.outcomes.eligible", "366d", "default"),
        ("caller.secret_sha256", "2 masked", "callers.yaml:3"),
        ("caller.subtenant", "s-1", "callers.yaml:4"),
        ("caller.operations", ["*"], "default"),
    ],
)
def test_each_value_says_where_it_comes_from(
    origins: dict[str, tuple[object, str]],
    path: str,
    value: object,
    origin: str,
) -> None:
    assert origins[path] == (value, origin)


def test_nothing_that_governs_is_left_out(origins: dict[str, tuple[object, str]]) -> None:
    clauses = {path.partition(".")[0] for path in origins}

    assert clauses == {"match", "timeout", "headers", "token", "dedup", "recover", "audit", "metrics", "caller"}
    assert "name" not in origins


def test_the_policy_that_governs_is_named_with_its_place(policies: PolicySet, tmp_path: Path) -> None:
    explanation = explain(policies, OperationName.HEALTHCHECK, "scheduling")

    assert (explanation.operation, explanation.caller, explanation.policy) == ("healthcheck", "scheduling", "checks")
    assert explanation.reason == f"the most specific match: {tmp_path}/checks.yaml:1"


@pytest.mark.parametrize(
    ("operation", "caller", "reason"),
    [
        (OperationName.GET_DISCOVERY, "billing", "no policy matches"),
        (OperationName.SUBMIT_ELIGIBILITY, "scheduling", "the caller's entry does not list it (callers.yaml:5)"),
        (OperationName.GET_DISCOVERY, "scheduling", "the caller's entry does not list it (callers.yaml:5)"),
    ],
)
def test_a_refusal_says_why(
    policies: PolicySet,
    tmp_path: Path,
    operation: OperationName,
    caller: str,
    reason: str,
) -> None:
    explanation = explain(policies, operation, caller)

    assert explanation == Explanation(
        operation=operation.value,
        caller=caller,
        policy=None,
        reason=reason.replace("callers.yaml", f"{tmp_path}/callers.yaml"),
    )


def test_a_caller_that_is_not_declared_is_a_mistake_of_who_asks(policies: PolicySet) -> None:
    with pytest.raises(KeyError):
        explain(policies, OperationName.HEALTHCHECK, "nobody")


def test_what_is_in_force_is_described_as_json_without_a_digest(policies: PolicySet) -> None:
    described = describe(policies)
    text = json.dumps(described)

    assert set(described) == {"digest", "policies", "callers", "issuers", "notices"}
    assert described["digest"] == policies.digest
    assert all(digest not in text for digest in (DIGEST, OTHER, "ef" * 32))
    callers = described["callers"]
    assert isinstance(callers, dict)
    assert {name: entry["secret_sha256"] for name, entry in callers.items()} == {
        "billing": "2 masked",
        "scheduling": "1 masked",
        "anonymous": "0 masked",
    }


def test_no_explanation_shows_a_digest(policies: PolicySet) -> None:
    for caller in policies.callers:
        assert DIGEST not in repr(explain(policies, OperationName.HEALTHCHECK, caller))
