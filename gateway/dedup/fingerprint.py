"""The parts of a question: whatever differs in one of them is another question.

Rules
- Tenant and subtenant are always among them; nothing that a caller sent under their names is.
- Parts are joined by a keyed digest over length-prefixed parts (`Sealing.name`), so that no shift of a boundary
  between two parts makes one question of two.
- Every `x-optum-` header may change the answer, known or not yet known, so each is in, but for those that only
  number a request or say on whose behalf it comes. Other headers are out.
- A key has three names: of the subtenant, of what is asked on its behalf, and of all the rest. So what is stored for
  a subtenant, or for a question, can be found again by whoever has the key ring, and by nobody else.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from msgspec import Struct

from gateway.dedup.canonical import FieldRules, NotCanonical, Unreadable, canonical_json, write
from gateway.dedup.x12 import canonical_x12
from gateway.exchange import Inbound, as_anyone_reads
from gateway.policy.model import HeadersClause

VERSION: Final = "4"  # of the canonical form: another form is another question
X12_FIELD: Final = "x12"
KEY_PREFIX: Final = "eg:flight:"
VALUE_ADDS: Final = "x-optum-eligibility-disable-value-add"
DEDUPLICATION: Final = "deduplication"  # of VALUE_ADDS: it asks for a fresh answer, not for another one
_ANSWERING: Final = "x-optum-"
_BEGINNING: Final = (b"x", b"X")
_NEUTRAL: Final = frozenset(
    {"x-optum-correlation-id", "x-optum-trace-id", "x-optum-tenant-id", "x-optum-subtenant-id"},
)

Naming = Callable[..., str]  # Sealing.name
Pairs = tuple[tuple[str, str], ...]


class Asker(Struct, frozen=True, kw_only=True):
    """On whose behalf a question is asked, and of whom."""

    upstream: str
    credential: str
    subtenant: str
    caller: str


class Question(Struct, frozen=True):
    """What is asked, apart from who asks, and by which rules it was read: by others, two questions may be one."""

    meaning: dict[str, Any]
    rules: bytes

    def __repr__(self) -> str:
        return "Question()"

    @property
    def text(self) -> bytes:
        """What is asked, the same for the same question by rules that read it so; it names a patient."""
        return write(self.meaning)

    def key(self, name: Naming, operation: str, asker: Asker, *, query: str, headers: Pairs) -> bytes:
        """Return the Redis key of everything that makes this question another than the next."""
        before, after = _around(name, operation, asker, query, headers)
        return b"%b%b%b" % (before, self._asked(name, asker.subtenant).encode(), after)

    def pattern(self, name: Naming, subtenant: str) -> bytes:
        """Return the pattern of all keys of this question on behalf of a subtenant."""
        return f"{KEY_PREFIX}*:{self._asked(name, subtenant)}:*".encode()

    def _asked(self, name: Naming, subtenant: str) -> str:
        return name("question", VERSION, self.rules, subtenant, write(self.meaning))


def questions_of(body: bytes, rules: FieldRules) -> tuple[Question, ...]:
    """Return what a body asks, whichever way it is sent: as JSON, and as X12 if it holds any. Raises NotCanonical."""
    as_json = read_question(body, rules, is_x12=False)
    if X12_FIELD not in as_json.meaning:
        return (as_json,)
    return (as_json, read_question(body, rules, is_x12=True))


def subtenant_pattern(name: Naming, subtenant: str) -> bytes:
    """Return the pattern of all keys of a subtenant."""
    return f"{_prefix(name, subtenant)}*".encode()


# There are few of them, and naming costs as much as reading the question; the question itself is kept nowhere.
@lru_cache(maxsize=1024)
def _around(name: Naming, operation: str, asker: Asker, query: str, headers: Pairs) -> tuple[bytes, bytes]:
    flat = [part for pair in headers for part in pair]
    context = (operation, asker.upstream, asker.credential, asker.subtenant, asker.caller, query, *flat)
    return _prefix(name, asker.subtenant).encode(), f":{name('context', VERSION, *context)}".encode()


def _prefix(name: Naming, subtenant: str) -> str:
    return f"{KEY_PREFIX}{name('subtenant', subtenant)}:"


def answering_headers(inbound: Inbound, clause: HeadersClause) -> Pairs:
    """Return the headers that may change the answer, as they go upstream."""
    found = [
        (read, value.decode("utf-8", "surrogateescape"))
        for name, value in inbound.raw_headers
        if name[:1] in _BEGINNING
        and (read := as_anyone_reads(name)).startswith(_ANSWERING)
        and read not in _NEUTRAL
        and read not in clause.touched
    ]
    found += [(name.lower(), value) for name, value in clause.set.items() if name.lower().startswith(_ANSWERING)]
    if not found:
        return ()
    disabled = {one for name, value in found if name == VALUE_ADDS for one in value_adds(value)} - {DEDUPLICATION}
    others = [pair for pair in found if pair[0] != VALUE_ADDS]
    others.sort(key=itemgetter(0))  # repeats of one name keep their order: it may count
    return (*others, *((VALUE_ADDS, one) for one in sorted(disabled)))


def value_adds(header: str) -> tuple[str, ...]:
    """Return the value-adds that a header disables, in lower case."""
    return tuple(name for one in header.split(",") if (name := one.strip().lower()))


def read_question(body: bytes, rules: FieldRules, *, is_x12: bool) -> Question:
    """Read what a body asks. Raises NotCanonical."""
    if not is_x12:
        return Question(canonical_json(body, rules), rules.text)
    rules = _for_x12(rules)
    meaning = canonical_json(body, rules)
    text = meaning.pop(X12_FIELD, None)
    if not isinstance(text, str):
        raise NotCanonical(Unreadable.NOT_X12)
    return Question({"fields": meaning, "segments": canonical_x12(text)}, rules.text)


@lru_cache(maxsize=64)
def _for_x12(rules: FieldRules) -> FieldRules:
    return replace(rules, verbatim=rules.verbatim | {X12_FIELD})
