"""One day of traffic through nginx in two forms and through the gateway: which calls it costs, and who gets what.

Facts
- The same day, from the same seed, for every peer; each has an upstream, a Valkey and, if it needs one, a cache of its
  own, all of them empty in the morning. nginx is one process, the gateway two that share a Valkey: requests go to them
  in turn.
- A true duplicate is a request beyond the first for a question whose answer is a fact: in one operation, on behalf of
  one subtenant. It is caught if it caused no call, so calls are counted where they arrive.
- A false replay by the gateway is an error. By nginx it is a finding: neither form claims to know what is a fact.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench.day_load import Seen
from bench.day_upstream import PATH_CALLS
from bench.measure import Progress
from bench.peers import BYTES, GATEWAY, LUA_KEEPING, available, proxy, upstream, valkey
from bench.processes import line_of, module, other_core, talking
from bench.schedule import Day, day, script
from bench.scrape import fetch

SEED: Final = 270
VISITS: Final = 600
_PEERS: Final = (BYTES, LUA_KEEPING, GATEWAY)
_REPLICAS: Final = {GATEWAY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow:
    """One peer's day. `needed`: the calls that had to be made; `saved`: the requests that caused none.

    False replays are another question's answers, and what is no fact.
    """

    peer: str
    requests: int
    calls: int
    needed: int
    saved: int
    duplicates: int
    caught: int
    caught_share: float
    others_answers: int
    replayed_no_facts: int
    errors: int
    late_p99_ms: float


def measure(visits: int, seed: int, progress: Progress) -> Sequence[DayRow]:
    """Play the day to each peer."""
    plan = day(seed, visits)
    rows: list[DayRow] = []
    for name in available(*_PEERS):
        progress(f"day: {name}")
        rows.append(day_row(name, plan, *_played(name, seed, visits)))
    return rows


def day_row(peer: str, plan: Day, seen: Seen, calls: Mapping[int, int]) -> DayRow:
    """Count what a peer caught."""
    missed = sum(made - 1 for question, made in calls.items() if script(plan.seed, question).is_fact)
    caught = plan.duplicates - missed
    false_replays = seen.others_answers + seen.replayed_no_facts
    return DayRow(
        peer=peer,
        requests=len(plan.asked),
        calls=sum(calls.values()),
        needed=plan.needed,
        saved=len(plan.asked) - sum(calls.values()),
        duplicates=plan.duplicates,
        caught=caught,
        caught_share=round(caught / max(plan.duplicates, 1), 4),
        others_answers=seen.others_answers,
        replayed_no_facts=seen.replayed_no_facts,
        errors=seen.errors + (false_replays if peer == GATEWAY else 0),
        late_p99_ms=seen.late_p99_ms,
    )


def _played(name: str, seed: int, visits: int) -> tuple[Seen, Mapping[int, int]]:
    with ExitStack() as stack:
        upstream_port = stack.enter_context(upstream("day_upstream", "--seed", str(seed)))
        redis_url = stack.enter_context(valkey())
        replicas = [stack.enter_context(proxy(name, upstream_port, redis_url)) for _ in range(_REPLICAS.get(name, 1))]
        ports = [str(replica.port) for replica in replicas]
        options = ("--token", replicas[0].token, "--seed", str(seed), "--visits", str(visits))
        with talking(module("day_load", "--ports", *ports, *options), core=other_core()) as popen:
            seen = Seen(**json.loads(line_of(popen)))
        calls = {int(question): made for question, made in json.loads(fetch(upstream_port, PATH_CALLS)).items()}
    return seen, calls
