"""What a request asks: who the patient is, which payer is asked, and for what.

Rules
- Only what answers and filters need is kept, so that 50,000 stored transactions stay small; an
  answer is written again from its inquiry whenever it is read.
- `digest` covers everything but the sender's own numbering: equal digests are materially identical.
- The first problem does not hide the others: a refusal names them all.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import orjson

_NUMBERING: Final = frozenset({"controlNumber", "submitterTransactionIdentifier"})
_CONTROL_NUMBER: Final = re.compile(r"[0-9]{9}", re.ASCII)
_DATE: Final = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A subscriber or a dependent. Dates are ISO; what is not known is empty."""

    first_name: str = ""
    last_name: str = ""
    gender: str = ""
    date_of_birth: str = ""
    member_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """One eligibility question, from JSON or from X12."""

    payer_id: str
    npi: str
    provider_name: str
    subscriber: Person
    dependent: Person | None
    account_number: str
    medical_record_number: str
    date_of_service: str
    service_types: tuple[str, ...]
    control_number: str
    digest: bytes

    @property
    def patient(self) -> Person:
        """The dependent where there is one, else the subscriber."""
        return self.dependent or self.subscriber


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request is refused, and why."""

    status: int
    problems: tuple[str, ...]


def read_object(body: bytes) -> dict[str, Any] | Rejected:
    """Read a body that must be one JSON object."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Rejected(400, ("Bad Request: the body is not JSON",))
    if not isinstance(document, dict):
        return Rejected(400, ("Bad Request: the body is not a JSON object",))
    return document


def read_inquiry(document: Mapping[str, Any]) -> Inquiry | Rejected:
    """Read a JSON 270."""
    reader = _Reader([])
    subscriber = reader.part(document, "subscriber", required=True)
    encounter = reader.part(document, "encounter", required=True)
    provider = reader.part(document, "provider")
    identifiers = reader.part(subscriber, "additionalIdentification")
    dependents = reader.parts(document, "dependents")
    inquiry = Inquiry(
        payer_id=reader.text(document, "tradingPartnerServiceId"),
        npi=reader.text(provider, "npi"),
        provider_name=reader.text(provider, "organizationName") or reader.text(provider, "lastName"),
        subscriber=reader.person(subscriber),
        dependent=reader.person(dependents[0]) if dependents else None,
        account_number=reader.text(identifiers, "patientAccountNumber"),
        medical_record_number=reader.text(identifiers, "medicalRecordIdentificationNumber"),
        date_of_service=reader.date(encounter, "dateOfService", required="encounter" in document),
        service_types=reader.texts(encounter, "serviceTypeCodes"),
        control_number=reader.control_number(document),
        digest=_digest(document),
    )
    return Rejected(422, tuple(reader.problems)) if reader.problems else inquiry


def iso_date(text: str) -> str | None:
    """Turn CCYYMMDD (or an ISO date) into an ISO date; None if there is no such day."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])).isoformat()
    except ValueError:
        return None


def _digest(document: Mapping[str, Any]) -> bytes:
    substance = {name: value for name, value in document.items() if name not in _NUMBERING}
    return hashlib.sha256(orjson.dumps(substance, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads fields and collects what is wrong with them."""

    problems: list[str]

    def _refuse(self, problem: str) -> None:
        self.problems.append(f"Unprocessable: {problem}")

    def part(self, document: Mapping[str, Any], name: str, *, required: bool = False) -> Mapping[str, Any]:
        value = document.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._refuse(f"'{name}' must be an object")
        elif required:
            self._refuse(f"'{name}' is required")
        return {}

    def parts(self, document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
        value = document.get(name)
        if value is None:
            return []
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return value
        self._refuse(f"'{name}' must be a list of at least one object")
        return []

    def text(self, document: Mapping[str, Any], name: str) -> str:
        value = document.get(name)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        self._refuse(f"'{name}' must be a string")
        return ""

    def texts(self, document: Mapping[str, Any], name: str) -> tuple[str, ...]:
        value = document.get(name)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._refuse(f"'{name}' must be a list of strings")
        return ()

    def date(self, document: Mapping[str, Any], name: str, *, required: bool = False) -> str:
        text = self.text(document, name)
        if not text:
            if required:
                self._refuse(f"'{name}' is required")
            return ""
        found = iso_date(text)
        if found is None:
            self._refuse(f"'{name}' must be a date, CCYYMMDD")
        return found or ""

    def control_number(self, document: Mapping[str, Any]) -> str:
        # The contract lets the upstream number a request that brings no number of its own.
        number = self.text(document, "controlNumber")
        if "controlNumber" in document and not _CONTROL_NUMBER.fullmatch(number):
            self._refuse("'controlNumber' must be exactly 9 digits")
        return number

    def person(self, document: Mapping[str, Any]) -> Person:
        return Person(
            first_name=self.text(document, "firstName"),
            last_name=self.text(document, "lastName"),
            gender=self.text(document, "gender"),
            date_of_birth=self.date(document, "dateOfBirth"),
            member_id=self.text(document, "memberId"),
        )
