"""One gateway for a whole file, in front of an upstream that keeps every byte it is sent."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from yarl import URL

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import Running, environment, run_gateway
from tests.scripted import Request, ScriptedUpstream


@dataclass(slots=True)
class Edge:
    """A gateway, what stands behind it, and what that has seen."""

    gateway: Running
    upstream: ScriptedUpstream

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = URL(self.gateway.url)
        return await asyncio.open_connection(parts.host, parts.port)

    def seen(self, since: int) -> list[Request]:
        return self.upstream.requests[since:]

    async def is_idle(self) -> None:
        """Return when nothing is in flight: another request, which is answered here, comes after all before it."""
        async with self.gateway.session.get(f"{self.gateway.url}/nowhere") as response:
            assert response.status == 404


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(valkey: EmbeddedValkey) -> AsyncIterator[Edge]:
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, valkey.url, idle_timeout_s="20")) as gateway,
    ):
        yield Edge(gateway, upstream)
