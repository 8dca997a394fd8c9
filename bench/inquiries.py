"""Who is asked about on the bench's day: made-up patients, and those who are nearly the same.

Rules
- Two inquiries are equal exactly where they ask the same: what is equal may share an answer, and nothing else may.
- A near miss differs in one thing from what it was made of, and that thing is another patient, payer, day or service.
- Nothing here knows how the gateway compares: it is the truth that peers are held against.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final, TypeVar

_FIRST: Final = (
    *("Ada", "Ben", "Chloé", "Dana", "Eve", "Frank", "Grace", "Hugo", "Ines", "Joan", "Kofi", "Lena", "Mei", "Noor"),
    *("Omar", "Pia", "Quinn", "Rosa", "Sam", "Tara"),
)
_LAST: Final = (
    *("Sample", "Miller", "O'Neil", "de la Cruz", "Nuñez", "Van Test", "Placeholder", "Aberg", "Made-Up", "Example"),
    *("Smith", "Synthetic", "Nobody", "Tester", "Doe", "Roe", "Fixture", "Mockingham", "Ipsum", "Lorem"),
)
_PAYERS: Final = (("00001", "Synthetic Health Plan"), ("00002", "Made Up Mutual"), ("00003", "Example Care of Nowhere"))
_PROVIDERS: Final = (("Clinic of Benchmarks", "1234567893"), ("Harbour Street Pediatrics", "1999999984"))
_CODES: Final = ("1", "30", "33", "35", "47", "48", "50", "86", "88", "98")
_BORN: Final = date(1950, 1, 1)
_SERVED: Final = date(2026, 1, 2)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody; what is not known is empty."""

    first: str
    last: str
    born: date
    gender: str
    middle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What is asked. Of `codes` the order does not count, so they are kept in order; that of dependents does."""

    payer: tuple[str, str]
    provider: tuple[str, str]
    member: str
    group: str
    subscriber: Person
    dependents: tuple[Person, ...]
    served: date
    codes: tuple[str, ...]


def inquiry(source: random.Random, visit: int) -> Inquiry:
    """Return what is asked at a visit; no two visits ask about one member."""
    last = source.choice(_LAST)
    return Inquiry(
        payer=source.choice(_PAYERS),
        provider=source.choice(_PROVIDERS),
        member=f"M{visit:08d}",
        group=source.choice(("", f"G{source.randrange(1000):03d}")),
        subscriber=_person(source, last, _BORN + timedelta(days=source.randrange(15_000))),
        dependents=tuple(
            _person(source, last, date(2008 + child, 1, 1) + timedelta(days=source.randrange(700)))
            for child in range(source.choice((0, 0, 1, 2, 3)))
        ),
        served=_SERVED + timedelta(days=source.randrange(5)),
        codes=tuple(sorted(source.sample(_CODES, source.randint(1, 5)))),
    )


def near_misses(asked: Inquiry) -> Iterator[tuple[str, Inquiry]]:
    """Yield, by name, what differs in one thing."""
    patient = asked.dependents[-1] if asked.dependents else asked.subscriber
    yield "twin", _about(asked, replace(patient, first=_next(_FIRST, patient.first)))
    yield "sibling", _about(asked, replace(patient, born=patient.born + timedelta(days=400)))
    if len(asked.dependents) > 1:
        first, second, *others = asked.dependents
        yield "dependents in another order", replace(asked, dependents=(second, first, *others))
    yield "payer", replace(asked, payer=_next(_PAYERS, asked.payer))
    yield "day", replace(asked, served=asked.served + timedelta(days=1))
    more = next(code for code in _CODES if code not in asked.codes)
    yield "services", replace(asked, codes=tuple(sorted((*asked.codes, more))))


def _about(asked: Inquiry, patient: Person) -> Inquiry:
    if asked.dependents:
        return replace(asked, dependents=(*asked.dependents[:-1], patient))
    return replace(asked, subscriber=patient)


def _person(source: random.Random, last: str, born: date) -> Person:
    return Person(
        first=source.choice(_FIRST),
        middle=source.choice(("", "", "Q", "Marie Lou")),
        last=last,
        born=born,
        gender=source.choice("FMU"),
    )


def _next(values: tuple[T, ...], value: T) -> T:
    return values[(values.index(value) + 1) % len(values)]
