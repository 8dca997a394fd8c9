"""Processes under measurement: start them on a core, wait until they listen, read what they used, stop them.

Facts
- CPU is user plus system time of one process with all its threads and without its children, as the kernel
  counts it: 10 ms steps, so 0.2 % of five busy seconds.
- Two cores: the proxy has the first one to itself; load, upstream and whatever else there is share the last.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02
_SPARE_DESCRIPTORS: Final = 512
_UTIME, _STIME = 11, 12  # of /proc/PID/stat, counted behind the command's closing bracket


class BenchError(Exception):
    """The measurement cannot be made; the message is one sentence for whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that runs."""

    popen: subprocess.Popen[str]

    def cpu_s(self) -> float:
        """User and system time so far."""
        stat = Path(f"/proc/{self.popen.pid}/stat").read_text(encoding="ascii")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")

    def rss_kb(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def proxy_core() -> int:
    """The core that the proxy has to itself."""
    return min(os.sched_getaffinity(0))


def other_core() -> int:
    """The core of everything else; the same one on a machine that has no second."""
    return max(os.sched_getaffinity(0))


def allow_descriptors(each: int = 2) -> int:
    """Raise the limit of open files for us and our children; return how many requests it lets a proxy hold.

    `each`: how many files a request needs in one process.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - _SPARE_DESCRIPTORS) // each if hard != resource.RLIM_INFINITY else sys.maxsize


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of one of our own modules."""
    return (sys.executable, "-m", f"bench.{name}", *arguments)


@contextmanager
def started(
    command: Sequence[str],
    *,
    core: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run a process on one core; its stderr goes to a file, its stdout too unless it is read. SIGTERM ends it."""
    with log.open("ab") as sink:
        popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**_clean_environment(), **(environment or {})},
            stdout=sink,
            stderr=sink,
            text=True,
        )
    with _stopped(popen):
        os.sched_setaffinity(popen.pid, {core})
        yield Running(popen)


@contextmanager
def talking(command: Sequence[str], *, core: int) -> Iterator[subprocess.Popen[str]]:
    """Run a process on one core and read its stdout; its stderr is ours."""
    popen = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with _stopped(popen):
        os.sched_setaffinity(popen.pid, {core})
        yield popen


def line_of(popen: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints. Raises BenchError if it ends instead."""
    line = popen.stdout.readline() if popen.stdout is not None else ""
    if not line:
        raise BenchError(f"{popen.args!r} ended with code {popen.wait()} and without a word")
    return line


def wait_for_port(running: Running, port: int, log: Path) -> None:
    """Return when something listens there. Raises BenchError with the end of the log if nothing ever does."""
    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if running.popen.poll() is not None or time.monotonic() > give_up_at:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
            raise BenchError(f"{running.popen.args!r} does not listen: {tail}")
        time.sleep(_POLL_S)


@contextmanager
def _stopped(popen: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        if popen.stdout is not None:
            popen.stdout.close()


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
