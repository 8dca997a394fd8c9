"""What can be asked of policy files, and what goes into them."""

import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from gateway.cli.options import Format, FormatOption, PoliciesOption, counted, fail, load_policies, read_body
from gateway.cli.shown import (
    caller_lines,
    comparison_lines,
    difference_as_json,
    difference_lines,
    explanation_as_json,
    print_explanation,
)
from gateway.operations import QUESTIONS, OperationName
from gateway.policy.callers import ANONYMOUS
from gateway.policy.diff import diff
from gateway.policy.documents import PolicyFilesError
from gateway.policy.explain import explain
from gateway.policy.files import PolicySet, load
from gateway.policy.model import DedupMode
from gateway.policy.schema import policy_schema
from gateway.policy.values import CallerName


def check(
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="In the place of --policies.")] = None,
    policies: PoliciesOption = Path("policies"),
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of policy files instead.")] = False,
) -> None:
    """Check every policy file, and report all problems at once: file:line: path: found, expected.

    Exit codes: 0 all is well, 2 something must be mended.
    """
    if schema:
        print(json.dumps(policy_schema(), indent=2))
        return
    policies = directory or policies
    found = load_policies(policies)
    for notice in found.notices:
        print(f"notice: {notice}", file=sys.stderr)
    there = f"{counted(found.policies, 'policy', 'policies')}, {counted(found.callers, 'caller', 'callers')}"
    print(f"{policies}: {there}, no problem, digest {found.digest[:12]}")


def explain_policy(
    operation: Annotated[
        OperationName | None,
        typer.Option(help="The operation.  [default: submit_eligibility, or its X12 form for bodies that hold X12]"),
    ] = None,
    caller: Annotated[str, typer.Option(help="A caller's name.")] = "anonymous",
    policies: PoliciesOption = Path("policies"),
    output: FormatOption = Format.TABLE,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Say whether two bodies are one question, and where they differ."),
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Show what differs as well: it may name patients.")] = False,
) -> None:
    """Print the policy that governs an operation of a caller, and where each value comes from.

    With --compare: whether that policy would take two request bodies for one question; field paths, never values,
    unless --values asks for them.

    Exit codes: 0 a policy governs, or the bodies are one question; 1 the request would be refused, or they are two;
    2 the question cannot be answered.
    """
    found = load_policies(policies)
    if caller not in found.callers:
        fail(f"--caller: found '{caller}', expected one of {', '.join(sorted(found.callers))}")
    if compare is not None:
        _print_comparison(found, operation, caller, compare, with_values=values)
        return
    explanation = explain(found, operation or OperationName.SUBMIT_ELIGIBILITY, caller)
    if output is Format.JSON:
        print(json.dumps(explanation_as_json(explanation), indent=2))
    else:
        print_explanation(explanation)
    if explanation.policy is None:
        raise typer.Exit(1)


def diff_policies(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The directory of policy files that is in force.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The directory that is to take its place.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what a change of the policy files does: to which callers and operations, in one sentence each.

    What nobody would notice is no change: other file names and comments, an order that means nothing, a value that
    nothing reads. Secrets are counted, and of headers that are set only the names are shown.

    Exit codes: 0 nothing changes for anybody, 1 something does, 2 one of the directories cannot be used.
    """
    sets, problems = [], []
    for directory in (old, new):
        try:
            sets.append(load(directory))
        except PolicyFilesError as error:
            problems += [str(problem) for problem in error.problems]
    if problems:
        fail(*problems)
    affected = diff(*sets)
    if output is Format.JSON:
        print(json.dumps(difference_as_json(affected), indent=2))
    else:
        print("\n".join(difference_lines(affected)) or "nothing changes for anybody")
    if affected:
        raise typer.Exit(1)


def new_caller(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The caller's name: its client id as well.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Make a caller's secret, 256 bits of chance, and print it this once, with the entry for a policy file.

    Nothing is stored: what the policy file holds is a digest. While a secret is rotated, list both digests.

    Exit codes: 0 made, 2 the name cannot be one.
    """
    try:
        TypeAdapter(CallerName).validate_python(name)
        if name == ANONYMOUS:
            fail("NAME: found 'anonymous', expected a caller that has a secret: only who is anonymous has none")
    except ValueError:
        fail(f"NAME: found '{name}', expected lower-case letters, digits and hyphens, at most 63")
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if output is Format.JSON:
        print(json.dumps({"client_id": name, "client_secret": secret, "secret_sha256": digest}, indent=2))
    else:
        print("\n".join(caller_lines(name, secret, digest)))


def _print_comparison(
    found: PolicySet,
    operation: OperationName | None,
    caller: str,
    files: tuple[Path, Path],
    *,
    with_values: bool,
) -> None:
    from gateway.dedup.compare import compare, holds_x12, unreadable

    first, second = (read_body(file, "--compare") for file in files)
    if operation is None:
        is_x12 = holds_x12(first) and holds_x12(second)
        operation = OperationName.SUBMIT_ELIGIBILITY_X12 if is_x12 else OperationName.SUBMIT_ELIGIBILITY
    if operation not in QUESTIONS:
        fail(f"--operation: found {operation.value}, expected one that is deduplicated: {', '.join(sorted(QUESTIONS))}")
    policy = found.table.operations.get((operation, caller))
    if policy is None:
        fail(f"no policy governs {operation.value} by {caller}: see explain without --compare")
    is_x12 = operation is OperationName.SUBMIT_ELIGIBILITY_X12
    for file, body in zip(files, (first, second), strict=True):
        if (reason := unreadable(body, policy.dedup.fields, is_x12=is_x12)) is not None:
            fail(f"--compare: found {file} ({reason}), which cannot be read in exactly one way: never deduplicated")
    differences = compare(first, second, policy.dedup.fields, is_x12=is_x12)
    if policy.dedup.mode is not DedupMode.ENFORCE:
        print(f"policy {policy.name} does not deduplicate (dedup.mode: {policy.dedup.mode.value})", file=sys.stderr)
    if not differences:
        print("one question")
        return
    print("two questions, they differ in:", *comparison_lines(differences, with_values=with_values), sep="\n")
    raise typer.Exit(1)
