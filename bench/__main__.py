"""`python -m bench [KIND …]`: measure the gateway beside its peers; `--help` names the kinds.

Exit codes: 0 measured, whatever the figures; 1 a request was answered wrongly, or nothing could be measured.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench import day, followers, measure, report, telemetry
from bench.processes import BenchError, allow_descriptors

_KINDS = ("lead", "replay", "latency", "memory", "day", "followers", "telemetry")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The gateway beside its peers.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"some of {', '.join(_KINDS)}; default: all")
    parser.add_argument("--runs", type=int, default=3, help="of lead, replay and latency, peers taking turns")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in each run")
    parser.add_argument("--visits", type=int, default=day.VISITS, help="of the day, at 60 a second")
    parser.add_argument("--seed", type=int, default=day.SEED, help="of the day")
    parser.add_argument("--followers", type=int, default=followers.FOLLOWERS, help="of one flight, at most")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    kinds: Sequence[str] = options.kinds or _KINDS
    if not set(kinds) <= set(_KINDS) or min(options.runs, options.seconds, options.visits, options.followers) <= 0:
        parser.error(f"expected some of {', '.join(_KINDS)}, and runs, seconds, visits and followers above 0")
    if not sys.platform.startswith("linux"):
        print("the figures come from /proc, and processes are pinned to cores: this needs Linux", file=sys.stderr)
        return 1
    try:
        found = _measure(kinds, options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({**asdict(found), "errors": found.errors}, indent=2))
    else:
        print(*report.lines(found), sep="\n")
    return 1 if found.errors else 0


def _measure(kinds: Sequence[str], options: argparse.Namespace) -> report.Report:
    runs: int = options.runs
    seconds: float = options.seconds
    allow_descriptors()
    try:
        return report.Report(
            lead=measure.lead(runs, seconds, _progress) if "lead" in kinds else None,
            replay=measure.replay(runs, seconds, _progress) if "replay" in kinds else None,
            latency=measure.latency(runs, seconds, _progress) if "latency" in kinds else (),
            memory=measure.memory(_progress) if "memory" in kinds else (),
            day=day.measure(options.visits, options.seed, _progress) if "day" in kinds else (),
            followers=followers.followers(options.followers, runs, _progress) if "followers" in kinds else None,
            telemetry=telemetry.telemetry(runs, seconds, _progress) if "telemetry" in kinds else None,
        )
    finally:
        _progress("")


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
