"""What a request is about, as a keyed digest: the same for the same, and for nobody without the key.

Rules
- A letter says of what it is the digest: `q` of a question as deduplication reads it, whichever service asked and
  however it wrote it down; `b` of a body, byte for byte; `i` of the id in a path; `s` of a query; `p` of a path that a
  policy forwards, with its query.
- A request that was refused before it was read is about nothing: its tag is empty. So is one for a token.
- It is HMAC-SHA-256 under a key of its own. Member ids can be guessed, so a plain hash would name them
  (45 CFR 164.514(c)); whoever has the key ring can try them, so a tag is not de-identified either.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from gateway.exchange import Exchange

_CHARS: Final = 32


class About(StrEnum):
    """What a tag is the digest of."""

    QUESTION = "q"
    BODY = "b"
    ID = "i"
    QUERY = "s"
    PATH = "p"


class Tags:
    """Makes tags. `mac` digests under the key for tags."""

    def __init__(self, mac: Callable[[bytes], bytes]) -> None:
        self._mac = mac

    def of(self, exchange: Exchange) -> str:
        """Return the tag of what can be told of any request; that of a question is made where it is read."""
        inbound, operation = exchange.inbound, exchange.operation
        if operation is None and not exchange.is_forwarded:
            return ""
        if inbound.body:
            return self.made(About.BODY, inbound.body)
        path, _, query = inbound.raw_target.partition("?")
        if operation is None:
            return self.made(About.PATH, inbound.raw_target.encode("utf-8", "surrogateescape"))
        if "{id}" in operation.path:
            return self.made(About.ID, path.rpartition("/")[2].encode())
        return self.made(About.QUERY, query.encode("utf-8", "surrogateescape")) if query else ""

    def question(self, meaning: bytes) -> str:
        """Return the tag of a question, by its canonical form."""
        return self.made(About.QUESTION, meaning)

    def made(self, about: About, what: bytes) -> str:
        """Return the tag of something."""
        return f"{about.value}:{self._mac(b'%b:%b' % (about.value.encode(), what)).hex()[:_CHARS]}"
