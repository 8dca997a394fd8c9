"""What the story is played with: a Valkey, a simulated upstream and two gateways, as real processes on free ports."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gateway.embedded import EmbeddedValkey, die_with_parent

CALLERS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "scheduling": ("demo-sub-north", '["*"]'),
        "registration": ("demo-sub-north", '["*"]'),
        "billing": ("demo-sub-south", "[submit_eligibility, list_transactions, get_transaction]"),
    },
)
_POLICY: Final = """\
match: {operations: ["*"]}
timeout: {connect: 5s, answer: 125s}
dedup: {mode: enforce, window: 24h, exclude_prior_month: false}
recover: {within: 20s, attempts: 10, pause: 50ms}
headers:
  subtenant: from-caller
  set: {x-demo-site: harbour-clinic}
"""


class StageError(Exception):
    """Something of the stage does not start; the message is what it said itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything is up. `secrets` are the callers' own, made for this run."""

    simulator_url: str
    gateway_urls: tuple[str, ...]
    admin_urls: tuple[str, ...]
    secrets: Mapping[str, str] = field(repr=False)
    directory: Path


@contextmanager
def set_stage(speed: float) -> Iterator[Stage]:
    """Start everything, and end it all. Raises StageError and EmbeddedUnavailable."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eligibility-gateway-demo-")))
        valkey = stack.enter_context(EmbeddedValkey())
        simulator = _start(stack, ("simulate", "--listen", "127.0.0.1:0", "--speed", str(speed)), {})
        simulator_url = _line_with(simulator, "listening on").rsplit(maxsplit=1)[-1]
        made = {name: secrets.token_urlsafe(32) for name in CALLERS}
        _write_policies(directory, made)
        environment = {
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
            "GATEWAY_POLICIES": str(directory),
            "GATEWAY_REDIS_URL": valkey.url,
            "GATEWAY_UPSTREAM_URL": simulator_url,
            "GATEWAY_UPSTREAM_CLIENT_ID": "simulator",
            "GATEWAY_UPSTREAM_CLIENT_SECRET": "simulator-secret",
            "GATEWAY_DRAIN_GRACE_S": "0",  # no load balancer has to hear of an end
            "GATEWAY_KEYS": f"demo:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }
        # Both at once: a fleet that starts cold is the first promise.
        processes = [_start(stack, ("serve",), environment) for _ in range(2)]
        listening = [json.loads(_line_with(process, '"listening"')) for process in processes]
        for number, process in enumerate(processes, start=1):
            _keep_reading(process, directory / f"gateway-{number}.log")
        yield Stage(
            simulator_url=simulator_url,
            gateway_urls=tuple(f"http://{line['listen']}" for line in listening),
            admin_urls=tuple(f"http://{line['admin_listen']}" for line in listening),
            secrets=MappingProxyType(made),
            directory=directory,
        )


def _write_policies(directory: Path, made: Mapping[str, str]) -> None:
    (directory / "everything.yaml").write_text(_POLICY, encoding="utf-8")
    entries = "".join(
        f"  {name}:\n"
        f"    secret_sha256: {hashlib.sha256(made[name].encode()).hexdigest()}\n"
        f"    subtenant: {subtenant}\n"
        f"    operations: {operations}\n"
        for name, (subtenant, operations) in CALLERS.items()
    )
    (directory / "callers.yaml").write_text(f"callers:\n{entries}", encoding="utf-8")


def _start(stack: ExitStack, arguments: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    process = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "gateway", *arguments],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - started before any thread
        start_new_session=True,  # Ctrl-C is for the story: it ends the others in order
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _line_with(process: subprocess.Popen[str], text: str) -> str:
    for line in process.stdout or ():
        if text in line:
            return line
    said = process.stderr.read().strip() if process.stderr is not None else ""
    raise StageError(said or f"a process ended with exit code {process.wait()} before it listened")


def _keep_reading(process: subprocess.Popen[str], file: Path) -> None:
    """Copy the log to a file: a pipe that nobody reads would stop the gateway once it is full."""

    def copy() -> None:
        with file.open("w", encoding="utf-8") as log:
            for line in process.stdout or ():
                log.write(line)
                log.flush()

    threading.Thread(target=copy, daemon=True).start()
