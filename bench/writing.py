"""How services write down one question: each has its habits, and none writes like another.

Facts
- What differs: the order of keys, indentation, blanks in and around strings, the case of names, whether what is not
  known is left out, null or empty, escapes, composed or decomposed letters, order and repeats of service types, the
  sender's own numbers; in X12 the delimiters, the envelope's numbers and dates, and line breaks.
- The control number is nine digits: six for the question, three for how many times it was written before. It is the
  one thing by which an answer is later found right or wrong, and no part of what is asked.
"""

import json
import random
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Final, Literal

from bench.inquiries import Inquiry, Person

_NAMES: Final = frozenset({"firstName", "lastName", "middleName", "organizationName", "tradingPartnerName"})
_SUBMITTER: Final = "submitterTransactionIdentifier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one service writes. `missing`: what stands for what is not known; nothing: it is left out.

    `repeats`: how often a service type stands there twice. `signs`: of X12, between elements, repetitions and
    components, and behind segments.
    """

    cased: Callable[[str], str] = str
    indent: int | str | None = None
    separators: tuple[str, str] = (",", ":")
    missing: tuple[object, ...] = ()
    around: str = ""
    between: str = " "
    form: Literal["NFC", "NFD"] = "NFC"
    is_ascii: bool = True
    repeats: float = 0.0
    signs: tuple[str, str, str, str] = ("*", "^", ":", "~")
    break_after: str = ""
    wrapper: Mapping[str, object] = field(default_factory=dict)


SERVICES: Final[Mapping[str, Habits]] = MappingProxyType(
    {
        "scheduling": Habits(cased=str.title),
        "registration": Habits(
            cased=str.upper,
            indent=2,
            missing=(None,),
            around=" ",
            is_ascii=False,
            break_after="\n",
        ),
        "billing": Habits(
            cased=str.lower,
            indent="\t",
            separators=(" , ", " : "),
            missing=("", {}, None),
            between="  ",
            repeats=0.2,
            signs=("|", "^", ">", "~"),
            wrapper={_SUBMITTER: "BILLING"},
        ),
        "nightly": Habits(
            cased=str.upper,
            separators=(", ", ": "),
            missing=("   ", [], {"name": None}),
            form="NFD",
            signs=("+", "!", ":", "\x1d"),
            break_after="\r\n",
        ),
    },
)


def as_json(asked: Inquiry, service: str, control_number: str, source: random.Random) -> bytes:
    """Return the body as the service writes it."""
    habits = SERVICES[service]
    codes = [*asked.codes]
    if source.random() < habits.repeats:
        codes.append(codes[0])
    source.shuffle(codes)
    document = {
        _SUBMITTER: f"{service}-{control_number}",
        "tradingPartnerServiceId": asked.payer[0],
        "tradingPartnerName": asked.payer[1],
        "provider": {"organizationName": asked.provider[0], "npi": asked.provider[1], "taxId": ""},
        "subscriber": {"memberId": asked.member, "groupNumber": asked.group, **_person(asked.subscriber)},
        "dependents": [_person(one) for one in asked.dependents],
        "encounter": {"dateOfService": _digits(asked.served), "serviceTypeCodes": codes},
        "portalUsername": "",
    }
    written = _written(document, habits, source)
    return _dumped({"controlNumber": control_number, **written}, habits, source)


def as_x12(asked: Inquiry, service: str, control_number: str, source: random.Random) -> bytes:
    """Return the body with the interchange as the service writes it."""
    habits = SERVICES[service]
    element, repetition, component, end = habits.signs
    today = date(2026, 1, source.randint(1, 28)).strftime("%y%m%d")
    clock = f"{source.randrange(24):02d}{source.randrange(60):02d}"
    own = f"{source.randrange(10_000):04d}"
    text = "".join(
        segment.replace("*", element) + end + habits.break_after
        for segment in (
            "ISA*00*          *00*          *ZZ*BENCH          *ZZ*OPTUM          "
            f"*{today}*{clock}*{repetition}*00501*{control_number}*0*T*{component}",
            f"GS*HS*BENCH*OPTUM*20{today}*{clock}*{own}*X*005010X279A1",
            f"ST*270*{own}*005010X279A1",
            f"BHT*0022*13*{service.upper()}{control_number}*20{today}*{clock}",
            "HL*1**20*1*" if habits.repeats else "HL*1**20*1",  # an empty element at the end says nothing
            f"NM1*PR*2*{asked.payer[1].upper()}*****PI*{asked.payer[0]}",
            "HL*2*1*21*1",
            f"NM1*1P*2*{asked.provider[0].upper()}*****XX*{asked.provider[1]}",
            f"HL*3*2*22*{int(bool(asked.dependents))}",
            f"TRN*1*{control_number}*9BENCH0000",
            _nm1("IL", asked.subscriber, asked.member),
            _dmg(asked.subscriber),
            *(line for number, one in enumerate(asked.dependents, 4) for line in _dependent(number, one)),
            f"DTP*291*D8*{_digits(asked.served)}",
            *(f"EQ*{code}" for code in asked.codes),
            f"SE*12*{own}",
            f"GE*1*{own}",
            f"IEA*1*{control_number}",
        )
    )
    return _dumped({"x12": text, **habits.wrapper}, habits, source)


def _person(one: Person) -> dict[str, object]:
    return {
        "firstName": one.first,
        "middleName": one.middle,
        "lastName": one.last,
        "gender": one.gender,
        "dateOfBirth": _digits(one.born),
    }


def _dependent(number: int, one: Person) -> tuple[str, ...]:
    return (f"HL*{number}*3*23*0", _nm1("03", one, ""), _dmg(one))


def _nm1(kind: str, one: Person, member: str) -> str:
    known = f"NM1*{kind}*1*{one.last}*{one.first}*{one.middle}".upper()
    return f"{known}***MI*{member}" if member else known


def _dmg(one: Person) -> str:
    return f"DMG*D8*{_digits(one.born)}*{one.gender}"


def _written(document: Mapping[str, object], habits: Habits, source: random.Random) -> dict[str, object]:
    found = {key: _value(value, key, habits, source) for key, value in document.items()}
    kept = {key: value for key, value in found.items() if value or habits.missing}
    return {key: value or source.choice(habits.missing) for key, value in kept.items()}


def _value(value: object, name: str, habits: Habits, source: random.Random) -> object:
    match value:
        case dict():
            return _written(value, habits, source)
        case list():
            return [_value(item, name, habits, source) for item in value]
        case str() if value and name in _NAMES:
            text = unicodedata.normalize(habits.form, habits.cased(value))
            return habits.around + text.replace(" ", habits.between) + habits.around
        case str() if value:
            return value + habits.around
        case _:
            return value


def _dumped(document: dict[str, object], habits: Habits, source: random.Random) -> bytes:
    shuffled = _shuffled(document, source)
    text = json.dumps(shuffled, indent=habits.indent, separators=habits.separators, ensure_ascii=habits.is_ascii)
    return text.encode()


def _shuffled(value: object, source: random.Random) -> object:
    if isinstance(value, list):
        return [_shuffled(item, source) for item in value]
    if not isinstance(value, dict):
        return value
    pairs = [(key, _shuffled(inner, source)) for key, inner in value.items()]
    source.shuffle(pairs)
    return dict(pairs)


def _digits(day: date) -> str:
    return day.strftime("%Y%m%d")
