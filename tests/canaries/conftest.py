"""Two gateways that have lived, one of them in hurried mode, for all tests that look at what they left."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.canaries.rarities import all_rarities
from tests.canaries.run import Evidence, life, live


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Evidence]:
    calm, hurried = (tmp_path_factory.mktemp(name) for name in ("calm", "hurried"))
    return asyncio.run(_both(calm, hurried))


@pytest.fixture(params=["calm", "hurried"])
def evidence(request: pytest.FixtureRequest, lives: Mapping[str, Evidence]) -> Evidence:
    return lives[request.param]


async def _both(calm: Path, hurried: Path) -> Mapping[str, Evidence]:
    lives = await asyncio.gather(_lived(calm, is_hurried=False), _lived(hurried, is_hurried=True))
    return dict(zip(("calm", "hurried"), lives, strict=True))


async def _lived(directory: Path, *, is_hurried: bool) -> Evidence:
    async with life(directory) as one:
        await live(one, all_rarities, is_hurried=is_hurried)
    return one.evidence
