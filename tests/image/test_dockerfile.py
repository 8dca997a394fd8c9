"""The Dockerfile, read: what it says of the image, and what hadolint says of it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.settings import Settings, variable
from tests.image.dockerfile import Instruction, Stage, allowed, exec_form, read
from tests.running import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
ALL = read(TEXT)
FROMS = [index for index, one in enumerate(ALL) if one.name == "FROM"]
LAST = ALL[FROMS[-1] :]
COPIED = [one.value.split() for one in ALL if one.name == "COPY" and "--from" not in one.value]
RUNS = [command for one in ALL if one.name == "RUN" for command in one.value.split(" && ")]


def values(name: str) -> list[str]:
    """What the last stage says in instructions of this name."""
    return [one.value for one in LAST if one.name == name]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: make shipping")
def test_hadolint_finds_nothing_and_nothing_is_kept_from_it() -> None:
    done = subprocess.run(
        [str(HADOLINT), "--no-color", "--failure-threshold", "style", "--disable-ignore-pragma", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- its stages -----------------------------------------------------------------------------------------------------


def test_the_image_is_the_last_stage_and_each_stage_has_its_purpose() -> None:
    assert [ALL[index].value for index in FROMS] == [
        "${BASE} AS build",
        "build AS describe",
        "scratch AS sbom",
        "${BASE}",
    ]


def test_who_releases_can_pin_the_base_and_no_digest_is_made_up() -> None:
    assert ALL[0] == Instruction("ARG", "BASE=python:3.11-slim-bookworm")
    assert not re.search(r"@sha256:[0-9a-f]", TEXT)
    assert "--build-arg BASE=" in TEXT


def test_whatever_is_installed_is_checked_by_its_hash_or_was_built_here() -> None:
    installs = [command for command in RUNS if " install " in command]
    assert len(installs) == 4
    assert all("--require-hashes --only-binary :all:" in one or "--no-deps --no-index" in one for one in installs)
    assert not re.search(r"\b(apt-get|apk|curl|wget)\b", TEXT)
    assert "ADD" not in {one.name for one in ALL}


def test_each_stage_uses_no_other_instruction_than_it_needs() -> None:
    build = ALL[1 : FROMS[-1]]
    assert {one.name for one in build} == {"FROM", "WORKDIR", "ENV", "COPY", "RUN"}
    assert {one.value for one in build if one.name == "WORKDIR"} == {"/build"}
    assert {one.value for one in build if one.name == "ENV"} == {"PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1"}
    once = ["ENV", "EXPOSE", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "LABEL"]
    assert sorted(one.name for one in LAST) == sorted([*once, "FROM", *["RUN"] * 2, *["COPY"] * 2, *["ARG"] * 4])
    assert values("EXPOSE") == ["8080 9090"]


def test_no_command_fetches_runs_or_permits_what_nobody_has_looked_at() -> None:
    for command in (one.value for one in ALL if one.name == "RUN"):
        assert not re.search(r"://|\bexec\(|\beval\b|\b(curl|wget|chmod|chown|setcap|setfacl)\b|-c\b", command), command
    named = [option for one in ALL if one.name == "COPY" for option in one.value.split() if option.startswith("--")]
    assert {option.partition("=")[0] for option in named} == {"--from"}  # neither --chmod nor --chown


def test_the_last_stage_compiles_by_hash_and_tries_what_it_needs_of_its_base() -> None:
    first, last = values("RUN")
    assert "compileall -q -f --invalidation-mode unchecked-hash /usr/local/lib/python3.*" in first
    assert last == "eligibility-gateway check"
    for removed in ("/usr/local/bin/pip*", "/usr/local/lib/python3.*/ensurepip", "/site-packages/*"):
        assert removed in first
    assert "python -m compileall -q -f --invalidation-mode unchecked-hash /opt/gateway/lib" in RUNS


def test_the_last_stage_takes_from_the_others_nothing_but_the_environment() -> None:
    assert [one for one in values("COPY") if "--from" in one] == ["--from=build /opt/gateway /opt/gateway"]
    assert [one for one in values("COPY") if "--from" not in one] == ["policies /etc/gateway/policies"]
    assert not [one for one in values("RUN") if "install" in one]


# --- its context ----------------------------------------------------------------------------------------------------


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    for *sources, _ in COPIED:
        for source in sources:
            assert (ROOT / source).exists()
            assert source in set(allowed(IGNORE))


def test_nothing_is_let_through_that_is_not_copied() -> None:
    assert set(allowed(IGNORE)) == {source for *sources, _ in COPIED for source in sources}
    assert "**/__pycache__" in IGNORE.splitlines()


# --- how it runs ----------------------------------------------------------------------------------------------------


def test_it_runs_as_nobody_in_exec_form_and_ends_at_sigterm() -> None:
    assert values("USER") == ["65532:65532"]
    assert [exec_form(value) for value in values("ENTRYPOINT")] == [["eligibility-gateway"]]
    assert [exec_form(value) for value in values("CMD")] == [["serve"]]
    assert values("STOPSIGNAL") == ["SIGTERM"]
    after = LAST[[one.name for one in LAST].index("USER") :]
    assert not {one.name for one in after} & {"RUN", "COPY"}


def test_its_health_is_asked_for_in_exec_form_and_the_command_may_take_its_three_seconds() -> None:
    (health,) = values("HEALTHCHECK")
    options, _, command = health.partition("CMD ")
    assert exec_form(command) == ["eligibility-gateway", "healthcheck"]
    assert set(options.split()) == {"--interval=10s", "--timeout=5s", "--start-period=30s"}


def test_its_environment_is_what_is_expected_and_nothing_else() -> None:
    (env,) = values("ENV")
    stated = dict(word.split("=", 1) for word in env.split())
    assert stated == {
        "PATH": "/opt/gateway/bin:$PATH",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GATEWAY_LISTEN": "0.0.0.0:8080",
        "GATEWAY_ADMIN_LISTEN": "0.0.0.0:9090",
        "GATEWAY_POLICIES": "/etc/gateway/policies",
    }
    named = {name for name in stated if name.startswith("GATEWAY_")}
    assert named <= {variable(name) for name in Settings.model_fields}


def test_its_labels_say_what_is_true() -> None:
    (labels,) = values("LABEL")
    stated = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', labels))
    assert stated == {
        "title": "Eligibility Gateway",
        "description": "A reverse proxy for Optum's Enhanced Eligibility API",
        "licenses": "Apache-2.0",
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "created": "${CREATED}",
        "base.name": "${BASE}",
    }
    assert PROJECT["description"].startswith(stated["description"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert {"BASE", f"VERSION={PROJECT['version']}", "REVISION=", "CREATED="} == set(values("ARG"))


# --- the reader, which must not do to this machine what is meant for an image -----------------------------------------


def test_continued_lines_and_comments_are_read_as_docker_reads_them() -> None:
    assert read("# a\nFROM x AS y\nRUN a \\\n# not this\n && b\n\ncmd [1]\n") == [
        Instruction("FROM", "x AS y"),
        Instruction("RUN", "a   && b"),
        Instruction("CMD", "[1]"),
    ]


def test_paths_from_the_root_become_those_of_the_stage() -> None:
    stage = Stage(base="", name="", root=Path("/made/here"), workdir="/build")
    assert stage.mapped("rm -rf /usr/local/bin/pip* a/b dist/*.whl '/^# ==/,$d'") == (
        "rm -rf /made/here/usr/local/bin/pip* a/b dist/*.whl '/^# ==/,$d'"
    )
    assert stage.at("dist/x") == Path("/made/here/build/dist/x")
    assert stage.at("/etc/x") == Path("/made/here/etc/x")


@pytest.mark.parametrize("command", ["rm -rf $x/usr/local/bin", "rm -rf -/usr/bin/pip", "rm -rf */etc/passwd"])
def test_a_command_that_could_reach_this_machine_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match="a path of this machine"):
        Stage(base="", name="", root=Path("/made/here")).mapped(command)


@pytest.mark.parametrize("value", ['"serve"', "[1]", '{"a": 1}'])
def test_what_a_shell_would_read_is_no_exec_form(value: str) -> None:
    with pytest.raises(ValueError, match="expected a list of words"):
        exec_form(value)


def test_an_ignore_file_that_lets_everything_through_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an allow-list"):
        list(allowed("# all\n.git\n"))
