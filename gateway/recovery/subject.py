"""Of whom a submission asks, and whether a transaction speaks of the same.

Rules
- A wrong answer is worse than a lost one: whatever the transaction states of its payer and its patient must be what the
  submission said, where it said anything; and it must state the member id or the birth date that was asked for.
- The patient is the first dependent, if there is one, else the subscriber (X12: NM1*03, else NM1*IL).
- Compared are letters and digits without case; dates by their digits.
"""

import re
from typing import Any, Final

import orjson
from msgspec import Struct

_ISA: Final = "ISA"
_ELEMENT_AT: Final = 3  # the separator stands after "ISA", the terminator ends that segment of fixed width
_TERMINATOR_AT: Final = 105
_NOISE: Final = re.compile(r"[\W_]+")


class Subject(Struct, frozen=True):
    """What a submission says; empty where it does not."""

    payer: str
    member_id: str
    birth_date: str
    first_name: str
    last_name: str

    def __repr__(self) -> str:
        return "Subject()"


def subject_of(body: bytes, *, is_x12: bool) -> Subject | None:
    """Read of whom a submission asks; None where that cannot be read."""
    try:
        document = orjson.loads(body)
        return _of_x12(document["x12"]) if is_x12 else _of_json(document)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError):
        return None


def agrees(subject: Subject, transaction: dict[str, Any]) -> bool:
    """Whether a transaction speaks of this subject."""
    patient, subscriber = (_member(transaction, name) for name in ("patient", "subscriber"))
    person = patient or subscriber
    stated = Subject(
        payer=_plain(_member(transaction, "payer").get("chcId")),
        member_id=_plain(person.get("memberId") or subscriber.get("memberId")),
        birth_date=_plain(person.get("dateOfBirth")),
        first_name=_plain(person.get("firstName")),
        last_name=_plain(person.get("lastName")),
    )
    pairs = [(getattr(subject, name), getattr(stated, name)) for name in Subject.__struct_fields__]
    contradicts = any(asked and said and asked != said for asked, said in pairs)
    identifies = any(
        asked and asked == said
        for asked, said in ((subject.member_id, stated.member_id), (subject.birth_date, stated.birth_date))
    )
    return identifies and not contradicts


def _of_json(document: dict[str, Any]) -> Subject:
    subscriber = document["subscriber"]
    dependents = document.get("dependents") or [subscriber]
    person = dependents[0]
    return Subject(
        payer=_plain(document.get("tradingPartnerServiceId")),
        member_id=_plain(person.get("memberId") or subscriber.get("memberId")),
        birth_date=_plain(person.get("dateOfBirth")),
        first_name=_plain(person.get("firstName")),
        last_name=_plain(person.get("lastName")),
    )


def _of_x12(text: str) -> Subject | None:
    if not text.startswith(_ISA) or len(text) <= _TERMINATOR_AT:
        return None
    segments = [one.strip().split(text[_ELEMENT_AT]) for one in text.split(text[_TERMINATOR_AT])]
    payer = member_id = ""
    name: list[str] = []
    birth_date = ""
    for segment in segments:
        match segment:
            case ["NM1", "PR", *rest]:
                payer = _at(rest, 7)
            case ["NM1", "IL", *rest]:
                name, member_id, birth_date = rest, _at(rest, 7), ""
            case ["NM1", "03", *rest]:
                name, birth_date = rest, ""
                member_id = _at(rest, 7) or member_id
            case ["DMG", "D8", date, *_]:
                birth_date = date
            case _:
                pass
    return Subject(_plain(payer), _plain(member_id), _plain(birth_date), _plain(_at(name, 2)), _plain(_at(name, 1)))


def _at(elements: list[str], index: int) -> str:
    return elements[index] if index < len(elements) else ""


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _plain(value: object) -> str:
    return _NOISE.sub("", value).casefold() if isinstance(value, str) else ""
