from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.policy.documents import PolicyFilesError
from gateway.policy.files import PolicySet, load

Write = Callable[[Mapping[str, str | bytes]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files into an empty directory, and return it."""

    def write_all(files: Mapping[str, str | bytes]) -> Path:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write_all


@pytest.fixture
def loaded(write: Write) -> Callable[[Mapping[str, str | bytes]], PolicySet]:
    return lambda files: load(write(files))


@pytest.fixture
def complaints(write: Write) -> Callable[[Mapping[str, str | bytes]], list[str]]:
    """The lines that a user sees for such files, without the name of the directory."""

    def complain(files: Mapping[str, str | bytes]) -> list[str]:
        directory = write(files)
        with pytest.raises(PolicyFilesError) as caught:
            load(directory)
        assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
        return [
            str(problem).replace(f"{directory}/", "").replace(str(directory), ".") for problem in caught.value.problems
        ]

    return complain
