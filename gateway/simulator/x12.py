"""Reading an X12 270.

Rules
- The delimiters are what the ISA segment declares, at the fixed places that make ISA readable before
  they are known: element after "ISA", repetition at 82, component at 104, segment at 105.
- Line breaks after a segment's end are not data.
- Segment counts and control totals are not checked: what real senders put there varies.
- Two messages are materially identical when all but envelope, BHT, TRN and their numbering is equal.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from gateway.simulator.inquiry import Inquiry, Person, Rejected, iso_date

_ISA_LENGTH: Final = 106
_DELIMITERS: Final = 4
_ISA_ELEMENTS: Final = 17
_NUMBERED: Final = frozenset({"ISA", "GS", "ST", "BHT", "TRN", "SE", "GE", "IEA"})


@dataclass(frozen=True, slots=True)
class Message:
    """A message cut at its own delimiters."""

    segments: tuple[tuple[str, ...], ...]
    repetition: str

    def named(self, name: str, qualifier: str) -> tuple[str, ...] | None:
        """Find the first segment of a name whose first element is the qualifier."""
        for segment in self.segments:
            if segment[0] == name and element(segment, 1) == qualifier:
                return segment
        return None


def element(segment: tuple[str, ...] | None, index: int) -> str:
    """Read an element; one that is not there is empty."""
    return segment[index].strip() if segment is not None and index < len(segment) else ""


def cut(text: str) -> Message | None:
    """Cut a message at the delimiters that its ISA declares; None if it has no sound ISA."""
    text = text.lstrip()
    if len(text) < _ISA_LENGTH or not text.startswith("ISA"):
        return None
    separator, repetition, terminator = text[3], text[82], text[105]
    delimiters = {separator, repetition, text[104], terminator}
    if len(delimiters) != _DELIMITERS or any(mark.isalnum() or mark == " " for mark in delimiters):
        return None
    segments = tuple(tuple(part.strip("\r\n").split(separator)) for part in text.split(terminator) if part.strip())
    if len(segments[0]) != _ISA_ELEMENTS:
        return None
    return Message(segments, repetition)


def read_inquiry(text: str) -> Inquiry | Rejected:
    """Read a 270 as the same inquiry that its JSON form would be."""
    message = cut(text)
    if message is None:
        return _refused("the X12 has no ISA segment that declares its delimiters")
    if message.named("ST", "270") is None:
        return _refused("the X12 holds no 270 transaction set")
    payer = message.named("NM1", "PR")
    if payer is None:
        return _refused("the X12 names no payer (NM1*PR)")
    subscriber = _person(message, "IL")
    if isinstance(subscriber, Rejected):
        return subscriber
    dependent = _person(message, "03")
    if isinstance(dependent, Rejected):
        return dependent
    if subscriber is None and dependent is None:
        return _refused("the X12 names no subscriber (NM1*IL)")
    service_date = iso_date(element(message.named("DTP", "291"), 3).partition("-")[0])
    provider = message.named("NM1", "1P")
    return Inquiry(
        payer_id=element(payer, 9) or element(payer, 3),
        npi=element(provider, 9),
        provider_name=element(provider, 3),
        subscriber=subscriber or Person(),
        dependent=dependent,
        account_number=element(message.named("REF", "EJ"), 2),
        medical_record_number=element(message.named("REF", "EA"), 2),
        date_of_service=service_date or "",
        service_types=_service_types(message),
        control_number=element(message.segments[0], 13),
        digest=_digest(message),
    )


def _refused(problem: str) -> Rejected:
    return Rejected(422, (f"Unprocessable: {problem}",))


def _person(message: Message, qualifier: str) -> Person | Rejected | None:
    """Read a person's NM1 and the DMG that follows it before the next person or level."""
    person: Person | None = None
    for segment in message.segments:
        if person is None:
            if segment[0] == "NM1" and element(segment, 1) == qualifier:
                person = Person(
                    last_name=element(segment, 3),
                    first_name=element(segment, 4),
                    member_id=element(segment, 9),
                )
        elif segment[0] in {"NM1", "HL"}:
            break
        elif segment[0] == "DMG":
            born = iso_date(element(segment, 2))
            if born is None and element(segment, 2):
                return _refused("DMG02 must be a date, CCYYMMDD")
            return replace(person, date_of_birth=born or "", gender=element(segment, 3))
    return person


def _service_types(message: Message) -> tuple[str, ...]:
    return tuple(
        code
        for segment in message.segments
        if segment[0] == "EQ"
        for code in element(segment, 1).split(message.repetition)
        if code
    )


def _digest(message: Message) -> bytes:
    digest = hashlib.sha256()
    for segment in message.segments:
        if segment[0] not in _NUMBERED:
            digest.update("\x1f".join(segment).encode("utf-8", "surrogatepass") + b"\x1e")
    return digest.digest()
