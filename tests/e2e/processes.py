"""Gateways as processes of their own, an upstream that answers when it is told to, and callers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import aiohttp

from tests.e2e.conftest import environment
from tests.running import ROOT, GatewayProcess, eventually, kept_environment, total
from tests.scripted import Request, ScriptedUpstream, reply

REPLICAS = 3
Asked = tuple[int, dict[str, Any]]


@asynccontextmanager
async def started(variables: Mapping[str, str]) -> AsyncIterator[GatewayProcess]:
    """Run one; it is started in a thread, for the upstream that it asks for a token is in this loop."""
    with await asyncio.to_thread(GatewayProcess, variables) as process:
        yield process


@asynccontextmanager
async def fleet(upstream_url: str, redis_url: str, **more: str) -> AsyncIterator[list[GatewayProcess]]:
    """Run the replicas; they are started in threads, for the upstream that they ask for a token is in this loop."""
    variables = environment(upstream_url, redis_url, **more)
    processes = await asyncio.gather(*(asyncio.to_thread(GatewayProcess, variables) for _ in range(REPLICAS)))
    with ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        yield processes


class Held:
    """An upstream that answers when it is told to, and numbers its answers."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.upstream = ScriptedUpstream(answer=self._answer)

    async def _answer(self, _: Request, writer: asyncio.StreamWriter) -> None:
        number = len(self.upstream.requests)
        await self.release.wait()
        fact = {"id": f"t-{number}", "sourceType": "new", "correlationId": "x", "status": {"value": "eligible"}}
        writer.write(reply(body=json.dumps(fact).encode()))

    @property
    def calls(self) -> int:
        return len(self.upstream.requests)


def serve(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", "serve"],
        env={**kept_environment(), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def ask(session: aiohttp.ClientSession, url: str, name: str, body: dict[str, Any]) -> Asked:
    headers = {"x-optum-correlation-id": name}
    async with session.post(f"{url}/rcm/eligibility/v1", json=body, headers=headers) as response:
        assert response.headers["x-optum-correlation-id"] == name
        return response.status, await response.json()


async def waiting(session: aiohttp.ClientSession, processes: list[GatewayProcess], count: int) -> None:
    """Return when so many requests are in flight in these processes."""

    async def are_there() -> bool:
        found = 0.0
        for process in processes:
            async with session.get(f"{process.admin_url}/metrics") as response:
                found += total(await response.text(), "requests_in_flight")
        return found >= count

    await eventually(are_there, 20)


async def text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()
