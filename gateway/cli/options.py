"""What several commands share: options, what they read, and how they fail."""

import sys
from collections.abc import Sized
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from gateway.policy.documents import PolicyFilesError
from gateway.policy.files import PolicySet, load
from gateway.settings import variable

_USAGE: Final = 2

PoliciesOption = Annotated[
    Path,
    typer.Option(
        "--policies",
        envvar=variable("policies"),
        help="The directory of policy files.",
        show_default=True,
    ),
]


class Format(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="For people or for machines.")]


def load_policies(directory: Path) -> PolicySet:
    """Read policy files, or end with what must be mended."""
    try:
        return load(directory)
    except PolicyFilesError as error:
        fail(*(str(problem) for problem in error.problems))


def read_body(file: Path, option: str) -> bytes:
    """Read a request body, or end with why not."""
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{option}: found {error.filename} ({error.strerror}), expected a file to read")


def counted(things: Sized, one: str, many: str) -> str:
    """So many things, in words."""
    return f"{len(things)} {one if len(things) == 1 else many}"


def fail(*messages: str) -> NoReturn:
    """End because the command, or what it was given, is wrong."""
    for message in messages:
        print(message, file=sys.stderr)
    raise typer.Exit(_USAGE)
