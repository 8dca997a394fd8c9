"""Which policy governs a request.

Rules
- The domain is finite: the declared callers times the nine operations, and the forwarded routes. So every
  decision is made when the policies are loaded, and a request only looks it up.
- The most specific match wins: a caller that is named outweighs "*", and among equals an operation that is
  named outweighs "*". Two policies that are equally specific for one caller and operation are a tie: an
  error at load, never a coin tossed at run time.
- Of the routes that cover a forwarded path the narrowest governs that has a policy for the caller: the exact
  one, else the longest prefix; a caller that is named outweighs "*" within one route.
- No match is a refusal.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.operations import OperationName, is_disguised, is_dot_segment
from gateway.policy.callers import Caller
from gateway.policy.model import Policy
from gateway.policy.values import ANY

Key = tuple[OperationName, str]

# What somebody behind us may decode to a slash, a dot, a backslash or a control; overlong forms of UTF-8 as well.
_DECODES: Final = re.compile(r"\\|%(?:2e|2f|5c|[01]|7f|c[01]|e0%[89]|f0%8)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A forwarded path: exact, or everything below a prefix that ends in a slash."""

    method: str
    path: str
    is_prefix: bool

    @classmethod
    def parse(cls, text: str) -> "Route":
        """Read `GET /path` or `GET /path/*`, as the model has validated it."""
        method, _, path = text.partition(" ")
        return cls(method=method, path=path.removesuffix("*"), is_prefix=path.endswith("*"))

    def covers(self, method: str, raw_path: str) -> bool:
        """Whether the route forwards this request. A prefix covers no dot segments, and no operation in disguise."""
        if method != self.method:
            return False
        if not self.is_prefix:
            return raw_path == self.path
        rest = raw_path.removeprefix(self.path)
        return raw_path.startswith(self.path) and rest != "" and not _climbs(rest) and not is_disguised(raw_path)


@dataclass(frozen=True, slots=True)
class Tie:
    """Two policies that are equally specific for the same requests."""

    first: Policy
    second: Policy
    what: str
    caller: str


@dataclass(frozen=True, slots=True)
class Table:
    """Every decision, made: (operation, caller) to policy, and routes to policies by caller."""

    operations: Mapping[Key, Policy]
    routes: Sequence[tuple[Route, Mapping[str, Policy]]]

    def govern(self, operation: OperationName | None, method: str, raw_path: str, caller: str) -> Policy | None:
        """Return the policy that governs, or None: refuse."""
        if operation is not None:
            return self.operations.get((operation, caller))
        for route, policies in self.routes:
            if caller in policies and route.covers(method, raw_path):
                return policies[caller]
        return None

    def forwards(self, method: str, raw_path: str) -> bool:
        """Whether any policy forwards this path, for whomever."""
        return any(route.covers(method, raw_path) for route, _ in self.routes)


def decide(policies: Iterable[Policy], callers: Iterable[Caller]) -> tuple[Table, list[Tie]]:
    """Make the table, and list the ties: with a tie the table must not be used."""
    policies, callers = tuple(policies), tuple(callers)
    ties: list[Tie] = []
    operations = {
        (operation, caller.name): policy
        for operation in OperationName
        for caller in callers
        if caller.may_use(operation) and (policy := _winner(policies, operation, caller.name, ties)) is not None
    }
    texts = sorted({text for policy in policies for text in policy.match.forward}, key=_exact_and_longest_first)
    routes = [
        (
            Route.parse(text),
            MappingProxyType(
                {
                    caller.name: policy
                    for caller in callers
                    if caller.may_use(None) and (policy := _winner(policies, text, caller.name, ties)) is not None
                },
            ),
        )
        for text in texts
    ]
    return Table(MappingProxyType(operations), tuple(routes)), ties


def _winner(policies: Sequence[Policy], what: OperationName | str, caller: str, ties: list[Tie]) -> Policy | None:
    ranked = sorted(
        ((rank, policy) for policy in policies if (rank := _specificity(policy, what, caller)) is not None),
        key=lambda entry: entry[0],
        reverse=True,
    )
    ties += [Tie(ranked[0][1], policy, str(what), caller) for rank, policy in ranked[1:] if rank == ranked[0][0]]
    return ranked[0][1] if ranked else None


def _specificity(policy: Policy, what: OperationName | str, caller: str) -> tuple[bool, bool] | None:
    match = policy.match
    if caller not in match.callers and ANY not in match.callers:
        return None
    if isinstance(what, OperationName):
        if what not in match.operations and ANY not in match.operations:
            return None
        return caller in match.callers, what in match.operations
    return (caller in match.callers, True) if what in match.forward else None


def _exact_and_longest_first(text: str) -> tuple[bool, int, str]:
    return text.endswith("*"), -len(text), text


def _climbs(rest: str) -> bool:
    return any(is_dot_segment(segment) for segment in rest.split("/")) or _DECODES.search(rest) is not None
