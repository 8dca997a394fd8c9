"""A directory is read as it stood at one moment, and what was kept of it is whole or nothing."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.files import Files, read
from gateway.policy.last_good import keep, kept

Write = Callable[[Mapping[str, str | bytes]], Path]
NAMES = tuple(f"{letter}.yaml" for letter in "abcdefgh")
texts = st.text(st.characters(codec="utf-8"), max_size=20)


def test_what_is_swapped_while_it_is_read_is_never_mixed(tmp_path: Path) -> None:
    directory = tmp_path / "mounted"
    directory.mkdir()
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        for name in NAMES:
            (tmp_path / version / name).write_text(version)
    (directory / "..data").symlink_to(tmp_path / "one")
    for name in NAMES:
        (directory / name).symlink_to(f"..data/{name}")
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            (directory / "..new").symlink_to(tmp_path / ("two" if swaps % 2 else "one"))
            (directory / "..new").replace(directory / "..data")
            swaps += 1
            stop.wait(0.002)  # a kubelet takes a minute

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        found = [read(directory) for _ in range(300)]
    finally:
        stop.set()
        swapping.join()

    assert swaps > 1
    assert {frozenset(files.contents.values()) for files in found} <= {frozenset({b"one"}), frozenset({b"two"})}
    assert {len(files.contents) for files in found} == {len(NAMES)}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}\.yaml", fullmatch=True), texts), texts)
def test_a_digest_names_what_stands_there_and_not_where(contents: dict[str, str], other: str) -> None:
    files = Files(Path("/one"), {name: text.encode() for name, text in contents.items()})
    elsewhere = Files(Path("/two"), dict(sorted(files.contents.items(), reverse=True)))
    more = Files(Path("/one"), {**files.contents, "another.yaml": other.encode()})

    assert files.digest == elsewhere.digest
    assert files.digest != more.digest or "another.yaml" in files.contents


def test_what_moves_from_one_file_to_the_next_is_another_digest() -> None:
    one = Files(Path(), {"a.yaml": b"ab", "b.yaml": b"c"})
    other = Files(Path(), {"a.yaml": b"a", "b.yaml": b"bc"})

    assert one.digest != other.digest


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    files = Files(Path("/etc/policies"), {"a.yaml": "match: {}\n# ü\n".encode()})
    keep(tmp_path, files, "one")
    keep(tmp_path, files, "two")

    assert kept(tmp_path, Path("/etc/policies")) == files
    assert [path.name for path in tmp_path.iterdir()] == ["policies.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '{"digest": 1, "files": []}', '{"digest": "", "files": {}}', "[" * 100_000]
)
def test_what_is_not_whole_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "policies.json").write_text(text)

    assert kept(tmp_path, Path("/etc/policies")) is None


def test_a_set_that_cannot_be_replaced_is_removed(tmp_path: Path) -> None:
    keep(tmp_path, Files(Path("/etc/policies"), {"a.yaml": b"one"}), "one")
    (tmp_path / ".policies.json.two").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        keep(tmp_path, Files(Path("/etc/policies"), {"a.yaml": b"two"}), "two")

    assert kept(tmp_path, Path("/etc/policies")) is None


def test_what_is_no_file_is_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policies.json")

    assert kept(tmp_path, Path("/etc/policies")) is None


def test_where_nothing_can_be_kept_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        keep(tmp_path / "nowhere", Files(tmp_path, {}), "one")
