"""One policy file as a document: what it says, where each value stands, and what hinders reading it.

Rules
- A problem names file, line and path, what was found and what is expected.
- Of what cannot be read nothing is quoted: it may be a secret.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from types import MappingProxyType
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

_MAX_VALUES: Final = 100_000  # of five hundred callers with all that can be said of each
_BEFORE_A_QUOTE: Final = re.compile(r"(?:[^'\"\n]|'(?:[^'\"\\]|\\[^'\"])')*")  # one sign may stand in quotes
# What ruamel.yaml raises beside its own errors, on odd tags, dates, directives and depths.
_ODD_YAML: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend; `str()` is what users see. Line 0: no line of a file, but all of it or a directory."""

    file: str
    line: int
    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{_printable(self.file)}:{self.line}" if self.line else _printable(self.file)
        path = _printable(self.path)  # one problem, one line
        where = f"{path}: " if path else ""
        return f"{place}: {where}found {self.found}, expected {self.expected}"


class Reading(StrEnum):
    """What came of reading the policy files, where they were good."""

    ADOPTED = "adopted"
    UNCHANGED = "unchanged"


class Refusal(StrEnum):
    """Why policy files are not used."""

    UNREADABLE = "unreadable"
    INVALID = "invalid"
    EXPOSED = "exposed"
    UNAUDITED = "unaudited"


class PolicyFilesError(Exception):
    """The policy files cannot be used; `problems` is everything that must be mended, in order."""

    def __init__(self, problems: Sequence[Problem], refusal: Refusal = Refusal.INVALID) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document's values stand: its file, and the line of each path in it."""

    file: str
    lines: Mapping[Loc, int]

    def place(self, *loc: int | str) -> str:
        """`file:line` of a path that stands in the file, else of its nearest parent."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return f"{self.file}:{self.lines.get(loc, 1)}"

    def problem(self, found: str, expected: str, *loc: int | str) -> Problem:
        """A problem at a path of this file."""
        line = int(self.place(*loc).rpartition(":")[2])
        return Problem(self.file, line, ".".join(str(part) for part in loc), found, expected)

    def has(self, *loc: int | str) -> bool:
        """Whether the file itself states this path."""
        return loc in self.lines


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def read_document(file: str, content: bytes) -> tuple[CommentedMap, Source, list[Problem]]:
    """Return the document, where its values stand, and what hinders reading it."""
    empty = CommentedMap()
    try:
        document = YAML(typ="rt", pure=True).load(content.decode())
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        found = "a key a second time" if isinstance(error, DuplicateKeyError) else _said(error.problem or "")
        return empty, Source(file, {}), [Problem(file, line, "", found, "one YAML 1.2 document, each key once")]
    except UnicodeDecodeError:
        return empty, Source(file, {}), [Problem(file, 1, "", "bytes that are not UTF-8", "UTF-8 text")]
    except (YAMLError, *_ODD_YAML):
        return empty, Source(file, {}), [Problem(file, 1, "", "a syntax error", "one YAML 1.2 document")]
    places = list(islice(_places(document), _MAX_VALUES + 1))
    if len(places) > _MAX_VALUES:
        found = f"more than {_MAX_VALUES:,} values, with those that aliases repeat"
        return empty, Source(file, {}), [Problem(file, 1, "", found, "fewer")]
    if not isinstance(document, CommentedMap):
        found = "an empty file" if document is None else "no mapping"
        return empty, Source(file, {}), [Problem(file, 1, "", found, "a mapping with `match:` or `callers:`")]
    return document, Source(file, MappingProxyType({loc: line for loc, line in places if line is not None})), []


def _said(problem: str) -> str:
    """The parser's own words up to where it quotes the file: what it quotes may be a secret."""
    match = _BEFORE_A_QUOTE.match(problem)
    words = match[0].strip(" ,:(") if match is not None else ""
    return f"a syntax error ({words})" if words else "a syntax error"


def _places(node: object, loc: Loc = ()) -> Iterator[tuple[Loc, int | None]]:
    """Yield where each value stands, what an alias repeats as well; what a merge key brought along has no line."""
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            yield (*loc, key), node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else None
            yield from _places(value, (*loc, key))
    elif isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            yield (*loc, index), node.lc.item(index)[0] + 1
            yield from _places(value, (*loc, index))
