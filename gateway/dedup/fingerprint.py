"""The parts of a question: whatever differs in one of them is another question.

Rules
- Tenant and subtenant are always among them; nothing that a caller sent under their names is.
- Parts are joined by a keyed digest over length-prefixed parts (`Sealing.name`), so that no shift of a boundary
  between two parts makes one question of two.
- Headers that change the answer are in; all others are not.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.dedup.canonical import FieldRules, NotCanonical, Unreadable, canonical_json, write
from gateway.dedup.x12 import canonical_x12

VERSION: Final = "1"  # of the canonical form: another form is another question
X12_FIELD: Final = "x12"
MOCK_SCENARIOS: Final = "x-optum-rcmelig-mock-scenarios"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """On whose behalf a question is asked."""

    upstream: str
    credential: str
    subtenant: str
    caller: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, apart from who asks."""

    meaning: dict[str, Any]

    def parts(self, operation: str, asker: Asker, *, query: str, scenarios: str) -> tuple[str, ...]:
        """Return everything that makes this question another than the next."""
        return (
            *(VERSION, operation, asker.upstream, asker.credential, asker.subtenant, asker.caller),
            *(scenarios, query, write(self.meaning).decode("ascii")),
        )


def read_question(body: bytes, rules: FieldRules, *, is_x12: bool) -> Question:
    """Read what a body asks. Raises NotCanonical."""
    if not is_x12:
        return Question(canonical_json(body, rules))
    meaning = canonical_json(body, replace(rules, verbatim=rules.verbatim | {X12_FIELD}))
    text = meaning.pop(X12_FIELD, None)
    if not isinstance(text, str):
        raise NotCanonical(Unreadable.NOT_X12)
    return Question({"fields": meaning, "segments": canonical_x12(text)})
