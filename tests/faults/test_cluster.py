"""A cluster that loses a node, or moves a slot, under a gateway that serves."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest
from redis.exceptions import ResponseError

from gateway.breaker import FAILURES
from tests.e2e.conftest import Running, about, run_gateway
from tests.faults.conftest import Answering, environment, metric
from tests.running import eventually
from tests.servers import Server, bundled, cluster, cluster_url, standalone, until

MEMBERS = 12
HIT = "eligibility-gateway; hit;"


def flights(node: Server) -> set[bytes]:
    return set(node.client.keys("eg:flight:*"))


def known(node: Server) -> int:
    return int(node.client.cluster("INFO")["cluster_known_nodes"])


async def ask(gateway: Running, member: object) -> str:
    reply = await gateway.submit(about(member))
    assert reply.status == 200
    assert (await reply.json())["member"] == f"TESTMEMBER-{member}"
    return reply.headers["Cache-Status"]


async def spread(gateway: Running, nodes: list[Server]) -> dict[int, list[int]]:
    """Ask until that many answers are held; return whose each node holds."""
    members: dict[int, list[int]] = {number: [] for number in range(len(nodes))}
    for member in range(2 * MEMBERS):
        before = [flights(node) for node in nodes]
        if "stored" in await ask(gateway, member):  # else this machine stood still for longer than Redis may take
            (owner,) = (i for i, node in enumerate(nodes) if flights(node) - before[i])
            members[owner].append(member)
        if sum(map(len, members.values())) == MEMBERS:
            break
    assert all(members.values())
    return members


@pytest.fixture
async def answering() -> AsyncIterator[Answering]:
    one = Answering()
    async with one.upstream:
        yield one


@pytest.fixture
def nodes() -> Iterator[list[Server]]:
    """A cluster that a test may hurt."""
    with cluster(bundled(), node_timeout_s=2) as found:
        yield found


async def test_a_node_that_is_killed_takes_only_its_own_answers_along(
    nodes: list[Server], answering: Answering
) -> None:
    async with run_gateway(environment(answering.upstream.url, cluster_url(nodes)), drain_s=0) as gateway:
        *others, lost = (await spread(gateway, nodes)).values()
        healthy = [member for members in others for member in members]
        nodes[-1].process.kill()
        for number, member in enumerate(lost):
            assert (await ask(gateway, member)).endswith("detail=store_unavailable")
            # Also within one pipeline: a node that refuses takes no other's commands with it.
            statuses = await asyncio.gather(*(ask(gateway, one) for one in (*healthy, f"new-{number}")))
            assert all(status.startswith(HIT) for status in statuses[:-1])
        assert max(answering.calls.values()) == 2
        assert await metric(gateway, "dedup_lost_leases_total") == 0


async def test_a_node_that_is_frozen_keeps_nobody_waiting_for_the_others(
    nodes: list[Server], answering: Answering
) -> None:
    for node in nodes:  # else the others refuse everything as soon as they notice
        node.client.config_set("cluster-require-full-coverage", "no")
    async with run_gateway(environment(answering.upstream.url, cluster_url(nodes)), drain_s=0) as gateway:
        *others, lost = (await spread(gateway, nodes)).values()
        healthy = [member for members in others for member in members]
        everybody = [*healthy, *lost]
        nodes[-1].process.send_signal(signal.SIGSTOP)
        for _ in range(FAILURES + 2):
            statuses = await asyncio.gather(*(ask(gateway, member) for member in everybody))
            hits = [member for member, status in zip(everybody, statuses, strict=True) if status.startswith(HIT)]
            assert hits == healthy
        # One breaker is open, and it is that of the frozen node.
        before = await metric(gateway, "redis_errors_total")
        for member in lost * FAILURES:
            assert (await ask(gateway, member)).endswith("detail=store_unavailable")
        assert await metric(gateway, "redis_errors_total") - before < FAILURES


@pytest.mark.long
async def test_a_replica_that_took_over_from_a_frozen_node_is_found(nodes: list[Server], answering: Answering) -> None:
    *_, frozen = nodes
    with standalone(bundled(), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000") as replica:
        name = frozen.client.execute_command("CLUSTER", "MYID").decode()
        replica.client.execute_command("CLUSTER", "MEET", "127.0.0.1", frozen.port)
        until(lambda: replica.client.execute_command("CLUSTER", "REPLICATE", name))
        until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        until(lambda: all(known(node) == 4 for node in nodes))
        async with run_gateway(environment(answering.upstream.url, cluster_url(nodes))) as gateway:
            *_, lost = (await spread(gateway, nodes)).values()
            frozen.process.send_signal(signal.SIGSTOP)

            async def is_replayed() -> bool:
                return all([(await ask(gateway, member)).startswith(HIT) for member in lost])

            await eventually(is_replayed, 60)
            assert replica.client.info("replication")["role"] == "master"


@pytest.mark.long
async def test_a_node_that_is_frozen_is_used_again_when_it_thaws(nodes: list[Server], answering: Answering) -> None:
    async with run_gateway(environment(answering.upstream.url, cluster_url(nodes))) as gateway:
        await spread(gateway, nodes)
        nodes[-1].process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            await asyncio.gather(*(ask(gateway, member) for member in range(MEMBERS) for _ in range(3)))
        nodes[-1].process.send_signal(signal.SIGCONT)
        assert max(answering.calls.values()) <= 3  # as many as rounds

        async def is_whole() -> bool:
            return all([(await ask(gateway, member)).startswith(HIT) for member in range(MEMBERS)])

        await eventually(is_whole, 60)
        assert await metric(gateway, "dedup_lost_leases_total") == 0


async def test_a_slot_that_moves_takes_its_answers_along(
    started: Callable[[str], tuple[str, list[Server]]], answering: Answering
) -> None:
    url, nodes = started("cluster")
    for node in nodes:
        node.client.flushall()
    variables = environment(answering.upstream.url, url)
    async with run_gateway(variables) as one, run_gateway(variables) as two:
        assert "stored" in await ask(one, "kept")
        (source,) = (node for node in nodes if flights(node))
        target = next(node for node in nodes if node is not source)
        (key,) = flights(source)
        slot = source.client.execute_command("CLUSTER", "KEYSLOT", key)
        names = {node: node.client.execute_command("CLUSTER", "MYID").decode() for node in (source, target)}
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        assert (await ask(one, "kept")).startswith(HIT)
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert (await ask(one, "kept")).startswith(HIT)  # ASK
        assert (await ask(two, "kept")).startswith(HIT)
        for node in (target, source, *nodes):
            with suppress(ResponseError):
                node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target])
        assert (await ask(one, "kept")).startswith(HIT)  # MOVED
        assert (await ask(two, "kept")).startswith(HIT)
        assert flights(target) == {key}
        assert [await metric(gateway, "redis_errors_total") for gateway in (one, two)] == [0, 0]
    assert answering.calls == {"TESTMEMBER-kept": 1}
