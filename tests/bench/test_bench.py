import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.peers import has_nginx

ROOT = Path(__file__).resolve().parents[2]


pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"),
        reason="the bench reads /proc and pins processes to cores",
    ),
]


def measured(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", *arguments, "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report: dict[str, Any] = json.loads(ended.stdout)
    assert report["errors"] == 0
    return report


def test_the_bench_measures_every_peer_and_no_request_fails() -> None:
    report = measured("lead", "replay", "--runs", "1", "--seconds", "0.3")
    bare, nginx, lua = ["bare web.Application", "bare web.Application, uvloop"], "nginx + Lua", "nginx + Lua, keeping"
    found = {kind: [row["peer"] for row in report[kind]["rows"]] for kind in ("lead", "replay")}
    assert found == {
        "lead": [*bare, *([nginx, lua] if has_nginx() else []), "gateway, dedup off", "gateway"],
        "replay": [*([lua] if has_nginx() else []), "gateway"],
    }
    assert all(row["requests"] > 0 and row["errors"] == 0 for kind in found for row in report[kind]["rows"])
    assert set(report["lead"]["ratios"]) == set(found["lead"]) - {"gateway"}


def test_of_a_day_the_gateway_catches_every_true_duplicate_and_replays_nothing_falsely() -> None:
    rows = measured("day", "--visits", "60")["day"]
    nginx = ["nginx, by bytes", "nginx + Lua, keeping"] if has_nginx() else []
    assert [row["peer"] for row in rows] == [*nginx, "gateway"]
    gateway = rows[-1]
    assert gateway["others_answers"] == gateway["replayed_no_facts"] == 0
    assert gateway["duplicates"] > 200
    assert gateway["caught"] == gateway["duplicates"]
    # Two who ask at one moment may be apart where the machine stalls, and what is no fact then costs a call each.
    assert gateway["needed"] <= gateway["calls"] <= gateway["needed"] + 2
    assert all(row["caught"] <= row["duplicates"] and row["needed"] <= row["calls"] for row in rows)


def test_however_many_follow_it_is_one_call() -> None:
    found = measured("followers", "--followers", "40", "--runs", "1")["followers"]
    assert (found["memory"]["held"], found["memory"]["requests"], found["memory_calls"]) == (40, 40, 1)
    assert (found["rounds"], found["round_calls"], found["late_followers"]) == (3, 3, 40)
    assert [row["replica"] for row in found["lateness"]] == ["the leader's replica", "another replica"]


def test_telemetry_is_measured_with_and_without_and_while_it_is_scraped() -> None:
    found = measured("telemetry", "--runs", "1", "--seconds", "1.2")["telemetry"]
    assert found["series"] > 50 * 9 * 30
    assert found["scrapes"] > 0
    assert found["requests"] > 0
