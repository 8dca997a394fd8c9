"""What a policy file may say of callers.

Rule: a secret is nowhere but with its owner; a file has its digest.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from gateway.operations import OperationName
from gateway.policy.model import Clause
from gateway.policy.values import ANY, CallerName, CallerOperation, Sha256, SubtenantId

ANONYMOUS: Final = "anonymous"
FORWARDED: Final = "forwarded"


class CallerEntry(Clause):
    """One caller, as a policy file names it."""

    secret_sha256: Sha256 | tuple[Sha256, ...] = Field(
        default=(),
        union_mode="left_to_right",
        description="SHA-256 of the caller's secret; several while a secret is being rotated.",
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

    @property
    def digests(self) -> tuple[str, ...]:
        """The accepted digests, newest or oldest first as the file has them."""
        return (self.secret_sha256,) if isinstance(self.secret_sha256, str) else self.secret_sha256


class CallersFile(Clause):
    """A file that declares callers; several such files add up."""

    callers: Mapping[CallerName, CallerEntry] = Field(min_length=1)


class Caller(Clause):
    """A declared caller with its name: what an exchange knows of who asked."""

    name: str
    entry: CallerEntry

    def may_use(self, operation: OperationName | None) -> bool:
        """Whether its entry lists the operation; None stands for a forwarded path."""
        return ANY in self.entry.operations or (operation or FORWARDED) in self.entry.operations
