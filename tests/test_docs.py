"""The docs and the README under test: what is generated is fresh, what is linked exists, what is shown runs."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.http import server, tls
from gateway.http.ingress import Limits
from gateway.policy.files import load
from gateway.sealing import parse_ring
from gateway.settings import Settings
from gateway.simulator.faults import Kind
from gateway.simulator.payers import PAYERS
from tests.running import ROOT

DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = pytest.mark.parametrize("page", [*DOCS, ROOT / "helm" / "README.md"], ids=lambda page: page.name)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def test_what_is_generated_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@PAGES
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_page_is_named_by_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in DOCS[2:]:
        assert f"(docs/{page.name})" in readme


def test_the_simulators_page_names_every_payer_and_every_fault() -> None:
    page = (ROOT / "docs" / "simulator.md").read_text()
    for name in (*PAYERS, *Kind):
        assert f"`{name}`" in page, name


def test_the_policies_that_are_shown_are_valid(tmp_path: Path) -> None:
    policy, callers, limited = blocks(ROOT / "docs" / "policies.md", "yaml")
    (tmp_path / "shown.yaml").write_text(policy)
    (tmp_path / "callers.yaml").write_text(
        callers.replace("  anonymous: {}\n", f"  billing: {{secret_sha256: '{'0' * 64}'}}\n  anonymous: {{}}\n")
    )
    load(tmp_path)
    (tmp_path / "callers.yaml").write_text(limited + f"  billing: {{secret_sha256: '{'0' * 64}'}}\n")
    assert load(tmp_path).callers["scheduling"].entry.limits.in_flight == 200
    shown = YAML(typ="safe", pure=True).load(policy)
    assert set(shown) == {"match", "timeout", "headers", "token", "dedup", "recover", "audit", "metrics"}


def test_the_problem_that_is_shown_is_one() -> None:
    (shown,) = blocks(ROOT / "docs" / "problems.md", "json")
    assert json.loads(shown)["code"] == "upstream_timeout"


def test_the_limits_that_the_security_page_names_are_those_that_hold() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    stated = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in page.splitlines() if row.startswith("| ")}
    default = {name: field.default for name, field in Settings.model_fields.items()}
    assert stated["target, or one field"] == f"{server._LINE_BYTES:,} bytes"
    assert stated["all of the head"] == f"{server._HEAD_BYTES // 1024} KiB"
    assert f"more than {server._FIELDS} fields" in page
    assert stated["head, from its first byte to its end"].endswith(f"{default['head_timeout_s']:.0f} s")
    assert stated["body"].startswith(f"`GATEWAY_MAX_BODY_BYTES`, {default['max_body_bytes'] // 1024**2} MiB")
    assert stated["body, to its end"].endswith(f"{default['body_timeout_s']:.0f} s")
    assert stated["a connection without a request"].startswith(f"{server._FIRST_S:.0f} s")
    assert stated["a connection without a request"].endswith(f"{default['idle_timeout_s']:.0f} s")
    assert stated["a TLS handshake"] == f"{tls.HANDSHAKE_S:.0f} s"
    assert stated["a reply of which nothing is taken"] == f"{Limits.__dataclass_fields__['stall_s'].default:.0f} s"


# --- the README's commands, each of them run ------------------------------------------------------------------------

SUBSTITUTES = {
    # The tests cannot run all tests, so they run one file of them by the same command.
    "make test": "make test ARGS='-q tests/test_operations.py'",
    # Without --once it stays up, and is ended like the other processes that stay.
    "make demo": "make demo ARGS=--once",
}
STAYS = ("simulate", "serve")


@contextmanager
def background(script: str, environment: dict[str, str], ready: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["bash", "-ec", script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert any(ready in line for line in process.stdout), f"{script} ended before it was ready"
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def with_commands(**more: str) -> dict[str, str]:
    """An environment in which the project's command is found, and nothing is set for a gateway but this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "MAKE", "MFLAGS"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_every_command_of_the_readme_runs() -> None:
    """On ports that are free: those of the README may be in use where the tests run."""
    ports = {port: str(free_port()) for port in ("8080", "8081", "9090")}
    environment = with_commands(
        GATEWAY_LISTEN=f"127.0.0.1:{ports['8080']}", GATEWAY_ADMIN_LISTEN=f"127.0.0.1:{ports['9090']}"
    )
    scripts = [replaced(script, ports) for script in blocks(ROOT / "README.md", "sh")]
    assert len(scripts) == 9
    demo, test, simulate, serve, *rest = scripts
    for script in (demo, test):
        assert succeeded(script, environment)
    with background(simulate, environment, "listening"), background(serve, environment, '"listening"'):
        submitted, scraped, *others = [succeeded(script, environment) for script in rest]
    assert submitted.startswith("HTTP/1.1 200 OK")
    assert '"eligible"' in submitted
    assert "eligibility_gateway_requests_total" in scraped
    expected = ("no problem", "policy eligibility", "nothing changes")
    assert [word for word, said in zip(expected, others, strict=True) if word not in said] == []


def test_every_command_of_the_simulators_page_runs() -> None:
    port = str(free_port())
    environment = dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    scripts = [replaced(script, {"8081": port}) for script in blocks(ROOT / "docs" / "simulator.md", "sh")]
    simulate, ask, fault = scripts
    with background(simulate, environment, "listening"):
        assert json.loads(succeeded(ask, environment)) == {"status": "ok"}
        (left,) = json.loads(succeeded(fault, environment))
    assert left["times"] == 2


def replaced(script: str, ports: dict[str, str]) -> str:
    script = SUBSTITUTES.get(script.strip(), script)
    for shown, free in ports.items():
        script = script.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{free}")
    return script


def succeeded(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", ["policies.md", "operations.md"])
def test_the_command_that_makes_a_caller_makes_an_entry_that_is_accepted(page: str, tmp_path: Path) -> None:
    (script,) = blocks(ROOT / "docs" / page, "sh")
    shown, _, entry = succeeded(script, with_commands()).partition("\n\n")
    (tmp_path / "callers.yaml").write_text(entry)
    (tmp_path / "checks.yaml").write_text("match: {operations: ['*']}\n")
    assert "client secret" in shown
    assert set(load(tmp_path).callers) == {"scheduling"}


def test_what_a_service_that_migrates_adds_is_valid(tmp_path: Path) -> None:
    entry, shadow = blocks(ROOT / "docs" / "operations.md", "yaml")
    (tmp_path / "callers.yaml").write_text(entry)
    (tmp_path / "shadow.yaml").write_text(shadow)
    found = load(tmp_path)
    assert [policy.dedup.mode for policy in found.policies] == ["shadow"]
    assert set(found.callers) == {"scheduling"}


def test_every_metric_that_a_page_names_is_there() -> None:
    known = (ROOT / "docs" / "metrics.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`(?:eligibility_gateway_)?([a-z_]+_total)\b", page.read_text()):
            assert f"`eligibility_gateway_{name}`" in known, f"{page.name}: {name}"


def test_the_command_that_makes_a_key_makes_one_that_is_accepted() -> None:
    (script,) = blocks(ROOT / "docs" / "configuration.md", "sh")
    assert parse_ring(succeeded(script, dict(os.environ)).strip())[0].kid == "2026-11"
