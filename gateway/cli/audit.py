"""The commands that read an audit trail."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gateway.cli.options import Format, FormatOption, PoliciesOption, counted, fail, load_policies, read_body
from gateway.settings import SettingsError, read_keys

_CHUNK = 8192

audit_app = typer.Typer(no_args_is_help=True, help="The audit trail: who asked what, provable afterwards.")


@audit_app.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="One trail, oldest file first.")],
    expect: Annotated[
        str | None,
        typer.Option(metavar="SEQ:LINK", help="An entry that must be there, as the log said when a process ended."),
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="The trail stands among other lines, as on stdout, and may begin anew."),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Verify that a trail is whole, in order, and written with the key ring of GATEWAY_KEYS (or …_FILE).

    A tail that was cut off is found only by --expect. A last line that was not finished when its process died is told,
    and is no break.

    Exit codes: 0 the trail holds, 1 it is broken, and it says where, 2 the command is wrong.
    """
    import orjson
    from msgspec.structs import asdict

    from gateway.audit.chain import tip_of
    from gateway.audit.verify import Broken, Verifier
    from gateway.sealing import Mac, Sealing

    if mixed and expect is not None:
        fail("--expect: found beside --mixed, in which numbers begin anew, expected one of them")
    try:
        expected = tip_of(expect) if expect is not None else None
    except ValueError as error:
        fail(f"--expect: found another text, expected {error}")
    try:
        keys = {kid: Mac(key) for kid, key in Sealing(read_keys(os.environ)).signing_keys("audit")}
    except SettingsError as error:
        fail(*error.problems)
    verifier = Verifier(keys, expected, is_mixed=mixed)
    try:
        for file, number, raw in _lines(files):
            verifier.take(file, number, raw)
        report = verifier.end()
    except OSError as error:
        fail(f"FILE: found {error.filename} ({error.strerror}), expected a file to read")
    except Broken as broken:
        if form is Format.JSON:
            where = {"file": broken.file, "line": broken.line, "found": broken.found, "expected": broken.expected}
            print(orjson.dumps({"holds": False, **where}).decode())
        else:
            print(str(broken), file=sys.stderr)
        raise typer.Exit(1) from None
    if form is Format.JSON:
        print(orjson.dumps({"holds": True, **asdict(report)}).decode())
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        "entries": f"{report.entries:,}",
        "from": report.first_at,
        "to": report.last_at,
        "last": report.last,
        "after": report.after or "nothing: the trail begins here",
        "processes": f"{report.runs:,}, of which {report.runs_cut:,} were followed without having said that they ended",
        "ends": "with its process"
        if report.is_stopped
        else "before its process said so: it runs, was killed, or the tail was cut off",
        "lost": f"{report.lost:,}, as the trail itself says",
        "torn lines": f"{report.torn:,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(width=200)
    whole = f"one trail, whole and in order{_since(report.after)}"
    console.print(f"{counted(files, 'file holds', 'files hold')} {whole}", highlight=False)
    console.print(table, highlight=False)


def _since(after: str) -> str:
    return f", from after entry {after.partition(':')[0]} on: those before it are not here" if after else ""


@audit_app.command("tag")
def tag(
    body: Annotated[Path | None, typer.Option(metavar="FILE", help="A request body.")] = None,
    path_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The id of a transaction or of a discovery task.")
    ] = None,
    policies: PoliciesOption = Path("policies"),
) -> None:
    """Say by which tags the entries about a request are found: of a body, or of what is read by an id.

    Needs GATEWAY_KEYS (or …_FILE), and for a body the policies by which it was read. There is one for each key of the
    ring and, of a body, for each way in which policies read it, and for its bytes as they stand.

    Exit codes: 0 done, 2 the command is wrong.
    """
    from gateway.audit.tag import About, Tags
    from gateway.dedup.canonical import NotCanonical
    from gateway.dedup.compare import field_rules
    from gateway.dedup.fingerprint import questions_of
    from gateway.sealing import Mac, Sealing

    if (body is None) == (path_id is None):
        fail("found no choice of what to look for, or two, expected --body or --id")
    try:
        keys = Sealing(read_keys(os.environ)).signing_keys("audit-tag")
    except SettingsError as error:
        fail(*error.problems)
    found: list[tuple[About, bytes]] = []
    if body is not None:
        content = read_body(body, "--body")
        found.append((About.BODY, content))
        for rules in {field_rules(policy.dedup.fields) for policy in load_policies(policies).policies}:
            try:
                found += [(About.QUESTION, question.text) for question in questions_of(content, rules)]
            except NotCanonical:
                continue  # it is known by its bytes alone
    elif path_id is not None:
        found.append((About.ID, path_id.encode()))
    for line in dict.fromkeys(Tags(Mac(key)).made(about, what) for _, key in keys for about, what in found):
        print(line)


def _lines(files: list[Path]) -> Iterator[tuple[str, int, bytes]]:
    """Yield every line with its place, and show on a terminal how far it is."""
    total = sum(file.stat().st_size for file in files)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("verifying", total=total)
        read = 0
        for file in files:
            with file.open("rb") as stream:
                for number, raw in enumerate(stream, start=1):
                    yield str(file), number, raw
                    read += len(raw)
                    if not number % _CHUNK:
                        progress.update(task, completed=read)
