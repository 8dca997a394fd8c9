"""The report for people: plain tables, with the goal beside each figure that has one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.day import DayRow
from bench.followers import FOLLOWERS, Followers, Lateness
from bench.measure import CONNECTIONS, HOLD, RATE, Comparison, Cpu, Latency, Memory
from bench.peers import BARE, GATEWAY, LUA, LUA_KEEPING, has_nginx
from bench.telemetry import Telemetry

_LEAD_GOALS: Final = {BARE: 1.5, LUA: 3.0, LUA_KEEPING: 3.0}
_REPLAY_GOALS: Final = {LUA_KEEPING: 1.5}
_P50_GOAL_MS = 2
_P99_GOAL_MS = 8
_KB_GOAL = 40
_CAUGHT_GOAL = 0.99
_MEMORY_HEAD: Final = ("", "held", "KB each", "MB before", "MB held", "s to hold", "errors")
_TELEMETRY_GOAL_US: Final = 15
_SCRAPE_GOAL_MS: Final = 50
_LATE_P99_GOALS_MS: Final = (5, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured."""

    lead: Comparison | None = None
    replay: Comparison | None = None
    latency: Sequence[Latency] = ()
    memory: Sequence[Memory] = ()
    day: Sequence[DayRow] = ()
    followers: Followers | None = None
    telemetry: Telemetry | None = None

    @property
    def errors(self) -> int:
        """Answers that were wrong or never came."""
        compared = [row for comparison in (self.lead, self.replay) if comparison is not None for row in comparison.rows]
        rows: tuple[Cpu | Latency | Memory | DayRow, ...] = (*compared, *self.latency, *self.memory, *self.day)
        others = (self.followers, self.telemetry)
        return sum(row.errors for row in rows) + sum(one.errors for one in others if one is not None)


def lines(report: Report) -> Iterator[str]:
    """Yield the report line by line."""
    if report.lead is not None:
        yield from _cpu("of a request that leads", report.lead, _LEAD_GOALS)
    if report.replay is not None:
        yield from _cpu("of a replay", report.replay, _REPLAY_GOALS)
    if report.latency:
        yield from _latency(report.latency)
    if report.memory:
        yield from _memory(report.memory)
    if report.day:
        yield from _day(report.day)
    if report.followers is not None:
        yield from _followers(report.followers)
    if report.telemetry is not None:
        yield from _telemetry(report.telemetry)
    if not has_nginx():
        yield "nginx with Lua is not installed here: its rows are missing"
    if report.errors:
        yield f"ERRORS: {report.errors} requests were answered wrongly, or not at all"


def _cpu(what: str, comparison: Comparison, goals: Mapping[str, float]) -> Iterator[str]:
    yield f"CPU {what}: user + system time of the proxy alone, {CONNECTIONS} connections, 2.7 KB in, 12 KB out"
    head = ("", "min µs", "median µs", "req/s", "rss MB", "errors")
    yield from _table(head, [_cpu_cells(row) for row in comparison.rows])
    for name, ratio in comparison.ratios.items():
        goal = f"   goal <= {goals[name]}" if name in goals else ""
        yield f"  {GATEWAY} / {name}: {ratio:.2f}{goal}"
    yield ""


def _cpu_cells(row: Cpu) -> Sequence[str]:
    return (
        row.peer,
        f"{row.min_us:.0f}",
        f"{row.median_us:.0f}",
        f"{row.requests_per_s:.0f}",
        f"{row.rss_mb:.0f}",
        f"{row.errors}",
    )


def _latency(rows: Sequence[Latency]) -> Iterator[str]:
    yield f"Latency at {RATE:.0f} requests/s, open loop, from the instant at which a request was meant to leave"
    yield from _table(
        ("", "p50 ms", "p99 ms", "max ms", "sent late p99 ms", "errors"),
        [_latency_cells(row) for row in rows],
    )
    yield f"  goal: the gateway adds p50 <= {_P50_GOAL_MS} ms, p99 <= {_P99_GOAL_MS} ms (its row bounds what it adds)"
    yield ""


def _latency_cells(row: Latency) -> Sequence[str]:
    return (
        row.peer,
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.max_ms:.2f}",
        f"{row.late_p99_ms:.2f}",
        f"{row.errors}",
    )


def _memory(rows: Sequence[Memory]) -> Iterator[str]:
    yield "Memory of a held request: resident memory while the upstream waits, less that before"
    yield from _table(_MEMORY_HEAD, [_memory_cells(row) for row in rows])
    yield f"  goal: {HOLD} at once in one process, <= {_KB_GOAL} KB each"
    yield from _allowed(min(row.wanted for row in rows), HOLD)
    yield ""


def _memory_cells(row: Memory) -> Sequence[str]:
    return (
        row.peer,
        f"{row.held}",
        f"{row.kb_each:.1f}",
        f"{row.rss_before_mb:.0f}",
        f"{row.rss_held_mb:.0f}",
        f"{row.seconds_to_hold:.1f}",
        f"{row.errors}",
    )


def _allowed(wanted: int, goal: int) -> Iterator[str]:
    if wanted < goal:
        yield f"  asked for, or allowed by the limit of open files: {wanted}"


def _day(rows: Sequence[DayRow]) -> Iterator[str]:
    one = rows[0]
    yield f"A day of {one.requests} requests, {one.duplicates} of them true duplicates; {one.needed} calls are needed"
    yield from _table(
        ("", "calls", "saved", "saved %", "caught %", "replayed: another's", "no facts", "sent late p99 ms", "errors"),
        [_day_cells(row) for row in rows],
    )
    yield f"  goal: {GATEWAY}: >= {_CAUGHT_GOAL:.0%} of the true duplicates caught, nothing replayed falsely"
    yield "  falsely: another question's answer; no fact (an error), to somebody who asked after it was given"
    yield ""


def _day_cells(row: DayRow) -> Sequence[str]:
    return (
        row.peer,
        f"{row.calls}",
        f"{row.saved}",
        f"{row.saved / row.requests:.1%}",
        f"{row.caught_share:.2%}",
        f"{row.others_answers}",
        f"{row.replayed_no_facts}",
        f"{row.late_p99_ms:.2f}",
        f"{row.errors}",
    )


def _followers(found: Followers) -> Iterator[str]:
    memory = found.memory
    yield f"Followers of one flight: memory of {memory.held} requests that cost {_calls(found.memory_calls)}"
    yield from _table(_MEMORY_HEAD, [_memory_cells(memory)])
    yield f"  goal: {FOLLOWERS} at once, one call, <= {_KB_GOAL} KB each"
    yield from _allowed(memory.wanted, FOLLOWERS)
    yield ""
    yield f"Lateness of {found.late_followers} followers on each replica, after the leader has its answer"
    goals = [f"<= {goal}" for goal in _LATE_P99_GOALS_MS]
    yield from _table(
        ("", "p50 ms", "p99 ms", "goal", "since upstream: p50 ms", "p99 ms"),
        [_late_cells(row, goal) for row, goal in zip(found.lateness, goals, strict=True)],
    )
    yield f"  since the upstream was told to answer; the leader has its own after {found.leader_since_ms:.1f} ms"
    yield f"  {found.rounds} rounds cost {_calls(found.round_calls)}; the load read for {found.reading_ms:.1f} ms"
    yield ""


def _telemetry(found: Telemetry) -> Iterator[str]:
    yield "Telemetry: CPU of making records, counting and logging a request, timed in the process under load"
    yield f"  lead {found.lead_us:.1f} µs, replay {found.replay_us:.1f} µs   goal <= {_TELEMETRY_GOAL_US}"
    yield f"A scrape of {found.series} series: median {found.scrape_ms:.1f} ms, slowest {found.scrape_max_ms:.1f}"
    yield f"  goal < {_SCRAPE_GOAL_MS} ms"
    yield f"  p99 at {RATE:.0f} requests/s: {found.p99_ms:.2f} ms without, {found.p99_scraped_ms:.2f} ms with a scrape"
    yield f"  every half second ({found.scrapes} of them); slowest {found.max_ms:.2f} and {found.max_scraped_ms:.2f} ms"
    yield "  goal: p99 within 1 ms"
    yield ""


def _calls(count: int) -> str:
    return f"{count} call{'s' * (count != 1)}"


def _late_cells(row: Lateness, goal: str) -> Sequence[str]:
    late = (f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}")
    return (row.replica, *late, goal, f"{row.since_p50_ms:.2f}", f"{row.since_p99_ms:.2f}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  " + "   ".join(cells).rstrip()
