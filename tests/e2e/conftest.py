"""A gateway in front of a simulator: both in the test's own loop, both on real sockets."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from gateway.app import open_gateway
from gateway.process import Ending, drain, watching
from gateway.settings import read_settings
from gateway.simulator import Options, Simulator
from gateway.telemetry.log import open_log
from tests.running import ROOT

KEYS = "test:" + base64.b64encode(bytes(range(32))).decode()
BODY = {
    "controlNumber": "123456789",
    "tradingPartnerServiceId": "SIM-INSTANT",
    "provider": {"organizationName": "Harbour Clinic", "npi": "1999999984"},
    "subscriber": {"memberId": "TESTMEMBER1", "firstName": "Ada", "lastName": "Sample", "dateOfBirth": "19700101"},
    "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30"]},
}


def about(member: object) -> dict[str, Any]:
    """A question about another member: nobody shares its answer."""
    return BODY | {"subscriber": {"memberId": f"TESTMEMBER-{member}", "dateOfBirth": "19700101"}}


@dataclass(slots=True)
class Running:
    """A gateway that runs in this test, with what it logs."""

    url: str
    admin_url: str
    session: aiohttp.ClientSession
    output: io.BytesIO = field(default_factory=io.BytesIO)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def records(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == "request"]

    def calls(self) -> list[dict[str, Any]]:
        """What is logged of calls whose requests had their lines already."""
        return [line for line in self.lines() if line["event"] == "call"]

    async def submit(self, body: object = None, **headers: str) -> aiohttp.ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.session.post(f"{self.url}/rcm/eligibility/v1", json=body or BODY, headers=named)
        await response.read()
        return response

    async def metrics(self) -> str:
        async with self.session.get(f"{self.admin_url}/metrics") as response:
            return await response.text()


def environment(upstream_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """The environment of a gateway on ports of the system's choice."""
    return {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
        "GATEWAY_POLICIES": str(ROOT / "policies"),
        "GATEWAY_REDIS_URL": redis_url,
        "GATEWAY_UPSTREAM_URL": upstream_url,
        "GATEWAY_UPSTREAM_CLIENT_ID": "simulator",
        "GATEWAY_UPSTREAM_CLIENT_SECRET": "simulator-secret",
        "GATEWAY_KEYS": KEYS,
        "GATEWAY_REDIS_TIMEOUT_S": "5",  # a busy machine is no Redis that is gone; the tests of faults are stricter
        **{f"GATEWAY_{name.upper()}": value for name, value in more.items()},
    }


@asynccontextmanager
async def run_gateway(
    variables: dict[str, str],
    *,
    drain_s: float = 10,
    speed: float = 1.0,
) -> AsyncIterator[Running]:
    """Run a gateway in this loop; without `drain_s` it ends at once, whatever it would still like to store.

    It measures in seconds that pass `speed` times as fast as real ones: those of a simulator of the same speed.
    """
    output = io.BytesIO()
    async with (
        open_gateway(
            read_settings(variables), open_log("debug", output), now=lambda: time.monotonic() * speed
        ) as gateway,
        watching(gateway),
        aiohttp.ClientSession() as session,
    ):
        await asyncio.sleep(0)  # the log writes once a tick
        listening = json.loads(output.getvalue().splitlines()[-1])
        yield Running(
            f"{'https' if listening['tls'] else 'http'}://{listening['listen']}",
            f"http://{listening['admin_listen']}",
            session,
            output,
        )
        await drain(gateway, Ending(), drain_s)


async def stored_under(redis: Redis, key: bytes | str) -> bytes:
    """Everything that stands under a key."""
    if await redis.type(key) == b"string":
        found: bytes = await redis.get(key)  # type: ignore[assignment]
        return found
    fields: dict[bytes, bytes] = await redis.hgetall(key)  # type: ignore[assignment]
    return b"".join((*fields.keys(), *fields.values()))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(speed=60.0)) as running:
        yield running


@pytest.fixture
async def gateway(simulator: Simulator, redis_url: str) -> AsyncIterator[Running]:
    async with run_gateway(environment(simulator.url, redis_url)) as running:
        yield running


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def policies(tmp_path: Path) -> Callable[..., str]:
    """Write policy files and return their directory."""

    def write(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return str(tmp_path)

    return write


@pytest.fixture
def lookless(tmp_path: Path) -> str:
    """The shipped policies without their `recover:`, for tests in which an upstream breaks: nothing is looked up."""
    directory = tmp_path / "lookless"
    directory.mkdir()
    for file in (ROOT / "policies").glob("*.yaml"):
        lines = file.read_text().splitlines(keepends=True)
        (directory / file.name).write_text("".join(line for line in lines if not line.startswith("recover:")))
    return str(directory)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as one:
        yield one
