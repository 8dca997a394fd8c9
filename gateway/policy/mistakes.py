"""What a model refuses, as problems of the document that it was to read.

Rules
- All problems are reported, and those that differ only in what would have been accepted as one.
- The digest of a secret is never repeated: somebody will one day paste the secret itself there.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap

from gateway.policy.documents import Loc, Problem, Source

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
_SHOWN_CHARS: Final = 60
_TAKEN_FOR_A_VALUE: Final = frozenset({("token",), ("headers", "set")})  # somebody will write `token: eyJ…`
_ENTRY_DEPTH: Final = 2  # callers, and an entry's name


def problems_of(
    model: type[BaseModel],
    error: ValidationError,
    document: CommentedMap,
    source: Source,
) -> list[Problem]:
    """Return what a model refuses of a document, each with its line."""
    return [_problem(model, details, document, source) for details in error.errors(include_url=False)]


def merged(problems: Sequence[Problem]) -> list[Problem]:
    """Sort, and make one problem of those that differ only in what would have been accepted."""
    found: dict[tuple[str, int, str, str], list[str]] = {}
    for problem in problems:
        expected = found.setdefault((problem.file, problem.line, problem.path, problem.found), [])
        if problem.expected not in expected:
            expected.append(problem.expected)
    return sorted(Problem(*place, ", or ".join(expected)) for place, expected in found.items())


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
