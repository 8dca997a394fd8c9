"""What a JSON request asks, however it is written down.

Rules
- Two bodies are one question only if this module says so: a wrong merge gives a patient another's answer, a
  missed one costs a call. So whatever cannot be read in exactly one way is not canonical, and says why.
- Absent, null and empty are one. Strings are trimmed, inner blanks folded, composed characters normalised (NFC);
  case is folded only in the fields that a policy names. The order of keys does not matter, that of lists does,
  except in the fields that a policy names as sets.
- Integers of any size are exact; other numbers are compared as they are written: 1.0 and 1.00 are two.

Facts: of a duplicate key most readers keep the last and some the first (RFC 8259, section 4), so that two
readers of one body may see two patients. NaN and Infinity are no JSON at all.
"""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

MAX_DEPTH: Final = 32  # the contract's deepest request has six levels
_MARK: Final = "\0"  # stands before a number that is compared as written; a string that begins with it gets another

Value = dict[str, Any] | list[Any] | str | int | bool | None


class Unreadable(StrEnum):
    """Why a body has no canonical form: the reason that a bypass names."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    NOT_FINITE = "not_finite"
    NUMBER_TOO_LONG = "number_too_long"
    TOO_DEEP = "too_deep"
    NOT_X12 = "not_x12"


class NotCanonical(Exception):
    """The body cannot be read in exactly one way."""

    def __init__(self, reason: Unreadable) -> None:
        super().__init__(reason.value)
        self.reason = reason


class _Number(str):
    """A number with a fraction or an exponent, as it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRules:
    """How fields are compared. `ignored` holds dotted paths without indexes, the others hold names at any depth.

    `verbatim` strings keep every blank: they have a grammar of their own.
    """

    ignored: frozenset[str] = field(default_factory=frozenset)
    case_folded: frozenset[str] = field(default_factory=frozenset)
    sets: frozenset[str] = field(default_factory=frozenset)
    verbatim: frozenset[str] = field(default_factory=frozenset)


def canonical_json(body: bytes, rules: FieldRules) -> dict[str, Any]:
    """Return the meaning of a body. Raises NotCanonical."""
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise NotCanonical(Unreadable.NOT_UTF8) from None
    except json.JSONDecodeError:
        raise NotCanonical(Unreadable.NOT_JSON) from None
    except RecursionError:
        raise NotCanonical(Unreadable.TOO_DEEP) from None
    except ValueError:  # int() refuses thousands of digits
        raise NotCanonical(Unreadable.NUMBER_TOO_LONG) from None
    if not isinstance(value, dict):
        raise NotCanonical(Unreadable.NOT_AN_OBJECT)
    return _object(value, rules, "", 1)


def write(value: object) -> bytes:
    """Write a canonical value: equal values, equal bytes; unequal values, unequal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two canonical values differ; None stands for absent, null or empty."""

    path: str
    first: object
    second: object


def differences(first: object, second: object, path: str = "") -> Iterator[Difference]:
    """Name each place in which two canonical values differ, in order."""
    match first, second:
        case dict(), dict():
            for key in sorted(first.keys() | second.keys()):
                yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
        case list(), list():
            for index in range(max(len(first), len(second))):
                one = first[index] if index < len(first) else None
                two = second[index] if index < len(second) else None
                if index < min(len(first), len(second)):
                    yield from differences(one, two, f"{path}[{index}]")
                else:  # also a null that only one of them has: the order of a list counts, so does its length
                    yield Difference(f"{path}[{index}]", one, two)
        case _ if type(first) is not type(second) or first != second:
            yield Difference(path, first, second)
        case _:
            pass


def _object(pairs: dict[str, Any], rules: FieldRules, path: str, depth: int) -> dict[str, Any]:
    if depth >= MAX_DEPTH and pairs:
        raise NotCanonical(Unreadable.TOO_DEEP)
    meant: dict[str, Any] = {}
    for key, value in pairs.items():
        here = f"{path}.{key}" if path else key
        if here in rules.ignored:
            continue
        if type(value) is str and key not in rules.verbatim and value[:1] != _MARK:
            found: Any = _string(value, fold=key in rules.case_folded) or None  # nearly all there is: no further call
        else:
            found = _value(value, rules, key, here, depth + 1)
        if found is not None:
            meant[key] = found
    return meant


def _value(value: Value, rules: FieldRules, name: str, path: str, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    if depth > MAX_DEPTH:
        raise NotCanonical(Unreadable.TOO_DEEP)
    match value:
        case _Number():
            return _MARK + value
        case str() if name in rules.verbatim:
            return value or None
        case str():
            return _string(value, fold=name in rules.case_folded) or None
        case dict():
            return _object(value, rules, path, depth) or None
        case list():
            found = [_value(item, rules, name, path, depth + 1) for item in value]
            return (_set(found) if name in rules.sets else found) or None
        case _:
            return value


def _set(found: list[Any]) -> list[Any]:
    by_text = {write(item): item for item in found if item is not None}
    return [by_text[text] for text in sorted(by_text)]


def _string(text: str, *, fold: bool) -> str:
    if text.startswith(_MARK):
        return _MARK + text
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not text.isalnum():  # numbers, codes and dates: most strings have nothing to fold
        text = " ".join(text.split())
    return text.lower() if fold else text  # lower, not casefold: "Strauss" and "Strauß" stay two names


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with each key once. Raises NotCanonical."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical(Unreadable.DUPLICATE_KEY)
    return found


def not_finite(_: str) -> None:
    """Refuse NaN and Infinity. Raises NotCanonical."""
    raise NotCanonical(Unreadable.NOT_FINITE)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=without_duplicates,
    parse_constant=not_finite,
    parse_float=_Number,
)
