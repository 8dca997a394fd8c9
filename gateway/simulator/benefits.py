"""The benefits of an eligible patient, as one table that JSON and X12 are both written from.

Rules
- The same inquiry has the same benefits: each number comes from the inquiry's digest.
- Nobody's real plan: amounts, names and codes are made up within the contract's shapes.
"""

from dataclasses import dataclass
from typing import Final

_SERVICES: Final = (
    ("30", "Health Plan Coverage"),
    ("98", "Office Visit"),
    ("UC", "Urgent Care"),
    ("86", "Emergency Services"),
    ("48", "Inpatient Hospital"),
    ("50", "Outpatient Hospital"),
    ("88", "Pharmacy"),
    ("MH", "Mental Health"),
    ("AL", "Vision"),
    ("35", "Dental Care"),
)
_NAMES: Final = dict(_SERVICES)
_KINDS: Final = (
    ("copay", "monetary", "B", "27"),
    ("deductible", "monetary", "C", "23"),
    ("coinsurance", "percent", "A", "27"),
    ("outOfPocketMaximum", "monetary", "G", "23"),
)


@dataclass(frozen=True, slots=True)
class Benefit:
    """One row: what the JSON answer and the EB segment both say."""

    service_code: str
    service: str
    name: str
    type: str
    eb_code: str
    period: str
    value: int
    in_network: bool
    family: bool


def benefits_of(digest: bytes, service_types: tuple[str, ...], rows: int) -> tuple[Benefit, ...]:
    """Derive so many rows: first for the services asked for, then for those a plan always lists."""
    asked = tuple((code, _NAMES.get(code, f"Service Type {code}")) for code in dict.fromkeys(service_types))
    services = asked + tuple(service for service in _SERVICES if service[0] not in service_types)
    return tuple(_row(digest, services, index) for index in range(rows))


def _row(digest: bytes, services: tuple[tuple[str, str], ...], index: int) -> Benefit:
    name, kind, eb_code, period = _KINDS[index % len(_KINDS)]
    service_code, service = services[(index // len(_KINDS)) % len(services)]
    drawn = digest[(index * 7) % len(digest)]
    return Benefit(
        service_code=service_code,
        service=service,
        name=name,
        type=kind,
        eb_code=eb_code,
        period=period,
        value=5 * (drawn % 11) if kind == "percent" else 5 * (1 + drawn % (20 if period == "27" else 400)),
        in_network=drawn % 3 != 0,
        family=drawn % 2 == 1,
    )
