"""Two gateways that have lived, one of them in debug mode, for all tests that look at what they left."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.canaries.rarities import all_rarities
from tests.canaries.run import Evidence, life, live


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Evidence]:
    plain, debug = (tmp_path_factory.mktemp(name) for name in ("plain", "debug"))
    return asyncio.run(_both(plain, debug))


@pytest.fixture(params=["plain", "debug"])
def evidence(request: pytest.FixtureRequest, lives: Mapping[str, Evidence]) -> Evidence:
    return lives[request.param]


async def _both(plain: Path, debug: Path) -> Mapping[str, Evidence]:
    lives = await asyncio.gather(_lived(plain, is_debug=False), _lived(debug, is_debug=True))
    return dict(zip(("plain", "debug"), lives, strict=True))


async def _lived(directory: Path, *, is_debug: bool) -> Evidence:
    async with life(directory, is_debug=is_debug) as one:
        await live(one, all_rarities, is_hurried=is_debug)
    return one.evidence
