import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads /proc and pins processes to cores")
def test_the_bench_measures_every_peer_and_no_request_fails() -> None:
    command = [sys.executable, "-m", "bench", "cpu", "--runs", "1", "--seconds", "0.3", "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads(ended.stdout)
    assert [row["peer"] for row in report["cpu"]] == [
        "bare web.Application",
        "bare web.Application, uvloop",
        "gateway",
    ]
    assert all(row["requests"] > 0 and row["errors"] == 0 for row in report["cpu"])
    assert set(report["ratios"]) == {"bare web.Application", "bare web.Application, uvloop"}
    assert report["errors"] == 0
