"""The user of Redis that docs/operations.md describes: it may do all that a gateway does, and nothing else."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from tests.e2e.conftest import about, environment, run_gateway
from tests.running import ROOT, eventually, total
from tests.scripted import ScriptedUpstream, reply
from tests.servers import REDIS_SERVER, Server, bundled, cluster, cluster_url, standalone
from tests.test_cli import run

PAGE = (ROOT / "docs" / "operations.md").read_text()
CALLERS = "callers: {anonymous: {}}\n"
EVERYTHING = (
    "match: {operations: ['*']}\ntimeout: {connect: 5s, answer: 60s, caller: 1s}\n"
    "dedup: {mode: enforce, window: 1h}\nrecover: {within: 5s}\n"
)
SHADOW = "match: {operations: [submit_eligibility_x12]}\ndedup: {mode: shadow, window: 1h}\n"
FACT = reply(body=b'{"id": "t-1", "status": {"value": "eligible"}}')


def rule() -> list[str]:
    (line,) = re.findall(r"^ACL SETUSER gateway (.+)$", PAGE, re.MULTILINE)
    return str(line).replace("PASSWORD", "secret").split()


def beside(what: str) -> list[str]:
    """The further commands that the page names for a cluster, or for `forget`."""
    (words,) = re.findall(rf"{what}`? also needs `([^`]+)`", PAGE)
    return str(words).split()


def allow(server: Server, words: list[str]) -> None:
    server.client.execute_command("ACL", "SETUSER", "gateway", *words)
    server.client.execute_command("ACL", "LOG", "RESET")


def denied(server: Server) -> list[Any]:
    found: list[Any] = server.client.execute_command("ACL", "LOG")
    return found


async def live_through_everything(url: str, directory: str) -> str:
    """Lead, follow, replay, refresh, come back for a landing, and shadow; return the metrics."""
    async with (
        ScriptedUpstream(raw=FACT) as upstream,
        run_gateway(environment(upstream.url, url, policies=directory)) as one,
        run_gateway(environment(upstream.url, url, policies=directory)) as two,
    ):
        for gateway in (one, two, one):
            statuses = await asyncio.gather(*(gateway.submit(about(member % 4)) for member in range(12)))
            assert {response.status for response in statuses} == {200}
        fresh = {"x_optum_eligibility_disable_value_add": "deduplication"}
        assert (await one.submit(about(1), **fresh)).status == 200
        release = asyncio.Event()

        async def slow(_: object, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            writer.write(FACT)

        upstream.answer = slow
        assert (await one.submit(about("slow"))).status == 504
        release.set()

        async def is_there() -> bool:
            return (await two.submit(about("slow"))).status == 200

        await eventually(is_there)
        metrics = await one.metrics()
        assert total(await two.metrics(), "redis_errors_total") == 0
    return metrics


@pytest.fixture(params=["valkey", "redis7"])
def binary(request: pytest.FixtureRequest) -> str:
    if request.param == "redis7" and REDIS_SERVER is None:
        pytest.skip("Debian's redis-server is not installed")
    return bundled() if request.param == "valkey" else str(REDIS_SERVER)


async def test_it_may_do_all_that_a_gateway_does_and_nothing_else(
    binary: str,
    policies: Callable[..., str],
) -> None:
    directory = policies(callers=CALLERS, everything=EVERYTHING, shadow=SHADOW)
    with standalone(binary) as server:
        allow(server, rule())
        url = server.url.replace("redis://", "redis://gateway:secret@")
        metrics = await live_through_everything(url, directory)
        assert total(metrics, "redis_errors_total") == 0
        assert denied(server) == []
        for words in (("GET", "other"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("MONITOR",)):
            with pytest.raises(Exception, match=r"(?i)no permissions|NOPERM"):
                await asyncio.to_thread(as_gateway, server, words)

        allow(server, beside("forget"))
        done = await asyncio.to_thread(run, "forget", "--all", environment=environment("https://x.test", url))
        assert (done.returncode, done.stdout) == (0, "forgot 5 answers\n")
        assert denied(server) == []


async def test_of_a_cluster_it_may_know_the_nodes(policies: Callable[..., str]) -> None:
    directory = policies(callers=CALLERS, everything=EVERYTHING)
    with cluster(bundled()) as nodes:
        for node in nodes:
            allow(node, rule() + beside("cluster"))
        url = cluster_url(nodes).replace("://", "://gateway:secret@")
        metrics = await live_through_everything(url, directory)
        assert total(metrics, "redis_errors_total") == 0
        assert [denied(node) for node in nodes] == [[], [], []]


def as_gateway(server: Server, words: tuple[str, ...]) -> None:
    with Redis(port=server.port, username="gateway", password="secret") as client:
        client.execute_command(*words)
