"""What telemetry costs: its CPU of a request, and a scrape of a large fleet's metrics.

Facts
- It is timed where it runs: between two processes, one with it and one without, the machine differs by more.
- A scrape is timed where it is asked for, on the other core, while nothing else is asked; and an open loop is run with
  a scrape every half second and without: were requests held up by one, the slowest of them would show it.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bench.measure import MEMBERS, cpu_run, opened, warm_up
from bench.peers import CROWDED, TIMED, proxy, upstream
from bench.processes import other_core
from bench.scrape import drain, fetch, metric

_SCRAPES: Final = 20
_EVERY_S: Final = 0.5
_REQUESTS: Final = "eligibility_gateway_requests_total"
_TIMED: Final = "bench_telemetry_microseconds"
_OTHERS: Final = ("--first", "900000000")  # what was asked before would be a replay

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Microseconds of CPU a request; milliseconds of a scrape, and of requests with scrapes and without."""

    lead_us: float
    replay_us: float
    series: int
    scrape_ms: float
    scrape_max_ms: float
    p99_ms: float
    p99_scraped_ms: float
    max_ms: float
    max_scraped_ms: float
    scrapes: int
    requests: int
    errors: int


def telemetry(runs: int, seconds: float, progress: Progress) -> Telemetry:
    """Measure all of it."""
    with upstream() as upstream_port:
        leads = _cost(runs, seconds, upstream_port, progress)
        replays = _cost(runs, seconds, upstream_port, progress, members=MEMBERS)
        scrapes_ms: list[float] = []
        plain, scraped, series, count = [], [], 0, 0
        for run in range(runs):
            progress(f"scrapes {run + 1}/{runs}")
            with proxy(CROWDED, upstream_port) as peer:
                warm_up(peer)
                for _ in range(_SCRAPES):
                    began_at = time.perf_counter()
                    drain(peer.admin_port)
                    scrapes_ms.append((time.perf_counter() - began_at) * 1e3)
                text = fetch(peer.admin_port, "/metrics")
                series = sum(not line.startswith("#") for line in text.splitlines())
                plain.append(opened(peer.port, peer.token, seconds))
                with _scraping(peer.admin_port) as times:
                    scraped.append(opened(peer.port, peer.token, seconds, *_OTHERS))
                count += len(times)
    found = (*plain, *scraped)
    errors = sum(one.errors for one in found) + leads[1] + replays[1]
    requests = sum(one.answers for one in found) + leads[2] + replays[2]
    return Telemetry(
        lead_us=leads[0],
        replay_us=replays[0],
        series=series,
        scrape_ms=round(statistics.median(scrapes_ms), 1),
        scrape_max_ms=round(max(scrapes_ms), 1),
        p99_ms=round(statistics.median(one.p99_ms for one in plain), 2),
        p99_scraped_ms=round(statistics.median(one.p99_ms for one in scraped), 2),
        max_ms=round(statistics.median(one.max_ms for one in plain), 2),
        max_scraped_ms=round(statistics.median(one.max_ms for one in scraped), 2),
        scrapes=count,
        requests=requests,
        errors=errors,
    )


def _cost(
    runs: int, seconds: float, upstream_port: int, progress: Progress, members: int | None = None
) -> tuple[float, int, int]:
    """Return the median microseconds of a request, the errors, and the requests."""
    found_us: list[float] = []
    errors = requests = 0
    for run in range(runs):
        progress(f"telemetry {run + 1}/{runs}")
        with proxy(TIMED, upstream_port) as peer:
            load = cpu_run(peer, seconds, members=members).load
            asked = metric(peer.admin_port, _REQUESTS)
            found_us.append(metric(peer.admin_port, _TIMED) / max(asked, 1))
        errors += load.errors
        requests += load.answers
    return round(statistics.median(found_us), 1), errors, requests


@contextmanager
def _scraping(port: int) -> Iterator[Sequence[float]]:
    """Scrape every half second until the end; yield what each took."""
    done, times = threading.Event(), list[float]()

    def scrape() -> None:
        os.sched_setaffinity(threading.get_native_id(), {other_core()})
        while not done.wait(_EVERY_S):
            began_at = time.perf_counter()
            drain(port)
            times.append(time.perf_counter() - began_at)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()
