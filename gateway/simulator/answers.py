"""What the real-time API says: the written form of a transaction, and of faults.

Rules
- Content is a function of the record alone: the same patient has the same benefits each time.
- Every value is synthetic and within the contract's schema.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.simulator.benefits import Benefit, benefits_of
from gateway.simulator.exchange import Reply, gateway_refusal, refusal
from gateway.simulator.inquiry import Person
from gateway.simulator.payers import Outcome
from gateway.simulator.records import Discovery, Transaction
from gateway.simulator.x12_271 import write

_DESCRIPTIONS: Final = {
    Outcome.ELIGIBLE: "The patient has active coverage.",
    Outcome.INELIGIBLE: "The patient has no active coverage on the date of service.",
    Outcome.PAYER_UNAVAILABLE: "The payer did not answer.",
    Outcome.PAYER_NOT_IN_SYSTEM: "The payer is not known.",
    Outcome.PROCESSING_ERROR: "The inquiry could not be processed.",
    Outcome.PATIENT_UNKNOWN: "The payer does not know the patient.",
}
_FACTS: Final = frozenset({Outcome.ELIGIBLE, Outcome.INELIGIBLE, Outcome.PATIENT_UNKNOWN})
_HAS_271: Final = _FACTS | {Outcome.PAYER_UNAVAILABLE}
# Refusals that the gateway in front makes, before the API sees the request.
_GATEWAY_STATUSES: Final = {
    401: ("invalid_token", "The access token is not accepted."),
    429: ("rate_limited", "Too many requests."),
    502: ("bad_gateway", "The service behind the gateway could not be reached."),
    504: ("gateway_timeout", "The service behind the gateway did not answer in time."),
}
_SENTENCES: Final = {
    400: "Bad Request: simulated",
    403: "Forbidden: not provisioned for this operation",
    404: "Not Found: no such record",
    409: "Conflict: simulated",
    422: "Unprocessable: simulated",
    500: "Internal Error: simulated",
    503: "Unavailable: simulated",
}


def transaction_document(transaction: Transaction) -> dict[str, Any]:
    """Write a transaction as its GET and its POST both answer it."""
    inquiry, outcome, payer = transaction.inquiry, transaction.outcome, transaction.payer
    document: dict[str, Any] = {
        "id": transaction.id,
        "sourceType": transaction.source_type,
        "correlationId": transaction.correlation_id,
        "processedDate": timestamp(transaction.processed_at),
        "status": {"value": outcome.value, "description": _DESCRIPTIONS[outcome]},
        "payer": {"chcId": payer.id, "name": payer.name},
        "subscriber": _person(inquiry.subscriber),
        "patient": _person(inquiry.patient),
    }
    if transaction.source_id is not None:
        document["sourceId"] = transaction.source_id
    if outcome not in _FACTS:
        document["errors"] = [_DESCRIPTIONS[outcome]]
    benefits: tuple[Benefit, ...] = ()
    if outcome is Outcome.ELIGIBLE:
        benefits = benefits_of(inquiry.digest, inquiry.service_types, payer.benefit_rows)
        document["plan"] = _plan(transaction)
        document["benefits"] = [_benefit(benefit) for benefit in benefits]
    if outcome in _HAS_271:
        document["x12-271"] = write(transaction, benefits)
    return document


def related_links(discoveries: tuple[Discovery, ...]) -> str:
    """Name started discovery tasks as RFC 8288 links, relative to the API's base path."""
    return ", ".join(
        f'</coverage-discovery/{task.id}>; title="coverage discovery - {task.plan.name}"; rel="related"'
        for task in discoveries
    )


def status_reply(status: int, trace_id: str) -> Reply:
    """Answer with a bare status in the shape that the upstream gives it."""
    if status in _GATEWAY_STATUSES:
        return gateway_refusal(status, *_GATEWAY_STATUSES[status], trace_id)
    return refusal(status, [_SENTENCES.get(status, f"Simulated status {status}")])


def from_gateway(status: int) -> bool:
    """Say whether a status is the enterprise gateway's, not the API's."""
    return status in _GATEWAY_STATUSES


def timestamp(at: datetime) -> str:
    """Write an instant as the contract does, with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _person(person: Person) -> dict[str, str]:
    fields = {
        "firstName": person.first_name,
        "lastName": person.last_name,
        "gender": person.gender,
        "dateOfBirth": person.date_of_birth,
        "memberId": person.member_id,
    }
    return {name: value for name, value in fields.items() if value}


def _plan(transaction: Transaction) -> dict[str, Any]:
    digest, payer = transaction.inquiry.digest, transaction.payer
    begins = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=31 * (digest[0] % 24))
    plan: dict[str, Any] = {
        "name": f"{payer.name} {('Basic', 'Plus', 'Extra')[digest[1] % 3]}",
        "number": f"P{int.from_bytes(digest[2:5]):08d}",
        "groupOrPolicyNumber": f"G{int.from_bytes(digest[5:8]):08d}",
        "beginDate": begins.date().isoformat(),
    }
    if payer.hmo:
        plan["hmo"] = {"name": payer.name, "planNumber": plan["number"]}
    return plan


def _benefit(benefit: Benefit) -> dict[str, str]:
    return {
        "service": benefit.service,
        "networkClass": "inNetwork" if benefit.in_network else "outNetwork",
        "benefitType": "family" if benefit.family else "individual",
        "name": benefit.name,
        "value": str(benefit.value),
        "type": benefit.type,
        "scope": "service",
    }
