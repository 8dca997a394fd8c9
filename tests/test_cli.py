"""The command line as users meet it: help that teaches, exit codes that mean something, one line a problem."""

import base64
import hashlib
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


@pytest.mark.parametrize("command", ["serve", "healthcheck", "simulate", "demo", "check", "explain", "diff", "forget"])
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert command in run("--help").stdout


def test_the_shipped_policies_have_no_problem() -> None:
    assert run("check", "policies").stdout == run("check", "--policies", "policies").stdout
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


SECRET, OTHER = "ab" * 32, "cd" * 32
CANARY = "canary-of-a-header"
SETS = {
    "old": {
        "callers.yaml": f'callers: {{billing: {{secret_sha256: "{SECRET}"}}}}\n',
        "checks.yaml": f"match: {{operations: ['*']}}\nheaders: {{set: {{X-Key: {CANARY}}}}}\n",
    },
    "new": {
        "callers.yaml": f'callers: {{billing: {{secret_sha256: "{OTHER}", operations: [healthcheck]}}}}\n',
        "checks.yaml": "match: {operations: ['*']}\ntimeout: {answer: 100s}\nheaders: {set: {X-Key: other}}\n",
    },
}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    for directory, files in SETS.items():
        (tmp_path / directory).mkdir()
        for name, text in files.items():
            (tmp_path / directory / name).write_text(text)
    return tmp_path


def test_diff_says_to_whom_what_happens_and_exits_with_1(sets: Path) -> None:
    done = run("diff", "old", "new", cwd=sets)
    assert (done.returncode, done.stderr) == (1, "")
    refused = "submit_eligibility, submit_eligibility_x12, list_transactions, get_transaction, submit_discovery, "
    assert done.stdout.splitlines() == [
        "billing: whatever is asked for",
        "  caller.secret_sha256 1 secret -> 1 secret: 1 secret is newly accepted; 1 secret is no longer accepted",
        f"billing: {refused}submit_discovery_x12, list_discoveries, get_discovery",
        "  is refused from now on: the caller's entry no longer lists it",
        "billing: healthcheck",
        "  timeout.answer 125s -> 100s: the upstream has 100s to answer instead of 125s",
        "  timeout.caller 130s -> 105s: a caller is answered within 105s instead of 130s, by a 504 if need be",
        "  headers.set.x-key: the header is set to another value",
    ]


def test_diff_speaks_json_to_machines_and_shows_neither_a_digest_nor_a_header(sets: Path) -> None:
    done = run("diff", "old", "new", "--format", "json", cwd=sets)
    assert done.returncode == 1
    secrets, refused, others = json.loads(done.stdout)
    assert (secrets["callers"], secrets["requests"]) == (["billing"], [])
    assert (refused["changes"][0]["path"], refused["changes"][0]["old"]) == ("", None)
    assert [change["path"] for change in others["changes"]] == ["timeout.answer", "timeout.caller", "headers.set.x-key"]
    assert not [word for word in (SECRET, OTHER, CANARY) if word in done.stdout]


def test_a_set_that_does_the_same_changes_nothing_for_anybody(sets: Path) -> None:
    done = run("diff", "old", "old", cwd=sets)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing changes for anybody\n", "")
    assert run("diff", "new", "new", "--format", "json", cwd=sets).stdout == "[]\n"


def test_diff_reports_the_problems_of_both_sets_and_exits_with_2(sets: Path) -> None:
    (sets / "old" / "checks.yaml").write_text("match: {operations: [nope]}\nspeed: 1\n")
    (sets / "new" / "checks.yaml").write_text("match: {operations: [nope]}\n")
    done = run("diff", "old", "new", cwd=sets)
    assert (done.returncode, done.stdout) == (2, "")
    places = ["old/checks.yaml:1", "old/checks.yaml:2", "new/checks.yaml:1"]
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == places
    done = run("diff", "old", "nowhere", cwd=sets)
    assert done.returncode == 2
    assert f"{sets}/nowhere: found no directory" in done.stderr


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


def test_a_new_callers_secret_is_shown_once_with_the_entry_that_accepts_it(tmp_path: Path) -> None:
    done = run("caller", "new", "scheduling")
    assert (done.returncode, done.stderr) == (0, "")
    shown, _, entry = done.stdout.partition("\n\n")
    secret = shown.splitlines()[1].split()[-1]
    (tmp_path / "callers.yaml").write_text(entry)
    (tmp_path / "checks.yaml").write_text("match: {operations: ['*']}\n")
    (caller,) = load(tmp_path).callers.values()

    assert caller.entry.digests == (hashlib.sha256(secret.encode()).hexdigest(),)
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert run("caller", "new", "scheduling").stdout != done.stdout


def test_a_new_caller_for_a_machine_is_json() -> None:
    made = json.loads(run("caller", "new", "billing", "--format", "json").stdout)

    assert made["client_id"] == "billing"
    assert made["secret_sha256"] == hashlib.sha256(made["client_secret"].encode()).hexdigest()


def test_a_name_that_no_caller_may_have_gets_no_secret() -> None:
    done = run("caller", "new", "Front Desk")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "NAME: found 'Front Desk', expected lower-case letters, digits and hyphens, at most 63\n"
