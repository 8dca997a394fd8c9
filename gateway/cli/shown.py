"""How what was found out is shown: to people, and to machines as JSON."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from gateway.dedup.canonical import Difference
from gateway.operations import OperationName
from gateway.policy.change import Change
from gateway.policy.diff import Affected
from gateway.policy.explain import Explanation

_TABLE_CHARS: Final = 400  # a path to copy is worth more than a line that fits


def explanation_as_json(explanation: Explanation) -> dict[str, object]:
    """What governs, for machines."""
    return {
        "operation": explanation.operation,
        "caller": explanation.caller,
        "policy": explanation.policy,
        "reason": explanation.reason,
        "values": {value.path: {"value": value.value, "from": value.origin} for value in explanation.values},
    }


def print_explanation(explanation: Explanation) -> None:
    """Print what governs as a table."""
    console = Console(width=_TABLE_CHARS)
    who = f"{explanation.operation} by {explanation.caller}"
    if explanation.policy is None:
        console.print(f"{who}: refused, {explanation.reason}", highlight=False, markup=False)
        return
    console.print(f"{who}: policy {explanation.policy}, {explanation.reason}", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("path", "value", "from"):
        table.add_column(heading, no_wrap=True)
    for value in explanation.values:
        shown = value.value if isinstance(value.value, str) else json.dumps(value.value)
        table.add_row(value.path, shown, value.origin)
    console.print(table)


def comparison_lines(differences: Sequence[Difference], *, with_values: bool) -> Iterator[str]:
    """Yield where two bodies differ, a path a line."""
    for one in differences:
        yield f"  {one.path}" + (f": {json.dumps(one.first)} and {json.dumps(one.second)}" if with_values else "")


def caller_lines(name: str, secret: str, digest: str) -> Iterator[str]:
    """Yield what a new caller's service gets, and what goes into a policy file."""
    yield f"client id      {name}"
    yield f"client secret  {secret}"
    yield "(for the service: this is the only time that it is shown)"
    yield ""
    yield "callers:"
    yield f"  {name}:"
    yield f'    secret_sha256: "{digest}"'


def difference_as_json(affected: Sequence[Affected]) -> list[dict[str, object]]:
    """What happens to whom, for machines."""
    return [
        {
            "callers": one.callers,
            "requests": one.requests,
            "changes": [
                {"path": change.path, "old": change.old, "new": change.new, "says": change.says}
                for change in one.changes
            ],
        }
        for one in affected
    ]


def difference_lines(affected: Sequence[Affected]) -> Iterator[str]:
    """Yield what happens to whom, a sentence a line."""
    for one in affected:
        yield f"{', '.join(one.callers)}: {_requests(one.requests)}"
        yield from (f"  {_values(change)}{change.says}" for change in one.changes)


def _requests(requests: Sequence[str]) -> str:
    if not requests:
        return "whatever is asked for"
    if not set(OperationName) <= set(requests):
        return ", ".join(requests)
    return ", ".join(("every operation", *(request for request in requests if request not in set(OperationName))))


def _values(change: Change) -> str:
    match change.old, change.new:
        case None, None:
            values = ""
        case None, new:
            values = f" +{new}"
        case old, None:
            values = f" -{old}"
        case old, new:
            values = f" {old} -> {new}"
    return f"{change.path}{values}: " if change.path else ""
