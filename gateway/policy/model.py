"""What a policy file may say.

Rules
- Every model forbids what it does not know: a misspelt field is an error, never a default.
- Nothing here reads files, clocks or the environment.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.operations import BASE_PATH
from gateway.policy.values import (
    ANY,
    CallerPattern,
    Duration,
    HeaderName,
    HeaderValue,
    OperationPattern,
    PayerId,
    PositiveDuration,
    Route,
    SubtenantId,
    TimeZone,
)

_NO_LIMIT_S: Final = 86_400.0 * 366  # the window alone counts, up to a year


class Clause(BaseModel):
    """What a file may say in one place: nothing that is not known, and nothing of it in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Match(Clause):
    """For which requests: the most specific policy governs, a tie is an error, no match is a refusal."""

    operations: tuple[OperationPattern, ...] = Field(default=(), description='Operations by name, or "*" for all nine.')
    callers: tuple[CallerPattern, ...] = Field(default=(ANY,), min_length=1, description='Callers by name, or "*".')
    forward: tuple[Route, ...] = Field(
        default=(),
        description='Paths beyond the nine operations that may pass: "METHOD /path" or "METHOD /path/*".',
    )


class Timeout(Clause):
    """How long the upstream may take, and the caller waits; and when others are known to give up."""

    connect: PositiveDuration = Field(default=5.0, description="To open a connection.")
    answer: PositiveDuration = Field(
        default=125.0,
        description="From sending to the whole answer. Above 120 s, the clearinghouse's own answer reaches us first.",
    )
    caller: PositiveDuration | None = Field(
        default=None,
        description="For the caller to be answered, by a 504 if need be; the call goes on, and its answer is kept. "
        "Left out: connect and answer together.",
    )
    enterprise_gateway: PositiveDuration = Field(
        default=110.0,
        description="When the enterprise gateway in front of the API cuts: a mark by which a cut is told, no limit.",
    )
    clearinghouse: PositiveDuration = Field(
        default=120.0,
        description="When the clearinghouse gives up: a mark as well.",
    )

    @property
    def caller_s(self) -> float:
        """For how long a caller waits at most."""
        return self.caller if self.caller is not None else self.connect + self.answer

    @model_validator(mode="after")
    def _marks_in_order(self) -> Self:
        if self.enterprise_gateway >= self.clearinghouse:
            raise ValueError("enterprise_gateway before clearinghouse: whoever gives up first cuts the other's answer")
        return self


class HeadersClause(Clause):
    """What is added to and taken from the headers on their way upstream."""

    subtenant: Literal["from-caller", "none"] | SubtenantId = Field(
        default="from-caller",
        union_mode="left_to_right",
        description='x-optum-subtenant-id: "from-caller" (the caller\'s entry), "none", or a fixed value.',
    )
    subtenant_choices: tuple[SubtenantId, ...] = Field(
        default=(),
        description="Values of x-optum-subtenant-id that a caller may name itself; any other is refused.",
    )
    set: Mapping[HeaderName, HeaderValue] = Field(default={}, description="Headers set to a fixed value.")
    remove: tuple[HeaderName, ...] = Field(default=(), description="Headers that do not pass upstream.")

    @cached_property
    def touched(self) -> frozenset[str]:
        """The lower-case names that the policy sets or removes: whatever a caller sent under them is dropped."""
        return frozenset(name.lower() for name in (*self.set, *self.remove))

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        both = {name.lower() for name in self.set} & {name.lower() for name in self.remove}
        if both:
            raise ValueError(f"either set or remove, not both: {', '.join(sorted(both))}")
        return self

    @field_validator("set")
    @classmethod
    def _no_twins(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if len({name.lower() for name in value}) != len(value):
            raise ValueError("each header once: names are compared without case")
        return value


class TokenClause(Clause):
    """The OAuth2 token that the gateway puts on the request."""

    inject: bool = Field(default=True, strict=True, description="Send the gateway's token as Authorization: Bearer.")
    retry_unauthorized: bool = Field(
        default=True,
        strict=True,
        description="On a 401 from upstream: void the token that was used and send once more with a new one.",
    )


class DedupMode(StrEnum):
    """What deduplication does with its decisions."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


_PERSON: Final = (
    *("memberId", "firstName", "middleName", "lastName", "suffix", "dateOfBirth", "gender", "ssn", "groupNumber"),
    *("idCard", "birthSequenceNumber", "medicaidRecipientIdentificationNumber"),
)
_SERVICE: Final = (
    *("dateOfService", "beginningDateOfService", "endDateOfService", "serviceTypeCodes", "procedureCode"),
    *("productOrServiceIDQualifier", "medicalProcedures"),
)
# Whose coverage is asked about, with whom, when and for what: two requests that differ in one of them never share.
_ASKED: Final = (
    *("tradingPartnerServiceId", "provider.npi", "x12"),
    *(f"{person}.{field}" for person in ("subscriber", "dependents") for field in _PERSON),
    *(f"encounter.{field}" for field in _SERVICE),
)


class FieldsClause(Clause):
    """Which differences between two request bodies do not make them two questions. A list replaces the default."""

    ignored: tuple[str, ...] = Field(
        default=("controlNumber", "submitterTransactionIdentifier"),
        description="Dotted paths of fields that do not count, such as the sender's own numbering; never those that "
        "say who is asked about, with whom, when or for what.",
    )
    case_folded: tuple[str, ...] = Field(
        default=("firstName", "lastName", "middleName", "organizationName", "suffix", "tradingPartnerName"),
        description="Names of fields, at any depth, whose case does not count.",
    )
    sets: tuple[str, ...] = Field(
        default=("serviceTypeCodes",),
        description="Names of fields, at any depth, that hold a list whose order does not count.",
    )

    @field_validator("ignored")
    @classmethod
    def _says_nothing_of_the_patient(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            held = next((asked for asked in _ASKED if f"{asked}.".startswith(f"{path}.")), None)
            if held is not None:
                raise ValueError(
                    f"fields that do not say what is asked: without {held} one patient gets another's answer"
                )
        return value

    @field_validator("sets")
    @classmethod
    def _order_of_dependents_counts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "dependents" in value:
            raise ValueError("lists whose order says nothing: that of dependents does")
        return value


Outcome = Literal["eligible", "ineligible", "patient_unknown", "payer_not_in_system"]


class DedupClause(Clause):
    """One question, one call: for how long an answer stands for materially identical real-time checks.

    It concerns submit_eligibility and submit_eligibility_x12; other operations pass as they are.
    """

    mode: DedupMode = Field(
        default=DedupMode.OFF,
        description="enforce: answer from the earlier answer. shadow: decide, forward all the same, count. off.",
    )
    window: Duration = Field(
        default=0.0,
        description="How far back from now an answer may have been given; 0s: never replayed, only shared in flight.",
    )
    exclude_prior_month: bool = Field(
        default=True,
        strict=True,
        description="Whether an answer of an earlier calendar month is out of the window: coverage changes then.",
    )
    time_zone: TimeZone = Field(default="America/New_York", description="In which months begin.")
    outcomes: Mapping[Outcome, Duration] = Field(
        default={"eligible": _NO_LIMIT_S, "ineligible": _NO_LIMIT_S},
        description="The values of status.value that may be replayed, each with a window of its own.",
    )
    fields: FieldsClause = FieldsClause()
    share: Literal["subtenant", "caller"] = Field(
        default="subtenant",
        description="Whose answers are shared: those of all callers of one subtenant, or of one caller alone.",
    )
    store_unavailable: Literal["bypass", "reject"] = Field(
        default="bypass",
        description="Without Redis: bypass asks the upstream (once for each process), reject refuses with 503.",
    )

    @cached_property
    def digest(self) -> str:
        """The same for clauses that say the same, in whichever policy and after whichever reload."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class RecoverClause(Clause):
    """Look up a submission that was cut without an answer: its transaction may exist upstream all the same.

    It concerns submit_eligibility and submit_eligibility_x12, and needs the scope of list_transactions.
    """

    within: Duration = Field(
        default=0.0,
        description="For how long after the cut it is looked for; 0s: never. The answer may be there 10 s after a cut.",
    )
    attempts: int = Field(default=6, ge=1, le=20, strict=True, description="How often at most.")
    pause: PositiveDuration = Field(default=1.0, description="Before the first attempt; doubled before each other one.")


class AuditClause(Clause):
    """Whether a request may pass that cannot be audited."""

    unavailable: Literal["proceed", "reject"] = Field(
        default="proceed",
        description="While the audit trail cannot be written: proceed keeps what it can, and counts what is lost; "
        "reject refuses with 503, and needs GATEWAY_AUDIT.",
    )


class MetricsClause(Clause):
    """What is told apart in metrics."""

    payers: tuple[PayerId, ...] = Field(
        default=(),
        max_length=100,
        description="Payers (tradingPartnerServiceId, NM109) whose latency is shown by name; all others are `other`.",
    )

    @cached_property
    def payer_set(self) -> frozenset[str]:
        """The same, for asking."""
        return frozenset(self.payers)


class Policy(Clause):
    """One policy file."""

    match: Match
    timeout: Timeout = Timeout()
    headers: HeadersClause = HeadersClause()
    token: TokenClause = TokenClause()
    dedup: DedupClause = DedupClause()
    recover: RecoverClause = RecoverClause()
    audit: AuditClause = AuditClause()
    metrics: MetricsClause = MetricsClause()
    name: Annotated[str, Field(exclude=True)] = ""


def is_under_base_path(path: str) -> bool:
    """Whether a path belongs to the API's own tree."""
    return path == BASE_PATH or path.startswith(BASE_PATH + "/")
