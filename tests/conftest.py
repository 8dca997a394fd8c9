"""Fixtures that every suite shares: one real Valkey a session, emptied for each test that asks for it."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from redis._parsers import _AsyncRESP3Parser
from redis.asyncio import BlockingConnectionPool, Redis

from gateway.connect import Client, connect
from gateway.embedded import EmbeddedValkey
from tests.servers import (
    REDIS_SERVER,
    Server,
    bundled,
    cluster,
    cluster_url,
    over_tls,
    sentinel,
    sentinel_url,
    standalone,
)

_PATIENT = [HealthCheck.too_slow]  # a busy machine is no reason to fail
settings.register_profile("fast", max_examples=100, deadline=None, suppress_health_check=_PATIENT)
settings.register_profile("deep", max_examples=5000, deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def redis_url(valkey: EmbeddedValkey, redis: Redis) -> str:
    del redis  # it has emptied the server
    return valkey.url


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A server that a test may hurt."""
    with EmbeddedValkey() as server:
        yield server


# --- every kind of server that the gateway can be pointed at --------------------------------------------------------

KINDS = (
    "valkey",
    "resp2",
    "python-parser",
    "redis7",
    "redis7-resp2",
    "redis7-tls",
    "sentinel",
    "cluster",
    "redis7-cluster",
)


@pytest.fixture(scope="session")
def started() -> Iterator[Callable[[str], tuple[str, list[Server]]]]:
    """Start a kind of server once, when it is first asked for; return its URL and its primaries."""
    with ExitStack() as stack:
        running: dict[str, tuple[str, list[Server]]] = {}

        def start(kind: str) -> tuple[str, list[Server]]:
            if kind not in running:
                binary = REDIS_SERVER if kind.startswith("redis7") else bundled()
                if binary is None:
                    pytest.skip("Debian's redis-server is not installed")
                running[kind] = _start(stack, kind.removeprefix("redis7-"), binary)
            return running[kind]

        yield start


def _start(stack: ExitStack, kind: str, binary: str) -> tuple[str, list[Server]]:
    match kind:
        case "sentinel":
            primary, _, sentinels = stack.enter_context(sentinel(binary))
            return sentinel_url(sentinels), [primary]
        case "tls":
            server, url = stack.enter_context(over_tls(binary))
            return url, [server]
        case "cluster":
            nodes = stack.enter_context(cluster(binary))
            return cluster_url(nodes), nodes
        case _:
            server = stack.enter_context(standalone(binary))
            return server.url, [server]


@pytest.fixture(params=KINDS)
def any_server(
    request: pytest.FixtureRequest, started: Callable[[str], tuple[str, list[Server]]]
) -> Callable[[], Client]:
    """A maker of clients to an empty server of each kind, in both protocols and with both parsers."""
    kind: str = request.param
    url, primaries = started({"resp2": "valkey", "python-parser": "valkey", "redis7-resp2": "redis7"}.get(kind, kind))
    for primary in primaries:
        primary.client.flushall()
    if kind == "python-parser":
        return lambda: Redis.from_pool(BlockingConnectionPool.from_url(url, parser_class=_AsyncRESP3Parser, protocol=3))
    return lambda: connect(url + ("?protocol=2" if kind.endswith("resp2") else ""), answer_s=5)
