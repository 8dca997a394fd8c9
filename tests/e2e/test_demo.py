"""The demo holds its promises, stays up when it should, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

from tests.running import ROOT, Process


def test_the_story_holds_all_its_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("kept ") == 19
    assert "Every promise held." in done.stdout


def test_it_stays_up_with_lines_to_try_and_ends_with_everything_it_started() -> None:
    with Process("demo", "--speed", "240", environment={}) as demo:
        curl = demo.wait_for("curl -i http", 100)
        done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.startswith("HTTP/1.1 200 OK")
        admin = re.search(r"http://[^ ]+/metrics", demo.wait_for("/metrics"))
        assert admin is not None
        with urllib.request.urlopen(admin[0]) as response:  # noqa: S310 - the demo's own address
            assert b"eligibility_gateway_requests_total" in response.read()
        children = descendants(demo.popen.pid)
        assert len(children) >= 4
        assert demo.end(signal.SIGINT) == 0
    assert [pid for pid in children if os.path.exists(f"/proc/{pid}")] == []  # noqa: PTH110 - a process, not a file


def descendants(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - the kernel's own list
        direct = [int(child) for child in file.read().split()]
    return [*direct, *(deeper for child in direct for deeper in descendants(child))]
