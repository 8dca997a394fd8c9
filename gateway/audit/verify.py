"""Whether lines are one chain, whole and in order.

Rules
- It says where the chain is broken first, and in one sentence what was found there. What comes after is not looked at:
  nothing is known of it.
- A line without the form of an entry is one that a process did not finish when it died: if what comes next is a heading
  that says so, or another such line, or nothing. Anywhere else it is a break.
- What is `mixed` stands among other lines, which are skipped, and holds the chains of processes one after the other.
- A tail that was cut off leaves a chain that is whole. Who remembers an entry finds that out (`expected`).
"""

import hmac
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from gateway.audit.chain import HEADINGS, NO_TIP, START, STOP, Line, Tip, last_tip, read_line, tip_of
from gateway.sealing import Mac

_BEGINS: Final = b'{"seq":'


class Broken(Exception):
    """The chain does not hold; `str()` is what users see."""

    def __init__(self, file: str, line: int, found: str, expected: str) -> None:
        super().__init__(f"{f'{file}:{line}: ' if file else ''}found {found}, expected {expected}")
        self.file = file
        self.line = line
        self.found = found
        self.expected = expected


class Report(Struct, frozen=True, kw_only=True):
    """What a chain holds. `runs_cut`: processes that did not say that they stopped, but for the last one."""

    entries: int
    runs: int
    runs_cut: int
    lost: int
    torn: int
    first_at: str
    last_at: str
    after: str
    last: str
    is_stopped: bool


class _Place(NamedTuple):
    file: str
    line: int
    size: int
    is_ended: bool


class Verifier:
    """Takes lines one after the other. `keys` by kid; `expected` by its number."""

    def __init__(self, keys: Mapping[str, Mac], expected: Tip | None = None, *, is_mixed: bool = False) -> None:
        self._keys = keys
        self._expected = expected
        self._is_mixed = is_mixed
        self._mac: Mac | None = None
        self._tip = NO_TIP
        self._unfinished: list[_Place] = []
        self._is_expected_there = expected is None
        self._at = _Place("", 0, 0, is_ended=True)
        self._entries = self._runs = self._runs_cut = self._lost = self._torn = 0
        self._first_at = self._last_at = self._after = self._last_event = ""

    def take(self, file: str, number: int, raw: bytes) -> None:
        """Take the next line, with its end if it has one. Raises Broken."""
        begin = raw.find(_BEGINS) if self._is_mixed else 0
        if begin < 0:
            return
        line = read_line(text := raw[begin:].rstrip(b"\r\n") if self._is_mixed else raw.removesuffix(b"\n"))
        place = _Place(file, number, len(text), raw.endswith(b"\n"))
        if line is None:
            if self._unfinished and not _is_begun(text):
                raise self._no_entry(self._unfinished[0])
            self._unfinished.append(place)
            return
        self._at = place
        self._read(line)
        self._count(line)

    def end(self) -> Report:
        """Say what was there. Raises Broken."""
        if self._unfinished:
            if self._unfinished[-1].is_ended:
                raise self._no_entry(self._unfinished[0])
            self._torn += len(self._unfinished)
        if not self._entries:
            raise self._broken("no entry", "an audit trail")
        if self._expected is not None and self._expected.seq > self._tip.seq:
            raise self._broken(
                f"the end at entry {self._tip.seq}", f"entry {self._expected.seq}: what came after was cut off"
            )
        if self._expected is not None and not self._is_expected_there:
            raise self._broken("the end", f"entry {self._expected.seq} in one of the files")
        return Report(
            entries=self._entries,
            runs=self._runs,
            runs_cut=self._runs_cut,
            lost=self._lost,
            torn=self._torn,
            first_at=self._first_at,
            last_at=self._last_at,
            after=self._after,
            last=str(self._tip),
            is_stopped=self._last_event == STOP,
        )

    def _read(self, line: Line) -> None:
        is_heading = line.said.event in HEADINGS
        if self._unfinished and not (is_heading and line.said.torn == sum(one.size for one in self._unfinished)):
            raise self._no_entry(self._unfinished[0])
        if is_heading:
            self._head(line)
        if self._mac is None:
            raise self._broken(f"entry {line.said.seq}", "the beginning of a file: give those before it as well")
        if line.said.seq != self._tip.seq + 1:
            raise self._broken(f"entry {line.said.seq}", f"entry {self._tip.seq + 1}")
        link = self._mac(self._tip.link + line.head)
        if not hmac.compare_digest(link.hex().encode(), line.link):
            after = f"entry {self._tip.seq}" if self._tip.seq else "nothing"
            raise self._broken(f"entry {line.said.seq} with another link", f"the entry that was written after {after}")
        self._tip = Tip(line.said.seq, link)
        if self._expected is not None and self._expected.seq == line.said.seq:
            if self._expected.link != link:
                raise self._broken(f"entry {line.said.seq} of another chain", "the link that was given")
            self._is_expected_there = True

    def _head(self, line: Line) -> None:
        said = line.said
        try:
            after = tip_of(said.after)
        except ValueError:
            raise self._broken("a heading after no entry", "a number and a link") from None
        if line.said.torn and not self._unfinished and self._entries:
            raise self._broken("a heading after a torn line", "that line")
        if not self._entries:
            self._after = said.after
        elif after != self._tip and not (self._is_mixed and after == NO_TIP and said.event == START):
            found = f"after entry {after.seq}" if after.seq else "of another chain"
            raise self._broken(f"a heading {found}", f"one after entry {self._tip.seq}, as it was written")
        mac = self._keys.get(said.kid)
        if mac is None:
            raise self._broken(
                "a key id that the key ring does not hold" if said.kid.isprintable() else "a key id that is none",
                "one of GATEWAY_KEYS: a retired key is kept as long as its trail",
            )
        self._mac, self._tip = mac, after

    def _count(self, line: Line) -> None:
        said = line.said
        self._torn += len(self._unfinished)
        self._unfinished = []
        if said.event == START:
            self._runs_cut += self._entries > 0 and self._last_event != STOP
            self._runs += 1
        self._entries += 1
        self._lost += said.lost
        self._first_at = self._first_at or said.at
        self._last_at, self._last_event = said.at, said.event

    def _no_entry(self, place: _Place) -> Broken:
        return Broken(place.file, place.line, "a line that is no entry", "one, or a heading after it that says so")

    def _broken(self, found: str, expected: str) -> Broken:
        return Broken(self._at.file, self._at.line, found, expected)


def ends_in(raw: bytes) -> tuple[Tip, int] | None:
    """Say how a file ends, by its last bytes from the beginning of a line on: after which entry, and torn by how much.

    None: it ends in what is no trail.
    """
    lines = [line for line in raw.split(b"\n") if line]
    torn = 0
    while lines and _is_begun(lines[-1]):  # of a process each that died over its first line
        torn += len(lines.pop())
    if not lines:
        return NO_TIP, torn
    found = read_line(lines[-1])
    tip = last_tip(found) if found is not None else None
    return (tip, torn) if tip is not None else None


def _is_begun(raw: bytes) -> bool:
    """Whether a line is the beginning of an entry, and no whole one."""
    return raw[: len(_BEGINS)] == _BEGINS[: len(raw)] and read_line(raw) is None
