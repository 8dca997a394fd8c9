"""What is in force, and where it comes from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.operations import OperationName
from gateway.policy.callers import Caller
from gateway.policy.documents import Source
from gateway.policy.files import PolicySet
from gateway.policy.model import Policy

_DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value that governs: its path in the policy, how a file would say it, and where it stands."""

    path: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The policy that governs one operation of one caller, value by value; `policy` is None: refused."""

    operation: str
    caller: str
    policy: str | None
    reason: str
    values: tuple[Value, ...] = ()


def explain(policies: PolicySet, operation: OperationName, caller: str) -> Explanation:
    """Say what governs, or why nothing does. Raises KeyError for a caller that is not declared."""
    entry = policies.callers[caller]
    policy = policies.table.operations.get((operation, caller))
    if policy is None:
        reason = (
            "no policy matches"
            if entry.may_use(operation)
            else f"the caller's entry does not list it ({policies.caller_sources[caller].place('callers', caller)})"
        )
        return Explanation(operation=operation.value, caller=caller, policy=None, reason=reason)
    return Explanation(
        operation=operation.value,
        caller=caller,
        policy=policy.name,
        reason=f"the most specific match: {policies.sources[policy.name].place('match')}",
        values=(
            *_values(_document(policy), policies.sources[policy.name], ()),
            *_caller_values(entry, policies.caller_sources[caller]),
        ),
    )


def describe(policies: PolicySet) -> dict[str, object]:
    """Everything in force as JSON values: no secret, and no digest of one."""
    return {
        "digest": policies.digest,
        "policies": {policy.name: _document(policy) for policy in policies.policies},
        "callers": {name: _entry(caller) for name, caller in policies.callers.items()},
        "issuers": {name: issuer.model_dump(mode="json") for name, issuer in policies.issuers.items()},
        "notices": list(policies.notices),
    }


def _document(policy: Policy) -> dict[str, object]:
    return policy.model_dump(mode="json")


def _entry(caller: Caller) -> dict[str, object]:
    entry = caller.entry.model_dump(mode="json")
    entry["secret_sha256"] = f"{len(caller.entry.digests)} masked"
    return entry


def _values(document: Mapping[str, object], source: Source, loc: tuple[str, ...]) -> Iterator[Value]:
    for key, value in document.items():
        here = (*loc, key)
        if isinstance(value, dict) and value:
            yield from _values(value, source, here)
        else:
            yield Value(path=".".join(here), value=value, origin=source.place(*here) if source.has(*here) else _DEFAULT)


def _caller_values(caller: Caller, source: Source) -> Iterator[Value]:
    for key, value in _entry(caller).items():
        loc = ("callers", caller.name, key)
        yield Value(
            path=f"caller.{key}",
            value=value,
            origin=source.place(*loc) if source.has(*loc) else _DEFAULT,
        )
