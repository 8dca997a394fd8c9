"""Writing a plausible X12 271 for a finished transaction.

Rules
- Synthetic: no text of it comes from any payer. What the request brought goes in only after all
  characters that could be a delimiter are taken out.
- The ISA segment is exactly 106 characters, SE01 counts its segments, control numbers agree.
"""

from collections.abc import Iterator
from typing import Final

from gateway.simulator.benefits import Benefit
from gateway.simulator.inquiry import Person
from gateway.simulator.payers import Outcome
from gateway.simulator.records import Transaction

_UNSAFE: Final = str.maketrans(dict.fromkeys("*~^:\r\n", " "))
_REJECTIONS: Final = {
    Outcome.PATIENT_UNKNOWN: "AAA*N**75*C",
    Outcome.PAYER_UNAVAILABLE: "AAA*N**42*R",
}


def write(transaction: Transaction, benefits: tuple[Benefit, ...]) -> str:
    """Write the whole interchange."""
    date, time = f"{transaction.processed_at:%Y%m%d}", f"{transaction.processed_at:%H%M}"
    digits = transaction.inquiry.control_number
    control = digits if digits.isdigit() and len(digits) == 9 else _number(transaction.inquiry.digest)  # noqa: PLR2004
    body = (
        "ST*271*0001*005010X279A1",
        f"BHT*0022*11*{transaction.id.replace('-', '')[:30]}*{date}*{time}",
        *_levels(transaction, benefits),
    )
    segments = (
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SIMULATOR':15}*ZZ*{'RECEIVER':15}*{date[2:]}*{time}*^*00501*{control}*0*T*:",
        f"GS*HB*SIMULATOR*RECEIVER*{date}*{time}*1*X*005010X279A1",
        *body,
        f"SE*{len(body) + 1}*0001",
        "GE*1*1",
        f"IEA*1*{control}",
    )
    return "~".join(segments) + "~"


def _number(digest: bytes) -> str:
    return f"{int.from_bytes(digest[:4]) % 1_000_000_000:09d}"


def _levels(transaction: Transaction, benefits: tuple[Benefit, ...]) -> Iterator[str]:
    inquiry, outcome = transaction.inquiry, transaction.outcome
    yield "HL*1**20*1"
    yield f"NM1*PR*2*{_safe(transaction.payer.name, 60)}*****PI*{_safe(transaction.payer.id, 80)}"
    if outcome is Outcome.PAYER_UNAVAILABLE:
        yield _REJECTIONS[outcome]
        return
    yield "HL*2*1*21*1"
    yield f"NM1*1P*2*{_safe(inquiry.provider_name, 60) or 'PROVIDER'}*****XX*{_safe(inquiry.npi, 80)}"
    yield f"HL*3*2*22*{0 if inquiry.dependent is None else 1}"
    yield f"TRN*2*{transaction.id.replace('-', '')}*9SIMULATOR"
    yield from _person("IL", inquiry.subscriber)
    if inquiry.dependent is not None:
        yield "HL*4*3*23*0"
        yield from _person("03", inquiry.dependent)
    if outcome in _REJECTIONS:
        yield _REJECTIONS[outcome]
        return
    if inquiry.date_of_service:
        yield f"DTP*291*D8*{inquiry.date_of_service.replace('-', '')}"
    yield from _coverage(transaction, benefits)


def _person(qualifier: str, person: Person) -> Iterator[str]:
    member = f"****MI*{_safe(person.member_id, 80)}" if person.member_id else ""
    yield f"NM1*{qualifier}*1*{_safe(person.last_name, 60)}*{_safe(person.first_name, 35)}{member}"
    if person.date_of_birth:
        yield f"DMG*D8*{person.date_of_birth.replace('-', '')}*{_safe(person.gender, 1) or 'U'}"


def _coverage(transaction: Transaction, benefits: tuple[Benefit, ...]) -> Iterator[str]:
    if transaction.outcome is not Outcome.ELIGIBLE:
        yield "EB*6**30"
        return
    yield f"EB*1**30*{'HM' if transaction.payer.hmo else 'C1'}*{_safe(transaction.payer.name, 50)}"
    for benefit in benefits:
        level = "FAM" if benefit.family else "IND"
        network = "Y" if benefit.in_network else "N"
        # EB07 is an amount of money, EB08 a share of one.
        value = f"*{benefit.value / 100:g}" if benefit.type == "percent" else f"{benefit.value}*"
        yield f"EB*{benefit.eb_code}*{level}*{benefit.service_code}***{benefit.period}*{value}****{network}"


def _safe(text: str, longest: int) -> str:
    return " ".join(text.translate(_UNSAFE).split())[:longest].upper()
