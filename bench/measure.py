"""CPU, latency and memory. Peers take turns (A B C, A B C, …), so that a noisy minute meets all of them.

Facts
- CPU: a fresh process, a warm-up that does not count, then a closed loop; the proxy's CPU time divided by the
  requests it answered. The ratio is taken within each run, and the median of the ratios is quoted. In `lead` every
  request is another question; in `replay` each was answered during the warm-up.
- Latency: an open loop at 300 requests/s, far below saturation. What a proxy adds is no difference of two
  quantiles, so the distributions stand side by side; the whole latency bounds what the proxy can have added.
- Memory: one request each on thousands of connections, and an upstream that waits until it is told to answer. They
  are held when the upstream has received them all. Resident memory then, less resident memory before, by their
  number; the kernel's socket buffers are not in it. Once per peer, for it hardly varies.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.load import Closed, Held, Opened, Released
from bench.messages import ANSWERED_BYTES, HELD_METRIC, REPLAYED_BYTES, TOKEN
from bench.peers import (
    BARE,
    BARE_UVLOOP,
    DIRECT,
    GATEWAY,
    LUA,
    LUA_KEEPING,
    PASSING,
    Proxy,
    available,
    proxy,
    upstream,
)
from bench.processes import allow_descriptors, line_of, module, other_core, talking
from bench.scrape import release

CONNECTIONS: Final = 64
RATE: Final = 300.0
HOLD: Final = 9000
_WARM_S: Final = 1.0
_HOLD_S: Final = 30.0
MEMBERS: Final = 256  # more than there are connections: nobody asks what another is just asking
_OTHERS: Final = ("--first", "500000000")  # what is asked to warm up is not what is asked then
_LEADING: Final = (BARE, BARE_UVLOOP, LUA, LUA_KEEPING, PASSING, GATEWAY)
_REPLAYING: Final = (LUA_KEEPING, GATEWAY)
_TIMED: Final = (BARE, BARE_UVLOOP, GATEWAY)
_HELD: Final = (BARE, GATEWAY)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """CPU of one peer over all runs; microseconds per request."""

    peer: str
    us_by_run: tuple[float, ...]
    min_us: float
    median_us: float
    requests: int
    requests_per_s: float
    errors: int
    rss_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """CPU of all peers at one kind of work; `ratios` are the gateway's over each of the others."""

    rows: Sequence[Cpu]
    ratios: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of one peer: the medians over all runs of each quantile, in milliseconds."""

    peer: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    requests: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one peer needs for each request that it holds."""

    peer: str
    wanted: int
    held: int
    kb_each: float
    rss_before_mb: float
    rss_held_mb: float
    seconds_to_hold: float
    requests: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRun:
    """One run of one peer."""

    us: float
    load: Closed
    rss_kb: int


def lead(runs: int, seconds: float, progress: Progress) -> Comparison:
    """Measure CPU per request where each is another question."""
    return _compared("lead", _LEADING, runs, progress, lambda peer: cpu_run(peer, seconds))


def replay(runs: int, seconds: float, progress: Progress) -> Comparison:
    """Measure CPU per request where each was answered before."""
    return _compared("replay", _REPLAYING, runs, progress, lambda peer: cpu_run(peer, seconds, members=MEMBERS))


def latency(runs: int, seconds: float, progress: Progress) -> Sequence[Latency]:
    """Measure latency at a steady rate, with each proxy and with none."""
    found: dict[str, list[Opened]] = {name: [] for name in (DIRECT, *_TIMED)}
    with upstream() as upstream_port:
        for run in range(runs):
            for name, results in found.items():
                progress(f"latency {run + 1}/{runs}: {name}")
                if name == DIRECT:
                    results.append(opened(upstream_port, TOKEN, seconds))
                else:
                    with proxy(name, upstream_port) as peer:
                        _closed(peer, min(_WARM_S, seconds), *_OTHERS)
                        results.append(opened(peer.port, peer.token, seconds))
    return [_latency_row(name, results) for name, results in found.items()]


def memory(progress: Progress) -> Sequence[Memory]:
    """Measure what a held request costs: as many as the goal names, or as the limit of open files allows."""
    wanted = min(HOLD, allow_descriptors())
    rows: list[Memory] = []
    for name in _HELD:
        progress(f"memory: {name}")
        with upstream() as upstream_port, proxy(name, upstream_port) as peer:
            warm_up(peer)
            rows.append(hold(peer, name, upstream_port, wanted, f"{upstream_port}:{HELD_METRIC}"))
    return rows


def _compared(
    kind: str,
    peers: Sequence[str],
    runs: int,
    progress: Progress,
    measured: Callable[[Proxy], CpuRun],
) -> Comparison:
    found: dict[str, list[CpuRun]] = {name: [] for name in available(*peers)}
    with upstream() as upstream_port:
        for run in range(runs):
            for name, results in found.items():
                progress(f"{kind} {run + 1}/{runs}: {name}")
                with proxy(name, upstream_port) as peer:
                    results.append(measured(peer))
    ratios = {name: _ratio(found[GATEWAY], results) for name, results in found.items() if name != GATEWAY}
    return Comparison(rows=[_cpu_row(name, results) for name, results in found.items()], ratios=ratios)


def cpu_run(peer: Proxy, seconds: float, members: int | None = None) -> CpuRun:
    """Measure CPU per request of one peer; with `members`, of replays."""
    asked = ("--members", str(members)) if members else ()
    warm = asked or _OTHERS
    replayed = REPLAYED_BYTES if peer.token != TOKEN else ANSWERED_BYTES  # nginx does not say what a replay is
    warm_s = _WARM_S if members else min(_WARM_S, seconds)  # what was not asked then would be no replay
    _closed(peer, warm_s, *warm, "--expected", str(ANSWERED_BYTES), str(REPLAYED_BYTES))
    before_s = peer.running.cpu_s()
    load = _closed(peer, seconds, *asked, "--expected", str(replayed if members else ANSWERED_BYTES))
    used_s = peer.running.cpu_s() - before_s
    return CpuRun(us=used_s * 1e6 / max(load.answers, 1), load=load, rss_kb=peer.running.rss_kb())


def _ratio(ours: Sequence[CpuRun], theirs: Sequence[CpuRun]) -> float:
    return round(statistics.median(a.us / b.us for a, b in zip(ours, theirs, strict=True)), 3)


def _cpu_row(name: str, results: Sequence[CpuRun]) -> Cpu:
    return Cpu(
        peer=name,
        us_by_run=tuple(round(result.us, 1) for result in results),
        min_us=round(min(result.us for result in results), 1),
        median_us=round(statistics.median(result.us for result in results), 1),
        requests=sum(result.load.answers for result in results),
        requests_per_s=round(statistics.median(result.load.answers / result.load.seconds for result in results)),
        errors=sum(result.load.errors for result in results),
        rss_mb=round(max(result.rss_kb for result in results) / 1024, 1),
    )


def _latency_row(name: str, results: Sequence[Opened]) -> Latency:
    return Latency(
        peer=name,
        p50_ms=round(statistics.median(result.p50_ms for result in results), 2),
        p99_ms=round(statistics.median(result.p99_ms for result in results), 2),
        max_ms=round(max(result.max_ms for result in results), 2),
        late_p99_ms=round(statistics.median(result.late_p99_ms for result in results), 2),
        requests=sum(result.answers for result in results),
        errors=sum(result.errors for result in results),
    )


def warm_up(peer: Proxy) -> None:
    """Have a peer acquire what a process has once, however much it holds."""
    _closed(peer, _WARM_S, *_OTHERS, "--expected", str(ANSWERED_BYTES), str(REPLAYED_BYTES))


def hold(peer: Proxy, name: str, upstream_port: int, wanted: int, gauge: str, *more: str) -> Memory:
    """Measure a warm peer with so many requests held; `gauge` is PORT:NAME of the metric that counts them."""
    before_kb = peer.running.rss_kb()
    arguments = _load("hold", peer.port, peer.token, "--connections", str(wanted), "--gauge", gauge)
    with talking((*arguments, "--seconds", str(_HOLD_S), *more), core=other_core()) as popen:
        held = Held(**json.loads(line_of(popen)))
        held_kb = peer.running.rss_kb()
        release(upstream_port)
        released = Released(**json.loads(line_of(popen)))
    return Memory(
        peer=name,
        wanted=wanted,
        held=held.held,
        kb_each=round((held_kb - before_kb) / max(held.held, 1), 1),
        rss_before_mb=round(before_kb / 1024, 1),
        rss_held_mb=round(held_kb / 1024, 1),
        seconds_to_hold=held.seconds,
        requests=released.answers,
        errors=released.errors + (wanted - held.held),
    )


def _closed(peer: Proxy, seconds: float, *more: str) -> Closed:
    arguments = ("--connections", str(CONNECTIONS), "--seconds", str(seconds), *more)
    return Closed(**_result(_load("closed", peer.port, peer.token, *arguments)))


def opened(port: int, token: str, seconds: float, *more: str) -> Opened:
    """Run an open loop."""
    return Opened(**_result(_load("open", port, token, "--rate", str(RATE), "--seconds", str(seconds), *more)))


def _load(kind: str, port: int, token: str, *arguments: str) -> tuple[str, ...]:
    return module("load", kind, "--port", str(port), "--token", token, *arguments)


def _result(command: Sequence[str]) -> dict[str, Any]:
    with talking(command, core=other_core()) as popen:
        result: dict[str, Any] = json.loads(line_of(popen))
        return result
