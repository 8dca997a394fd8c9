"""Followers of one flight: what each costs in memory, and how much later than the leader it has its answer.

Facts
- Memory: one process, one question on as many connections as the goal names. One request leads and the others
  follow; resident memory while the upstream waits, less that before, by their number. A follower needs one
  descriptor in the gateway and one in the load.
- Lateness: two replicas that share a Valkey, and so many followers on each; medians over the rounds.
- One question costs one call, however many follow: a second one counts as an error.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench import measure
from bench.followers_load import Rounds
from bench.measure import Memory, Progress
from bench.messages import ANSWERED_BYTES, CALLS_METRIC, REPLAYED_BYTES
from bench.peers import GATEWAY, proxy, upstream, valkey
from bench.processes import allow_descriptors, line_of, module, other_core, talking
from bench.scrape import IN_FLIGHT, metric

FOLLOWERS: Final = 15_000
LATE_FOLLOWERS: Final = 200
_ROUNDS_A_RUN: Final = 3
_REPLICAS: Final = ("the leader's replica", "another replica")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """How late the followers on one replica were, in milliseconds: after the leader, and after the upstream."""

    replica: str
    p50_ms: float
    p99_ms: float
    since_p50_ms: float
    since_p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Followers:
    """What was found of followers. Calls are of the memory's one flight, and of all rounds of lateness."""

    memory: Memory
    memory_calls: int
    lateness: Sequence[Lateness]
    late_followers: int
    leader_since_ms: float
    reading_ms: float
    rounds: int
    round_calls: int
    errors: int


def followers(count: int, runs: int, progress: Progress) -> Followers:
    """Measure both, with at most so many followers."""
    progress("followers: memory")
    memory, memory_calls = _memory(min(count, allow_descriptors(each=1)))
    progress("followers: lateness")
    rounds = runs * _ROUNDS_A_RUN
    few = min(count, LATE_FOLLOWERS)
    late, round_calls = _lateness(few, rounds)
    return Followers(
        memory=memory,
        memory_calls=memory_calls,
        lateness=[
            Lateness(
                replica=name,
                p50_ms=late.late_p50_ms[number],
                p99_ms=late.late_p99_ms[number],
                since_p50_ms=late.since_p50_ms[number],
                since_p99_ms=late.since_p99_ms[number],
            )
            for number, name in enumerate(_REPLICAS)
        ],
        late_followers=few,
        leader_since_ms=late.leader_since_ms,
        reading_ms=late.reading_ms,
        rounds=rounds,
        round_calls=round_calls,
        errors=memory.errors + late.errors + abs(memory_calls - 1) + abs(round_calls - rounds),
    )


def _memory(wanted: int) -> tuple[Memory, int]:
    with upstream() as upstream_port, proxy(GATEWAY, upstream_port) as peer:
        measure.warm_up(peer)
        before = metric(upstream_port, CALLS_METRIC)
        gauge = f"{peer.admin_port}:{IN_FLIGHT}"
        one_question = ("--members", "1", "--expected", str(ANSWERED_BYTES), str(REPLAYED_BYTES))
        found = measure.hold(peer, GATEWAY, upstream_port, wanted, gauge, *one_question)
        return found, metric(upstream_port, CALLS_METRIC) - before


def _lateness(count: int, rounds: int) -> tuple[Rounds, int]:
    with (
        upstream() as upstream_port,
        valkey() as url,
        proxy(GATEWAY, upstream_port, url) as first,
        proxy(GATEWAY, upstream_port, url) as second,
    ):
        replicas = [f"{peer.port}:{peer.admin_port}" for peer in (first, second)]
        for peer in (first, second):
            measure.warm_up(peer)
        before = metric(upstream_port, CALLS_METRIC)
        options = ("--upstream", str(upstream_port), "--token", first.token, "--followers", str(count))
        command = module("followers_load", "--replicas", *replicas, *options, "--rounds", str(rounds))
        with talking(command, core=other_core()) as popen:
            result = Rounds(**json.loads(line_of(popen)))
        return result, metric(upstream_port, CALLS_METRIC) - before
