"""What an X12 270 asks, however its envelope is numbered.

Facts (ASC X12 005010X279A1)
- ISA has fixed widths: its fourth character is the element separator, the 105th the component separator, the
  106th the segment terminator; ISA11 is the repetition separator. So every interchange brings its own alphabet.
- ISA09-10 and 13, GS04-06, ST02, BHT03-05, TRN and the trailers SE, GE and IEA number and date a message: two
  identical inquiries differ in them.

Rules
- The rest is compared segment by segment, element by element, exactly but for blanks at the ends.
- Whatever does not begin with one whole ISA and end with IEA is not canonical. Nothing here validates a 270.
"""

from typing import Final

from gateway.dedup.canonical import NotCanonical, Unreadable

_ISA_CHARS: Final = 106
_REPETITION_AT: Final = 82
_DROPPED_SEGMENTS: Final = frozenset({"TRN", "SE", "GE", "IEA"})
_DROPPED_ELEMENTS: Final = {
    "ISA": frozenset({9, 10, 11, 13, 16}),
    "GS": frozenset({4, 5, 6}),
    "ST": frozenset({2}),
    "BHT": frozenset({3, 4, 5}),
}
_SHORTEST: Final = 3  # ISA, something, IEA

Segment = list[list[list[str]]]


def canonical_x12(text: str) -> list[Segment]:
    """Return the segments that carry meaning, each as elements of repetitions of components.

    Raises NotCanonical.
    """
    text = text.lstrip()
    if len(text) < _ISA_CHARS or not text.startswith("ISA"):
        raise NotCanonical(Unreadable.NOT_X12)
    element, component, terminator = text[3], text[_ISA_CHARS - 2], text[_ISA_CHARS - 1]
    repetition = text[_REPETITION_AT]
    alphabet = {element, component, terminator, repetition}
    if len(alphabet) != 4 or any(sign.isalnum() or sign == " " for sign in alphabet):  # noqa: PLR2004 - four signs
        raise NotCanonical(Unreadable.NOT_X12)
    segments = [segment.strip() for segment in text.split(terminator)]
    if segments.pop() or len(segments) < _SHORTEST:
        raise NotCanonical(Unreadable.NOT_X12)
    split = [segment.split(element) for segment in segments]
    names = [parts[0] for parts in split]
    if names[-1] != "IEA" or names.count("ISA") != 1 or names.count("IEA") != 1 or "" in names:
        raise NotCanonical(Unreadable.NOT_X12)
    return [
        _segment(parts, "" if parts[0] == "ISA" else repetition, component)
        for parts in split
        if parts[0] not in _DROPPED_SEGMENTS
    ]


def _segment(parts: list[str], repetition: str, component: str) -> Segment:
    dropped = _DROPPED_ELEMENTS.get(parts[0], frozenset())
    elements = [
        [[""]] if position in dropped else _element(text, repetition, component) for position, text in enumerate(parts)
    ]
    while elements[-1] == [[""]]:
        elements.pop()
    return elements


def _element(text: str, repetition: str, component: str) -> list[list[str]]:
    if not repetition:
        return [[text.strip()]]
    return [[part.strip() for part in repeat.split(component)] for repeat in text.split(repetition)]
