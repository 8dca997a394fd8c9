"""A CA, and a gateway that shows what it has signed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scripted import ScriptedUpstream
from tests.tls.authority import THIS_MACHINE, Authority, Files


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def shown(authority: Authority, tmp_path: Path) -> Files:
    """The files of a gateway's certificate."""
    return authority.issue(*THIS_MACHINE).write(tmp_path / "shown")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as one:
        yield one
