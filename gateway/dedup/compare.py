"""Whether two bodies are one question, and where they differ if they are not: offline, for people and for CI."""

import re
from dataclasses import replace
from typing import Final

from gateway.dedup.canonical import Difference, FieldRules, NotCanonical, Unreadable, differences, read_object
from gateway.dedup.fingerprint import X12_FIELD, Question, read_question
from gateway.policy.model import FieldsClause

_SEGMENT: Final = re.compile(r"[A-Z][A-Z0-9]{1,2}")


def field_rules(clause: FieldsClause) -> FieldRules:
    """Return the rules that a policy's `dedup.fields` states."""
    return FieldRules(
        ignored=frozenset(clause.ignored),
        case_folded=frozenset(clause.case_folded),
        sets=frozenset(clause.sets),
    )


def holds_x12(body: bytes) -> bool:
    """Whether a body holds an X12 interchange, whole or torn."""
    try:
        return X12_FIELD in read_object(body)
    except NotCanonical:
        return False


def unreadable(body: bytes, clause: FieldsClause, *, is_x12: bool) -> Unreadable | None:
    """Return why a body is no question; None: it is one."""
    try:
        read_question(body, field_rules(clause), is_x12=is_x12)
    except NotCanonical as error:
        return error.reason
    return None


def compare(first: bytes, second: bytes, clause: FieldsClause, *, is_x12: bool) -> tuple[Difference, ...]:
    """Return where two bodies differ as questions; nothing: they are one. Raises NotCanonical."""
    rules = field_rules(clause)
    one, two = (read_question(body, rules, is_x12=is_x12) for body in (first, second))
    return tuple(_named(difference, one, two) for difference in differences(one.meaning, two.meaning))


def _named(difference: Difference, one: Question, two: Question) -> Difference:
    """Name the segment of an X12 difference: `x12.NM1[5]` says more than its number alone."""
    root, bracket, rest = difference.path.partition("[")
    if not bracket or root != "segments":
        return replace(difference, path=difference.path.removeprefix("fields."))
    index, _, below = rest.partition("]")
    longest = max((question.meaning["segments"] for question in (one, two)), key=len)
    name = longest[int(index)][0][0][0]
    if _SEGMENT.fullmatch(name) is None:  # where a terminator stands inside of a value, what follows it is no name
        name = "?"
    return replace(difference, path=f"x12.{name}[{index}]{below}")
