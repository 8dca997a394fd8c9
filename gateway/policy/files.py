"""Policy files: read, check, report everything at once.

Rules
- All problems of all files are found before anything is said: nobody should mend one line to hear of the next.
- A problem names file, line and path, what was found and what is expected.
- The digest of a secret is never repeated: somebody will one day paste the secret itself there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.policy.effects import effects
from gateway.policy.match import Route, Table, Tie, decide
from gateway.policy.model import ANONYMOUS, Caller, CallersFile, Policy
from gateway.policy.values import ANY

SUFFIXES: Final = (".yaml", ".yml")
_EXPECTED: Final = {
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "bool_type": "true or false",
    "enum": "one of {expected}",
    "extra_forbidden": "one of: {known}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_long": "at most {max_length} entries",
    "literal_error": "one of {expected}",
    "missing": "a value: the field is required",
    "string_type": "a string (quote it)",
    "string_unicode": "a string (quote it)",
    "too_short": "at least {min_length} entry",
    "tuple_type": "a list",
}
_BEFORE_A_QUOTE: Final = re.compile(r"(?:[^'\"\n]|'(?:[^'\"\\]|\\[^'\"])')*")  # one sign may stand in quotes
_SHOWN_CHARS: Final = 60
_TAKEN_FOR_A_VALUE: Final = frozenset({("token",), ("headers", "set")})  # somebody will write `token: eyJ…`
_ENTRY_DEPTH: Final = 2  # callers, and an entry's name
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
        place = f"{self.file}:{self.line}" if self.line else self.file
        path = self.path.replace("\r", "\\r").replace("\n", "\\n")  # one problem, one line
        where = f"{path}: " if path else ""
        return f"{place}: {where}found {self.found}, expected {self.expected}"


class PolicyFilesError(Exception):
    """The policy files cannot be used; `problems` is everything that must be mended, in order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


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


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that a directory of policy files says, checked and decided."""

    policies: tuple[Policy, ...]
    callers: Mapping[str, Caller]
    table: Table
    sources: Mapping[str, Source] = field(repr=False)
    caller_sources: Mapping[str, Source] = field(repr=False)

    @property
    def subtenants(self) -> frozenset[str]:
        """Every subtenant that a file names, for a caller or in a policy."""
        entries = [caller.entry for caller in self.callers.values()]
        named = {entry.subtenant for entry in entries if entry.subtenant is not None}
        named |= {policy.headers.subtenant for policy in self.policies} - {"from-caller", "none"}
        chosen = (
            *(entry.subtenant_choices for entry in entries),
            *(p.headers.subtenant_choices for p in self.policies),
        )
        return frozenset(named.union(*chosen))

    @property
    def notices(self) -> tuple[str, ...]:
        """What is valid and yet not what its author may think."""
        return tuple(
            f"{self.sources[policy.name].place(*path)}: {'.'.join(path)}: {value} {says}"
            for policy in self.policies
            for path, value, says in effects(policy)
        )


def load(directory: Path) -> PolicySet:
    """Read every `*.yaml` and `*.yml` of a directory. Raises PolicyFilesError with all problems there are."""
    if not directory.is_dir():
        raise PolicyFilesError(
            [
                Problem(
                    str(directory.absolute()), 0, "", "no directory", "a directory of policy files (GATEWAY_POLICIES)"
                )
            ]
        )
    found = _Found()
    for path in sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file()):
        found.add(path)
    # What holds across files is judged only when each file is in order: one mistake, one problem.
    table, ties = decide(found.policies.values(), found.callers.values())
    problems = found.problems or _across(directory, found) or [_tied(tie, found) for tie in ties] or _idle(table, found)
    if problems:
        raise PolicyFilesError(_merged(problems))
    return PolicySet(
        tuple(found.policies.values()),
        MappingProxyType(found.callers),
        table,
        MappingProxyType(found.sources),
        MappingProxyType(found.caller_sources),
    )


@dataclass(slots=True)
class _Found:
    """What the files say, and what is wrong with them, while they are being read."""

    policies: dict[str, Policy] = field(default_factory=dict)
    callers: dict[str, Caller] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    caller_sources: dict[str, Source] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: Path) -> None:
        document, source, broken = _read(path)
        if broken:
            self.problems += broken
        elif "callers" in document and "match" not in document:
            self._add_callers(document, source)
        else:
            self._add_policy(document, path.stem, source)

    def _add_policy(self, document: CommentedMap, name: str, source: Source) -> None:
        if "callers" in document:
            self.problems.append(source.problem("both `match:` and `callers:`", "one kind in a file", "callers"))
            return
        if "name" in document:
            known = ", ".join(field for field in Policy.model_fields if field != "name")
            self.problems.append(source.problem("an unknown field", f"one of: {known}", "name"))
        try:
            policy = Policy.model_validate({**document, "name": name})
        except ValidationError as error:
            self.problems += _problems(Policy, error, document, source)
            return
        if name in self.policies:
            self.problems.append(source.problem(f"a second policy named {name}", "another file name"))
        self.policies[name] = policy
        self.sources[name] = source

    def _add_callers(self, document: CommentedMap, source: Source) -> None:
        try:
            entries = CallersFile.model_validate(document).callers
        except ValidationError as error:
            self.problems += _problems(CallersFile, error, document, source)
            return
        for name, entry in entries.items():
            if name in self.callers:
                self.problems.append(source.problem("a second entry", "each caller once", "callers", name))
            self.callers[name] = Caller(name=name, entry=entry)
            self.caller_sources[name] = source


def _across(directory: Path, found: _Found) -> list[Problem]:
    problems = []
    if not found.policies:
        problems.append(Problem(str(directory), 0, "", "no policy file", "at least one file with `match:`"))
    if not found.callers:
        problems.append(Problem(str(directory), 0, "", "no caller", "a file with `callers:`"))
    problems += _secrets(found)
    declared = ", ".join(sorted(found.callers)) or "none is declared"
    for name, policy in found.policies.items():
        source = found.sources[name]
        if not policy.match.operations and not policy.match.forward:
            problems.append(source.problem("no request", "operations, forward or both", "match"))
        problems += [
            source.problem(f"'{caller}'", f"a declared caller: {declared}", "match", "callers", index)
            for index, caller in enumerate(policy.match.callers)
            if caller != ANY and caller not in found.callers
        ]
    return problems


def _secrets(found: _Found) -> list[Problem]:
    problems = []
    owners: dict[str, str] = {}
    for name, caller in found.callers.items():
        place = ("callers", name, "secret_sha256")
        if name == ANONYMOUS and caller.entry.digests:
            problems.append(found.caller_sources[name].problem("a secret", "none for who is anonymous", *place))
        if name != ANONYMOUS and not caller.entry.digests:
            expected = "the SHA-256 of a secret: only 'anonymous' has none"
            problems.append(found.caller_sources[name].problem("nothing", expected, *place))
        for digest in caller.entry.digests:
            if owners.setdefault(digest, name) != name:
                expected = f"another secret than that of '{owners[digest]}': a secret names one caller"
                problems.append(found.caller_sources[name].problem("a secret that is taken", expected, *place))
    return problems


def _idle(table: Table, found: _Found) -> list[Problem]:
    """Routes that no caller may use: a field without effect is a mistake."""
    idle = {route for route, policies in table.routes if not policies}
    return [
        found.sources[name].problem(
            f"'{text}', which no caller may use",
            "a caller whose operations hold 'forwarded' or '*'",
            *("match", "forward", index),
        )
        for name, policy in found.policies.items()
        for index, text in enumerate(policy.match.forward)
        if Route.parse(text) in idle
    ]


def _tied(tie: Tie, found: _Found) -> Problem:
    return found.sources[tie.second.name].problem(
        f"the same precedence as {found.sources[tie.first.name].place('match')} for {tie.what} by {tie.caller}",
        "one policy that is more specific: name the caller or the operation",
        "match",
    )


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """Sort, and make one problem of those that differ only in what would have been accepted."""
    merged: dict[tuple[str, int, str, str], list[str]] = {}
    for problem in problems:
        expected = merged.setdefault((problem.file, problem.line, problem.path, problem.found), [])
        if problem.expected not in expected:
            expected.append(problem.expected)
    return sorted(Problem(*place, ", or ".join(expected)) for place, expected in merged.items())


def _problems(
    model: type[BaseModel],
    error: ValidationError,
    document: CommentedMap,
    source: Source,
) -> list[Problem]:
    return [_problem(model, details, document, source) for details in error.errors(include_url=False)]


def _problem(model: type[BaseModel], details: ErrorDetails, document: CommentedMap, source: Source) -> Problem:
    loc = _in_document(details, document)
    context = {"expected": "", "gt": "", "min_length": "", **details.get("ctx", {})}
    expected = _EXPECTED.get(details["type"], "").format(known=_known(model, loc), **context)
    if details["type"] == "value_error":
        expected = str(context["error"])
    return source.problem(_shown(details, loc), expected or details["msg"], *loc)


def _in_document(details: ErrorDetails, document: CommentedMap) -> Loc:
    """Drop what pydantic adds to a path: names of union members, and the "[key]" behind a mapping's key."""
    kept: list[int | str] = []
    node: object = document
    for part in details["loc"]:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list) and part in range(len(node))):
            node = node[part]  # type: ignore[index] # a list's part is one of its indices
        elif details["type"] == "missing" and part == details["loc"][-1]:
            node = None  # it has a path, and no line of its own
        else:
            continue
        kept.append(part)
    return tuple(kept)


def _shown(details: ErrorDetails, loc: Loc) -> str:
    if details["type"] == "value_error" and str(details["loc"][-1]) == "[key]":
        return f"the name {str(loc[-1])!r}"
    if _may_be_a_secret(details, loc):
        return "a value that is not shown"
    if details["type"] == "extra_forbidden":
        return "an unknown field"
    if details["type"] == "missing":
        return "nothing"
    match details["input"]:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str(value):
            return repr(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…")
        case int(value) if not isinstance(value, bool):  # ruamel's 0 is a ScalarInt
            return f"int {value:d}"
        case value:
            return f"{type(value).__name__} {value!s:.60}"


def _may_be_a_secret(details: ErrorDetails, loc: Loc) -> bool:
    """Whether it stands in the place of an entry, of a digest, of the token, of headers or of the value of one."""
    is_entry = loc[:1] == ("callers",) and len(loc) <= _ENTRY_DEPTH
    is_header = loc[:2] == ("headers", "set") and len(loc) > 2  # noqa: PLR2004 - the clause, its field, a name
    is_clause = loc in _TAKEN_FOR_A_VALUE and isinstance(details["input"], str)
    return is_entry or is_header or is_clause or any("secret" in str(part) for part in loc)


def _known(model: type[BaseModel], loc: Loc) -> str:
    """The fields of the model in which the last part of a path stands."""
    for part in loc[:-1]:
        info = model.model_fields.get(str(part))
        annotation = info.annotation if info is not None else None
        if annotation is None:
            continue  # the name of a caller, the index of a list: the model is that of the values
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return ", ".join(name for name, info in model.model_fields.items() if not info.exclude)


def _read(path: Path) -> tuple[CommentedMap, Source, list[Problem]]:
    """Return the document, where its values stand, and what hinders reading it."""
    empty = CommentedMap()
    file = str(path)
    try:
        document = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        found = "a key a second time" if isinstance(error, DuplicateKeyError) else _said(error.problem or "")
        return empty, Source(file, {}), [Problem(file, line, "", found, "one YAML 1.2 document, each key once")]
    except UnicodeDecodeError:
        return empty, Source(file, {}), [Problem(file, 1, "", "bytes that are not UTF-8", "UTF-8 text")]
    except (YAMLError, *_ODD_YAML):
        return empty, Source(file, {}), [Problem(file, 1, "", "a syntax error", "one YAML 1.2 document")]
    except OSError as error:
        return empty, Source(file, {}), [Problem(file, 1, "", error.strerror or "no access", "a readable file")]
    if not isinstance(document, CommentedMap):
        found = "an empty file" if document is None else "no mapping"
        return empty, Source(file, {}), [Problem(file, 1, "", found, "a mapping with `match:` or `callers:`")]
    return document, Source(file, MappingProxyType(_lines(document))), []


def _said(problem: str) -> str:
    """The parser's own words up to where it quotes the file: what it quotes may be a secret."""
    match = _BEFORE_A_QUOTE.match(problem)
    words = match[0].strip(" ,:(") if match is not None else ""
    return f"a syntax error ({words})" if words else "a syntax error"


def _lines(node: object, loc: Loc = ()) -> dict[Loc, int]:
    lines: dict[Loc, int] = {}
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            if key in (node.lc.data or {}):  # what a merge key brought along has no place of its own
                lines[(*loc, key)] = node.lc.key(key)[0] + 1
            lines |= _lines(value, (*loc, key))
    elif isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            lines[(*loc, index)] = node.lc.item(index)[0] + 1
            lines |= _lines(value, (*loc, index))
    return lines
