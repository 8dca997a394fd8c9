"""Scripted faults: their form, and which one a request meets.

Rules
- The first fault that fits and has times left is taken; a request meets at most one.
- `operation` "*" means each of the nine, never the token endpoint: that one is named "token".
- `payer` fits only requests whose body names that payer.
- What is written wrongly is refused with a sentence that names the place, never ignored.

| kind          | what the caller sees                                                | processed |
|---------------|---------------------------------------------------------------------|-----------|
| status        | `status`, in the upstream's shape, or `body` (a string is sent raw) | no        |
| hang          | nothing for `seconds` (600), then the ordinary answer               | at its end|
| expired_token | 401; the presented token is revoked                                 | no        |
| reset_before  | RST without an answer                                               | no        |
| reset_mid     | head and `after_bytes` (half) of the body, then RST                 | yes       |
| reset_after   | RST without an answer                                               | yes       |
| torn_body     | head and `after_bytes` (half) of the body, then an orderly close    | yes       |
| slow_drip     | the whole answer, in pieces over `seconds` (60)                     | yes       |
| garbage       | token endpoint: 200 with `body` or text that is no JSON             | no token  |
| expires_in    | token endpoint: `expires_in` is `body`, or missing without one      | yes       |
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from gateway.operations import OperationName
from gateway.simulator.inquiry import Rejected


class Kind(StrEnum):
    """What breaks."""

    STATUS = "status"
    HANG = "hang"
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - a kind of fault
    RESET_BEFORE = "reset_before"
    RESET_MID = "reset_mid"
    RESET_AFTER = "reset_after"
    TORN_BODY = "torn_body"
    SLOW_DRIP = "slow_drip"
    GARBAGE = "garbage"
    EXPIRES_IN = "expires_in"


_TOKEN: Final = "token"  # noqa: S105 - the endpoint's name
_TOKEN_ONLY: Final = frozenset({Kind.GARBAGE, Kind.EXPIRES_IN})
_FIELDS: Final = {
    "status": frozenset({Kind.STATUS}),
    "seconds": frozenset({Kind.HANG, Kind.SLOW_DRIP}),
    "body": frozenset({Kind.STATUS, Kind.GARBAGE, Kind.EXPIRES_IN}),
    "headers": frozenset({Kind.STATUS, Kind.GARBAGE}),
    "after_bytes": frozenset({Kind.RESET_MID, Kind.TORN_BODY}),
}

_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


class Fault(BaseModel):
    """One fault, as scripted. `times` -1 never runs out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    operation: OperationName | Literal["token", "*"] = "*"
    times: Annotated[int, Field(ge=-1)] = 1
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    payer: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    body: JsonValue = None
    headers: dict[_HeaderName, _HeaderValue] | None = None
    after_bytes: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.times == 0:
            raise ValueError("times must be -1 or at least 1")
        if self.kind is Kind.STATUS and self.status is None:
            raise ValueError("kind 'status' needs a status")
        if self.kind in _TOKEN_ONLY and self.operation != _TOKEN:
            raise ValueError(f"kind '{self.kind}' needs operation 'token'")
        if self.operation == _TOKEN and (self.kind is Kind.EXPIRED_TOKEN or self.payer is not None):
            raise ValueError("operation 'token' has neither payers nor tokens to expire")
        for name, kinds in _FIELDS.items():
            if name in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"kind '{self.kind}' has no use for '{name}'")
        return self

    @property
    def has_body(self) -> bool:
        """Tell a `body` of null from no `body`."""
        return "body" in self.model_fields_set


_LIST: Final = TypeAdapter(list[Fault])


def read_faults(body: bytes) -> list[Fault] | Rejected:
    """Read a script: a JSON list of faults."""
    try:
        return _LIST.validate_json(body, strict=True)
    except ValidationError as error:
        return Rejected(422, tuple(_sentence(dict(problem)) for problem in error.errors(include_url=False)))


class Faults:
    """The faults that are still to fire, in the order in which they were scripted."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def script(self, faults: list[Fault]) -> None:
        """Append faults."""
        self._waiting += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()

    def take(self, operation: str, payer: str | None) -> Fault | None:
        """Take the fault that this request meets, if any."""
        for index, (fault, left) in enumerate(self._waiting):
            if _fits(fault, operation, payer):
                if left == 1:
                    del self._waiting[index]
                elif left > 1:
                    self._waiting[index] = (fault, left - 1)
                return fault
        return None

    @property
    def by_payer(self) -> bool:
        """Say whether any fault needs to know the payer: reading it costs a parse of the body."""
        return any(fault.payer is not None for fault, _ in self._waiting)

    def listed(self) -> list[dict[str, Any]]:
        """List what is left."""
        return [
            fault.model_dump(mode="json", exclude_unset=True) | {"operation": str(fault.operation), "times": left}
            for fault, left in self._waiting
        ]


def _fits(fault: Fault, operation: str, payer: str | None) -> bool:
    if fault.operation not in ({operation} if operation == _TOKEN else {operation, "*"}):
        return False
    return fault.payer is None or fault.payer == payer


def _sentence(problem: Mapping[str, Any]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    message = "unknown field" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
    return f"faults{place}: {message}"
