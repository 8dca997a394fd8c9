"""The command line as users meet it: help that teaches, exit codes that mean something, one line a problem."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.policy.files import load
from gateway.policy.schema import policy_schema
from tests.running import ROOT

TIE = "match: {operations: [healthcheck]}\n"


def run(
    *arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "simulate", "demo", "check", "explain", "forget"])
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert command in run("--help").stdout


def test_the_shipped_policies_have_no_problem() -> None:
    done = run("check")
    assert (done.returncode, done.stderr) == (0, "")
    digest = load(ROOT / "policies").digest[:12]
    assert done.stdout == f"policies: 3 policies, 1 caller, no problem, digest {digest}\n"


def test_check_reports_every_problem_of_every_file_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("match: {operations: [nope]}\nspeed: 1\n")
    (tmp_path / "b.yaml").write_text("callers: {UPPER: {}}\n")
    done = run("check", "--policies", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{tmp_path}/a.yaml:1",
        f"{tmp_path}/a.yaml:2",
        f"{tmp_path}/b.yaml:1",
    ]
    assert all(": found " in line and ", expected " in line for line in lines)


def test_check_says_what_is_valid_and_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("match: {operations: [healthcheck]}\ndedup: {mode: enforce, window: 24h}\n")
    (tmp_path / "b.yaml").write_text("callers: {anonymous: {}}\n")
    done = run("check", "--policies", str(tmp_path))
    assert done.returncode == 0
    assert done.stderr.startswith(f"notice: {tmp_path}/a.yaml:2: dedup.mode: enforce has no effect")


def test_the_schema_is_json_and_the_one_that_is_shipped() -> None:
    done = run("check", "--schema")
    assert json.loads(done.stdout) == policy_schema()
    assert done.stdout == (ROOT / "policies" / "policy.schema.json").read_text()


def test_explain_shows_each_value_and_where_it_comes_from() -> None:
    done = run("explain", "--operation", "submit_eligibility", "--caller", "anonymous")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()[2:]}
    assert rows["timeout.answer"] == "policies/eligibility.yaml:6"
    assert rows["headers.remove"] == "default"


def test_explain_speaks_json_to_machines() -> None:
    done = run("explain", "--operation", "healthcheck", "--format", "json")
    explained = json.loads(done.stdout)
    assert explained["policy"] == "lookups"
    assert explained["values"]["timeout.answer"] == {"value": "1m", "from": "policies/lookups.yaml:6"}


def test_explain_says_why_a_request_would_be_refused_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("match: {operations: [healthcheck]}\n")
    (tmp_path / "b.yaml").write_text("callers: {anonymous: {operations: [get_transaction]}}\n")
    for operation, why in (
        ("healthcheck", f"the caller's entry does not list it ({tmp_path}/b.yaml:1)"),
        ("get_transaction", "no policy matches"),
    ):
        done = run("explain", "--operation", operation, "--policies", str(tmp_path))
        assert done.returncode == 1
        assert why in done.stdout


def test_a_caller_or_an_operation_that_is_none_is_a_usage_error() -> None:
    assert run("explain", "--operation", "healthcheck", "--caller", "nobody").returncode == 2
    assert run("explain", "--operation", "nothing").returncode == 2
    assert "Traceback" not in run("explain", "--operation", "nothing").stderr


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", "192.0.2.1:1"])
def test_the_simulator_says_in_one_sentence_where_it_cannot_listen(listen: str) -> None:
    done = run("simulate", "--listen", listen)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--listen" in done.stderr
    assert "found" in done.stderr
    assert "expected" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout == f"eligibility-gateway {importlib.metadata.version('eligibility-gateway')}\n"


def test_completion_is_there_for_the_asking() -> None:
    assert "--install-completion" in run("--help").stdout
