"""The chain: each entry of the trail is bound to all before it.

Rules
- An entry is one line of JSON: `seq` is its first member and counts from 1, `entry` says of what it is, and `link` is
  its last.
- `link` is HMAC-SHA-256 over the link before it and the line's own bytes up to that member. Its key is derived from the
  key ring for this alone: who can write the file, but has no key, can neither forge an entry nor move one.
- Whatever opens a file is a heading: it names the key (`kid`), and the entry that it comes `after`, in whichever file.
- A link is a function of the entry and of what came before, so what could not be written is linked again, and is the
  same.
"""

import re
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from gateway.sealing import Mac

LINK_BYTES: Final = 32
START: Final = "start"  # of a process
CONTINUED: Final = "continued"  # of a file, by the process that wrote the one before
STOP: Final = "stop"
LOST: Final = "lost"
HEADINGS: Final = frozenset({START, CONTINUED})
_BEFORE_LINK: Final = b',"link":"'
_AFTER_LINK: Final = b'"}'
_LINK_CHARS: Final = 2 * LINK_BYTES
_SUFFIX_CHARS: Final = len(_BEFORE_LINK) + _LINK_CHARS + len(_AFTER_LINK)


class Tip(NamedTuple):
    """Where a chain has got to: its last entry."""

    seq: int
    link: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.link.hex()}"


NO_TIP: Final = Tip(0, bytes(LINK_BYTES))


class Said(Struct, frozen=True):
    """What a chain's reader must know of an entry; whatever else it says is not its business."""

    seq: int
    event: str = msgspec.field(name="entry")
    at: str = ""
    kid: str = ""
    after: str = ""
    torn: int = 0
    lost: int = 0


class Line(NamedTuple):
    """A line that has the form of an entry; whether it is one, its link says."""

    said: Said
    head: bytes
    link: bytes


_TIP: Final = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")
_SAID: Final = msgspec.json.Decoder(Said)


def tip_of(text: str) -> Tip:
    """Read `SEQ:LINK`; of an empty text it is NO_TIP. Raises ValueError."""
    if not text:
        return NO_TIP
    seq, _, link = text.partition(":")
    if _TIP.fullmatch(text) is None:
        raise ValueError("SEQ:LINK, a number and 64 hex digits")
    return Tip(int(seq), bytes.fromhex(link))


def linked(mac: Mac, tip: Tip, entry: bytes) -> tuple[bytes, Tip]:
    """Return an entry, a JSON object that is not empty, as the line that comes after `tip`, and the new tip."""
    seq = tip.seq + 1
    head = b'{"seq":%d,%b' % (seq, entry[1:-1])
    link = mac(tip.link + head)
    return b"%b%b%b%b\n" % (head, _BEFORE_LINK, link.hex().encode(), _AFTER_LINK), Tip(seq, link)


def read_line(raw: bytes) -> Line | None:
    """Read a line without its end; None where it has not the form of an entry."""
    head, suffix = raw[:-_SUFFIX_CHARS], raw[-_SUFFIX_CHARS:]
    if not suffix.startswith(_BEFORE_LINK) or not suffix.endswith(_AFTER_LINK) or len(suffix) != _SUFFIX_CHARS:
        return None
    text = suffix[len(_BEFORE_LINK) : -len(_AFTER_LINK)]
    try:
        return Line(_SAID.decode(head + b"}"), head, text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def last_tip(line: Line) -> Tip | None:
    """Return where a line says that its chain has got to; None where its link is no link."""
    try:
        return tip_of(f"{line.said.seq}:{line.link.decode()}")
    except ValueError:
        return None
