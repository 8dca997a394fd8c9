"""Where the trail is written: a file that only grows, a named pipe, or stdout.

Facts
- A file is opened to append, for its owner alone, and locked: two processes that write one file make one broken chain.
- A pipe is never written to unless it takes a whole line at once (POSIX: a write up to PIPE_BUF is not torn), so that
  lines of the log, which has the same stdout, stand between lines of the trail and never within one.
"""

import errno
import fcntl
import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from gateway.audit.chain import NO_TIP, Tip
from gateway.audit.verify import ends_in

STDOUT: Final = "-"
_TAIL_BYTES: Final = 65_536
_AT_ONCE_BYTES: Final = 262_144
_MODE: Final = 0o600
_STDOUT_FILENO: Final = 1
_POLL_MS: Final = 50
_SUFFIX: Final = ".jsonl"


class NoTrail(OSError):
    """What stands there cannot be gone on with: it is no trail, another process's, or goes on after another entry."""


class Tail(NamedTuple):
    """How a target ended when it was opened."""

    tip: Tip
    torn: int


class Target:
    """One place to write to, opened anew where it was moved away."""

    def __init__(self, where: str) -> None:
        self._path = _path(where) if where != STDOUT else None
        self._fd = -1
        self._pipe: select.poll | None = None
        self._is_file = False
        self._begin = b""

    @property
    def at_once_bytes(self) -> int:
        """So much may be given to `write`, unless one line is longer."""
        return select.PIPE_BUF if self._pipe is not None else _AT_ONCE_BYTES

    @property
    def is_moved(self) -> bool:
        """Whether another file, or none, stands where the open one stood."""
        if self._path is None or not self._is_file:
            return False
        try:
            found, ours = self._path.stat(), os.fstat(self._fd)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino)

    def open(self) -> Tail:
        """Open it, and say how it ends. Raises OSError; the one that was open stays open then."""
        if self._path is None:
            fd, is_ours = _STDOUT_FILENO, False
        else:
            flags = os.O_RDWR if self._path.is_file() or not self._path.exists() else os.O_WRONLY
            fd = os.open(self._path, flags | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
            is_ours = True
        try:
            mode = os.fstat(fd).st_mode
            is_file = is_ours and stat.S_ISREG(mode)
            tail, begin = _tail(fd) if is_file else (Tail(NO_TIP, 0), b"")
        except OSError:
            if is_ours:
                os.close(fd)
            raise
        self.close()
        self._fd, self._is_file, self._begin = fd, is_file, begin
        self._pipe = None
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self._pipe = select.poll()
            self._pipe.register(fd, select.POLLOUT)
        return tail

    def write(self, data: bytes) -> int:
        """Write as much as it takes, and return how much that was; 0: nothing now. Raises OSError."""
        if self._pipe is not None:
            if not self._pipe.poll(_POLL_MS):
                return 0
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                return 0
        if self._begin:  # ends a torn line
            os.write(self._fd, self._begin)
            self._begin = b""
        return os.write(self._fd, data)

    def keep(self) -> None:
        """Have a file's bytes outlive the machine. Raises OSError."""
        if self._is_file:
            os.fdatasync(self._fd)

    def take_back(self, count: int) -> bool:
        """Remove the last bytes of a file, of a line that was not written whole; whether that was done."""
        if not self._is_file:
            return False
        with suppress(OSError):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - count)
            return True
        return False

    def close(self) -> None:
        """Close it; stdout stays open, for it is not ours."""
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _path(where: str) -> Path:
    path = Path(where)
    if where.endswith("/") and not path.is_dir():
        raise NoTrail(errno.ENOTDIR, "no directory stands there")
    return path / f"{socket.gethostname()}{_SUFFIX}" if path.is_dir() else path


def _tail(fd: int) -> tuple[Tail, bytes]:
    """Lock a file, and read how it ends. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise NoTrail(errno.EBUSY, "another process writes it") from None
        # a file system without locks
    size = os.fstat(fd).st_size
    raw = os.pread(fd, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    if size > _TAIL_BYTES:
        raw = raw.partition(b"\n")[2]
    found = ends_in(raw)
    if found is None:
        raise NoTrail(errno.EINVAL, "it ends in what is no entry of an audit trail")
    return Tail(*found), b"" if raw.endswith(b"\n") or not raw else b"\n"
