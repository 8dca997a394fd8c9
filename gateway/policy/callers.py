"""What a policy file may say of callers.

Rule: a secret is nowhere but with its owner; a file has its digest.
"""

import math
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, model_validator

from gateway.operations import OperationName
from gateway.policy.model import Clause
from gateway.policy.values import (
    ANY,
    CallerName,
    CallerOperation,
    CertificateName,
    Duration,
    FilePath,
    IssuerText,
    Jwks,
    Rate,
    Sha256,
    Subject,
    SubtenantId,
)

ANONYMOUS: Final = "anonymous"
FORWARDED: Final = "forwarded"


class Issuer(Clause):
    """A platform that vouches for callers by tokens (JWT): a Kubernetes cluster, an identity provider."""

    issuer: IssuerText = Field(description="Its name as tokens have it in `iss`.")
    audience: IssuerText = Field(description="What tokens must have in `aud`: that they are meant for this gateway.")
    jwks: Jwks = Field(description="Where its public keys are: an https:// URL, or the absolute path of a file.")
    ca: FilePath | None = Field(
        default=None, description="A PEM file of the certificates by which that URL is verified; else the system's."
    )
    bearer_file: FilePath | None = Field(
        default=None, description="A file with the token that is sent to that URL, as a Kubernetes API wants one."
    )

    @property
    def is_file(self) -> bool:
        """Whether its keys are in a file."""
        return self.jwks.startswith("/")

    @model_validator(mode="after")
    def _of_a_url(self) -> Self:
        if self.is_file and (self.ca is not None or self.bearer_file is not None):
            raise ValueError("ca and bearer_file only for a jwks that is a URL")
        return self


class LimitsClause(Clause):
    """How much of one process a caller may take; the rest waits in its own queue. Nothing of it is set by default."""

    in_flight: int | None = Field(
        default=None, ge=1, strict=True, description="Requests and their calls under way at once, in each process."
    )
    rate: Rate | None = Field(
        default=None, description='Requests in a second, minute or hour: "50/s", in each process.'
    )
    burst: int | None = Field(
        default=None, ge=1, strict=True, description="Requests at once after a pause; left out: those of one second."
    )
    queue: int = Field(default=100, ge=0, le=10_000, strict=True, description="Requests that may wait for their turn.")
    wait: Duration = Field(default=1.0, le=60, description="For how long at most; then it is 429.")

    @property
    def burst_size(self) -> float:
        """How many requests may come at once after a pause."""
        return float(self.burst) if self.burst is not None else max(math.ceil(self.rate or 1.0), 1.0)

    @model_validator(mode="after")
    def _of_a_rate(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst only with a rate")
        return self


class CallerEntry(Clause):
    """One caller, as a policy file names it."""

    secret_sha256: Sha256 | tuple[Sha256, ...] = Field(
        default=(),
        union_mode="left_to_right",
        description="SHA-256 of the caller's secret; several while a secret is being rotated.",
    )
    certificates: tuple[CertificateName, ...] = Field(
        default=(),
        description='Names in its client certificate (subject alternative names): "dns:…" or "uri:…".',
    )
    subjects: tuple[Subject, ...] = Field(
        default=(),
        description="Whom the tokens of an issuer name: the issuer's name in this directory, a slash, and `sub`.",
    )
    subtenant: SubtenantId | None = Field(default=None, description="The subtenant on whose behalf it asks.")
    subtenant_choices: tuple[SubtenantId, ...] = Field(
        default=(),
        description="Values of x-optum-subtenant-id that it may name itself, whatever the policy.",
    )
    operations: tuple[CallerOperation, ...] = Field(
        default=(ANY,),
        description='The operations it may use; "forwarded" stands for the paths that policies forward, "*" for all.',
    )
    limits: LimitsClause = LimitsClause()

    @property
    def digests(self) -> tuple[str, ...]:
        """The accepted digests, newest or oldest first as the file has them."""
        return (self.secret_sha256,) if isinstance(self.secret_sha256, str) else self.secret_sha256

    @property
    def is_known(self) -> bool:
        """Whether there is anything by which it can be known."""
        return bool(self.digests or self.certificates or self.subjects)


class CallersFile(Clause):
    """A file that declares callers, and the platforms that vouch for them; several such files add up."""

    issuers: Mapping[CallerName, Issuer] = Field(default={}, description="Platforms that vouch for callers, by name.")
    callers: Mapping[CallerName, CallerEntry] = Field(min_length=1)


class Caller(Clause):
    """A declared caller with its name: what an exchange knows of who asked."""

    name: str
    entry: CallerEntry

    def may_use(self, operation: OperationName | None) -> bool:
        """Whether its entry lists the operation; None stands for a forwarded path."""
        return ANY in self.entry.operations or (operation or FORWARDED) in self.entry.operations
