"""A chain made in memory, and whoever verifies it."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from gateway.audit.chain import NO_TIP, START, STOP, Tip, linked
from gateway.audit.verify import Broken, Report, Verifier
from gateway.sealing import Mac
from tests.e2e.conftest import Running, environment, policies

__all__ = ["Chain", "Running", "environment", "policies", "verified"]

MACS = {"old": Mac(b"o" * 32), "new": Mac(b"n" * 32)}


class Chain:
    """Lines of files, as a process writes them."""

    def __init__(self) -> None:
        self.tip: Tip = NO_TIP
        self.kid = "new"
        self.files: list[list[bytes]] = []
        self._numbers = count()

    def file(self, event: str = START, kid: str = "new", *, torn: int = 0, begins: bool = True) -> None:
        """Begin a file, or another run in the one there is."""
        self.kid = kid
        if begins:
            self.files.append([])
        after = str(self.tip) if self.tip.seq else ""
        self._add(f'"entry":"{event}","kid":"{kid}","after":"{after}","torn":{torn}')

    def entry(self, more: str = '"entry":"request"') -> None:
        self._add(f'{more},"number":{next(self._numbers)}')

    def stop(self) -> None:
        self._add(f'"entry":"{STOP}"')

    def _add(self, members: str) -> None:
        line, self.tip = linked(MACS[self.kid], self.tip, b'{"at":"2026-01-02T03:04:05Z",%b}' % members.encode())
        self.files[-1].append(line)


def verified(
    files: Sequence[Sequence[bytes]], expected: Tip | None = None, *, is_mixed: bool = False
) -> Report | Broken:
    """What a verifier says of the files."""
    verifier = Verifier(MACS, expected, is_mixed=is_mixed)
    try:
        for number, lines in enumerate(files):
            for index, raw in enumerate(lines, start=1):
                verifier.take(f"file{number}", index, raw)
        return verifier.end()
    except Broken as broken:
        return broken


@pytest.fixture
def chain() -> Callable[..., Chain]:
    """Make a chain of some files with so many entries each."""

    def make(*sizes: int, kids: Sequence[str] = ()) -> Chain:
        made = Chain()
        for number, size in enumerate(sizes):
            made.file(kid=kids[number] if kids else "new")
            for _ in range(size):
                made.entry()
            made.stop()
        return made

    return make
