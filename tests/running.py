"""Real processes and real sockets for tests: started, awaited by what they say, and ended."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

ROOT = Path(__file__).parent.parent
START_S = 30.0


def kept_environment() -> dict[str, str]:
    """This process's own environment without what is meant for a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}


class Process:
    """A child process whose lines on stdout are awaited, and of which nothing is left behind."""

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        cwd: Path = ROOT,
        open_files: int | None = None,
    ) -> None:
        self._lines: Queue[str] = Queue()
        self.seen: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            env={**kept_environment(), **environment},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if open_files is not None:  # long before Python has started and looks
            resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE, (open_files, open_files))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.popen.stdout is not None:
            for line in self.popen.stdout:
                self._lines.put(line)

    def wait_for(self, text: str, timeout_s: float = START_S) -> str:
        """Return the first line from here on that contains the text."""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except Empty:
                raise AssertionError(f"no line with {text!r} came; seen: {self.seen[-5:]}") from None
            self.seen.append(line)
            if text in line:
                return line

    def output(self) -> list[str]:
        """Every line so far."""
        while not self._lines.empty():
            self.seen.append(self._lines.get())
        return self.seen

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and return the exit code; what it still prints is kept."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        code = self.popen.wait(timeout_s)
        self._reader.join(timeout_s)
        for pipe in (self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.end(signal.SIGKILL)


class GatewayProcess(Process):
    """`serve` as a process of its own, on ports of the system's choice."""

    def __init__(self, environment: Mapping[str, str], *, open_files: int | None = None) -> None:
        super().__init__(
            "serve",
            open_files=open_files,
            environment={
                "GATEWAY_LISTEN": "127.0.0.1:0",
                "GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
                "GATEWAY_DRAIN_GRACE_S": "0",  # no load balancer has to hear of an end
                **environment,
            },
        )
        listening: dict[str, Any] = json.loads(self.wait_for('"listening"'))
        self.url = f"{'https' if listening['tls'] else 'http'}://{listening['listen']}"
        self.admin_url = f"http://{listening['admin_listen']}"

    def records(self) -> list[dict[str, Any]]:
        """The log lines of finished requests so far."""
        lines = [json.loads(line) for line in self.output()]
        return [line for line in lines if line["event"] == "request"]


@contextmanager
def simulator_process(*arguments: str) -> Iterator[str]:
    """Run `simulate` as a process, and say at which URL."""
    with Process("simulate", "--listen", "127.0.0.1:0", *arguments, environment={}) as process:
        yield process.wait_for("listening on").rsplit(maxsplit=1)[-1]


async def eventually(condition: Any, timeout_s: float = 20.0, pause_s: float = 0.01) -> Any:  # noqa: ANN401 - whatever it returns
    """Await until an async condition is truthy, and return what it returned."""
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(pause_s)
        return found


def url_of(server: asyncio.Server) -> str:
    """Where a server of the tests listens."""
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"


def total(exposition: str, name: str) -> float:
    """The sum of a metric's samples; `name` may go on with labels: `redis_errors_total{reason="timeout"`."""
    full = f"eligibility_gateway_{name}"
    lines = [line for line in exposition.splitlines() if line.startswith(full) and line[len(full)] in "{ ,}"]
    return sum(float(line.partition(" # ")[0].rpartition(" ")[2]) for line in lines)
