"""A gateway in a process of its own, with its own event loop, and a Redis that wants TLS and a password."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.e2e.conftest import BODY, environment
from tests.e2e.processes import Held, ask, waiting
from tests.running import GatewayProcess
from tests.servers import REDIS_SERVER, over_tls


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as one:
        yield one


@pytest.mark.skipif(REDIS_SERVER is None, reason="Debian's redis-server is not installed; the bundled one has no TLS")
async def test_two_processes_share_one_call_over_tls(session: aiohttp.ClientSession) -> None:
    held = Held()
    with over_tls(REDIS_SERVER or "") as (_, url):
        async with held.upstream as upstream:
            variables = environment(upstream.url, url)
            one, two = await asyncio.gather(*(asyncio.to_thread(GatewayProcess, variables) for _ in range(2)))
            with one, two:
                asked = [
                    asyncio.create_task(ask(session, at.url, f"c{i}", BODY)) for i, at in enumerate((one, two) * 20)
                ]
                await waiting(session, [one, two], len(asked))
                held.release.set()
                answers = await asyncio.gather(*asked)
                later = await ask(session, two.url, "later", BODY)
    assert {status for status, _ in (*answers, later)} == {200}
    assert later[1]["sourceType"] == "duplicate"
    assert held.calls == 1
