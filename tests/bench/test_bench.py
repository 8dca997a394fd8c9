import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers import has_nginx

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads /proc and pins processes to cores")
def test_the_bench_measures_every_peer_and_no_request_fails() -> None:
    command = [sys.executable, "-m", "bench", "lead", "replay", "--runs", "1", "--seconds", "0.3", "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads(ended.stdout)
    bare, nginx, lua = ["bare web.Application", "bare web.Application, uvloop"], "nginx + Lua", "nginx + Lua, keeping"
    found = {kind: [row["peer"] for row in report[kind]["rows"]] for kind in ("lead", "replay")}
    assert found == {
        "lead": [*bare, *([nginx, lua] if has_nginx() else []), "gateway, dedup off", "gateway"],
        "replay": [*([lua] if has_nginx() else []), "gateway"],
    }
    assert all(row["requests"] > 0 and row["errors"] == 0 for kind in found for row in report[kind]["rows"])
    assert set(report["lead"]["ratios"]) == set(found["lead"]) - {"gateway"}
    assert report["errors"] == 0
