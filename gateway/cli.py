"""The command line: parse, call, print; no logic."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Sized
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console

from gateway.operations import QUESTIONS, OperationName
from gateway.policy.diff import diff
from gateway.policy.documents import PolicyFilesError
from gateway.policy.explain import explain
from gateway.policy.files import PolicySet, load
from gateway.policy.model import DedupMode
from gateway.policy.schema import policy_schema
from gateway.settings import Address, SettingsError, parse_address, read_settings, variable
from gateway.shown import difference_as_json, difference_lines, explanation_as_json, print_explanation

_USAGE: Final = 2
_SIMULATOR_ADDRESS: Final = Address("127.0.0.1", 8081)

app = typer.Typer(
    name="eligibility-gateway",
    help="A reverse proxy for Optum's Enhanced Eligibility API: headers, token, policies, metrics.",
    epilog="Every setting is an environment variable: docs/configuration.md. Try it: eligibility-gateway demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PoliciesOption = Annotated[
    Path,
    typer.Option(
        "--policies",
        envvar=variable("policies"),
        help="The directory of policy files.",
        show_default=True,
    ),
]


def _address(value: str) -> Address:
    try:
        return parse_address(value)
    except ValueError as error:
        raise typer.BadParameter(f"found '{value}', expected {error}") from None


def main() -> None:
    """Run the command line."""
    app()


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        print(f"eligibility-gateway {importlib.metadata.version('eligibility-gateway')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def serve() -> None:
    """Serve until SIGTERM: callers on GATEWAY_LISTEN, Prometheus and probes on GATEWAY_ADMIN_LISTEN.

    Needs GATEWAY_UPSTREAM_URL, GATEWAY_UPSTREAM_CLIENT_ID, GATEWAY_UPSTREAM_CLIENT_SECRET, GATEWAY_REDIS_URL and,
    unless that is `embedded`, GATEWAY_KEYS; each may be given as …_FILE.

    SIGHUP has the policy files read at once, SIGTERM lets what is in flight end.

    Exit codes: 0 ended with nothing cut short, 1 something in flight had to be handed over, 2 cannot start.
    """
    from gateway.process import run
    from gateway.start import StartError
    from gateway.telemetry.log import open_log

    try:
        settings = read_settings(os.environ)
        code = run(settings, open_log(settings.log_level, requests_per_s=settings.log_requests_per_s))
    except (SettingsError, PolicyFilesError) as error:
        _fail(*(str(problem) for problem in error.problems))
    except StartError as error:
        _fail(str(error))
    raise typer.Exit(code)


@app.command("healthcheck")
def healthcheck_command(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Asked instead of /readyz at GATEWAY_ADMIN_LISTEN: http://HOST[:PORT]/PATH."),
    ] = None,
) -> None:
    """Ask whether the gateway of this machine is ready, on its admin port: what a container's health check runs.

    Needs GATEWAY_ADMIN_LISTEN (or …_FILE) where that is not the default, and no other setting.

    Exit codes: 0 it is ready, 1 it is not, or nobody answers within 3 s, 2 the command or the address is wrong.
    """
    from gateway.healthcheck import healthcheck

    raise typer.Exit(healthcheck(os.environ, url))


@app.command()
def simulate(
    listen: Annotated[
        Address,
        typer.Option(parser=_address, metavar="HOST:PORT", help="Where to listen; port 0 lets the system choose."),
    ] = _SIMULATOR_ADDRESS,
    speed: Annotated[float, typer.Option(min=0.001, help="60 makes a simulated minute take a second.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same latencies.")] = 0,
    deduplicate: Annotated[
        bool,
        typer.Option("--deduplicate", help="Answer repeated requests as the upstream's own deduplication does."),
    ] = False,
    callback_url: Annotated[
        str | None,
        typer.Option(help="Where ended discovery tasks are delivered whose request names no callbackUrl."),
    ] = None,
    callback_token_url: Annotated[
        str | None,
        typer.Option(help="The receiver's OAuth2 token endpoint."),
    ] = None,
) -> None:
    """Stand in for the Enhanced Eligibility API, with payers, clocks and faults; all its data is synthetic.

    Its credentials are the client id `simulator` and the secret `simulator-secret`. Payers are chosen by
    tradingPartnerServiceId: SIM-FAST, SIM-SLOW, SIM-CUT110 and others (docs/simulator.md).
    """
    from gateway import simulator

    options = simulator.Options(
        host=listen.host,
        port=listen.port,
        speed=speed,
        seed=seed,
        deduplicate=deduplicate,
        callback_url=callback_url,
        callback_token_url=callback_token_url,
    )
    try:
        simulator.run(options)
    except OSError:
        _fail(f"--listen: found {listen} taken or not allowed, expected an address to listen on")


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the story instead of staying up.")] = False,
    speed: Annotated[float, typer.Option(min=1, help="Simulated seconds in a real one.")] = 60.0,
) -> None:
    """Tell the story: a Valkey, a simulated upstream, two gateways and a day's work, on free ports of this machine.

    Then it stays up, and prints what to try. Exit codes: 0 every promise of the story held, 1 one did not.
    """
    from gateway.demo.story import tell

    raise typer.Exit(tell(Console(), once=once, speed=speed))


@app.command()
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
    found = _load(policies)
    for notice in found.notices:
        print(f"notice: {notice}", file=sys.stderr)
    counted = f"{_count(found.policies, 'policy', 'policies')}, {_count(found.callers, 'caller', 'callers')}"
    print(f"{policies}: {counted}, no problem, digest {found.digest[:12]}")


class Format(StrEnum):
    """How `explain` and `diff` print."""

    TABLE = "table"
    JSON = "json"


@app.command("explain")
def explain_command(
    operation: Annotated[
        OperationName | None,
        typer.Option(help="The operation.  [default: submit_eligibility, or its X12 form for bodies that hold X12]"),
    ] = None,
    caller: Annotated[str, typer.Option(help="A caller's name.")] = "anonymous",
    policies: PoliciesOption = Path("policies"),
    output: Annotated[Format, typer.Option("--format", help="For people or for machines.")] = Format.TABLE,
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
    found = _load(policies)
    if caller not in found.callers:
        _fail(f"--caller: found '{caller}', expected one of {', '.join(sorted(found.callers))}")
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


@app.command("diff")
def diff_command(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The directory of policy files that is in force.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The directory that is to take its place.")],
    output: Annotated[Format, typer.Option("--format", help="For people or for machines.")] = Format.TABLE,
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
        _fail(*problems)
    affected = diff(*sets)
    if output is Format.JSON:
        print(json.dumps(difference_as_json(affected), indent=2))
    else:
        print("\n".join(difference_lines(affected)) or "nothing changes for anybody")
    if affected:
        raise typer.Exit(1)


@app.command("forget")
def forget_command(
    body: Annotated[
        Path | None,
        typer.Option("--body", metavar="FILE", help="A request body; what is stored for the same question goes."),
    ] = None,
    subtenant: Annotated[
        str | None,
        typer.Option("--subtenant", metavar="ID", help="All that is stored for it, or with --body only that."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is stored for any question.")] = False,
) -> None:
    """Forget stored answers: the next request for the same question asks the upstream again.

    Needs the environment of `serve`: the Redis, the key ring, the policies. An answer that is under way is handed to
    those who wait for it, and not kept.

    Exit codes: 0 done, and it says how many answers were forgotten; 1 Redis does not answer; 2 the command is wrong.
    """
    from gateway.connect import StoreUrlError
    from gateway.dedup.canonical import NotCanonical
    from gateway.forget import forget, patterns
    from gateway.sealing import Sealing
    from gateway.store import StoreUnavailable

    if everything == (body is not None or subtenant is not None):
        _fail("found no choice of what to forget, or two: choose --all, or --body and/or --subtenant")
    try:
        settings = read_settings(os.environ)
        if settings.is_embedded:
            _fail("GATEWAY_REDIS_URL: found 'embedded', expected the Redis of the gateways that run")
        name = Sealing(settings.keys).name
        content = _body(body, "--body") if body is not None else None
        found = _load(settings.policies)
        if subtenant is not None and subtenant not in found.subtenants:
            print(
                f"--subtenant: no policy file names '{subtenant}', look again if it is no former one", file=sys.stderr
            )
        forgotten, others = forget(settings, patterns(found, name, body=content, subtenant=subtenant))
    except SettingsError as error:
        _fail(*(str(problem) for problem in error.problems))
    except NotCanonical as error:
        _fail(f"--body: found a body that is never stored ({error.reason.value}), expected one that can be")
    except StoreUrlError as error:
        _fail(f"GATEWAY_REDIS_URL: {error}")
    except StoreUnavailable:
        print("GATEWAY_REDIS_URL: found no Redis that answers, expected the Redis of the gateways", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"forgot {_count(range(forgotten), 'answer', 'answers')}")
    if others and not forgotten:
        print(
            f"{_count(range(others), 'question is', 'questions are')} stored there, none of them this one: if you "
            "expected it, look whether GATEWAY_KEYS and the policies are those of the gateways",
            file=sys.stderr,
        )


def _load(directory: Path) -> PolicySet:
    try:
        return load(directory)
    except PolicyFilesError as error:
        _fail(*(str(problem) for problem in error.problems))


def _count(things: Sized, one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _print_comparison(
    found: PolicySet,
    operation: OperationName | None,
    caller: str,
    files: tuple[Path, Path],
    *,
    with_values: bool,
) -> None:
    from gateway.dedup.compare import compare, holds_x12, unreadable

    first, second = (_body(file, "--compare") for file in files)
    if operation is None:
        is_x12 = holds_x12(first) and holds_x12(second)
        operation = OperationName.SUBMIT_ELIGIBILITY_X12 if is_x12 else OperationName.SUBMIT_ELIGIBILITY
    if operation not in QUESTIONS:
        _fail(
            f"--operation: found {operation.value}, expected one that is deduplicated: {', '.join(sorted(QUESTIONS))}"
        )
    policy = found.table.operations.get((operation, caller))
    if policy is None:
        _fail(f"no policy governs {operation.value} by {caller}: see explain without --compare")
    is_x12 = operation is OperationName.SUBMIT_ELIGIBILITY_X12
    for file, body in zip(files, (first, second), strict=True):
        if (reason := unreadable(body, policy.dedup.fields, is_x12=is_x12)) is not None:
            _fail(f"--compare: found {file} ({reason}), which cannot be read in exactly one way: never deduplicated")
    differences = compare(first, second, policy.dedup.fields, is_x12=is_x12)
    if policy.dedup.mode is not DedupMode.ENFORCE:
        print(f"policy {policy.name} does not deduplicate (dedup.mode: {policy.dedup.mode.value})", file=sys.stderr)
    if not differences:
        print("one question")
        return
    print("two questions, they differ in:")
    for difference in differences:
        shown = f": {json.dumps(difference.first)} and {json.dumps(difference.second)}" if with_values else ""
        print(f"  {difference.path}{shown}")
    raise typer.Exit(1)


def _body(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        _fail(f"{option}: found {error.filename} ({error.strerror}), expected a file to read")


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        print(message, file=sys.stderr)
    raise typer.Exit(_USAGE)
