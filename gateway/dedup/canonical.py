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

import msgspec
import orjson

MAX_BYTES: Final = 65_536  # a request has some KB; to read a megabyte would hold up everybody else
MAX_DEPTH: Final = 32  # the contract's deepest request has six levels
_MARKS_IN_A_ROW: Final = 30  # no language needs more (Unicode, UAX 15: the stream-safe text format)
_EMPTY: Final[tuple[object, ...]] = ("", [], {})
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
    TOO_LONG = "too_long"
    NOT_STREAM_SAFE = "not_stream_safe"
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
    folded: frozenset[str] = field(init=False)  # whose case does not count, less those of which every sign does
    text: bytes = field(init=False)  # the same text for the same rules

    def __post_init__(self) -> None:
        object.__setattr__(self, "folded", self.case_folded - self.verbatim)
        rules = (self.ignored, self.case_folded, self.sets, self.verbatim)
        object.__setattr__(self, "text", orjson.dumps([sorted(rule) for rule in rules]))


def canonical_json(body: bytes, rules: FieldRules) -> dict[str, Any]:
    """Return the meaning of a body. Raises NotCanonical."""
    if len(body) > MAX_BYTES:
        raise NotCanonical(Unreadable.TOO_LONG)
    value = read_object(body)
    # Hardly any body has as many brackets as there may be levels, so hardly any has to be measured.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_depth(value, MAX_DEPTH)
    for path in rules.ignored:
        _leave_out(value, path.split("."))
    _object(value, rules)
    return value


def write(value: object) -> bytes:
    """Write a canonical value: equal values, equal bytes; unequal values, unequal bytes."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers beyond 64 bits, lone surrogates: what JSON can say and UTF-8 cannot
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


def read_object(body: bytes) -> dict[str, Any]:
    """Read an object that has one reading. Raises NotCanonical."""
    value = _read_plain(body)
    return _read(body) if value is None else value


def _read_plain(body: bytes) -> dict[str, Any] | None:
    """Return what `_read` would at a third of its price, or None where only `_read` can tell.

    Without escapes and fractions, a body that is written again has as many colons as it came with, unless a key stood
    there twice.
    """
    if not body.isascii() or b"\\" in body:
        return None
    try:
        value = _PLAIN.decode(body)
        is_whole = orjson.dumps(value).count(b":") == body.count(b":")
    except (msgspec.DecodeError, orjson.JSONEncodeError, RecursionError):
        return None
    return value if is_whole else None


def _read(body: bytes) -> dict[str, Any]:
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
    return value


def _object(found: dict[str, Any], rules: FieldRules) -> None:
    """Give each value its meaning, in place; take out those that mean nothing."""
    folded = rules.folded
    empty: list[str] = []
    for key, value in found.items():
        kind = type(value)
        if kind is str:
            # What has nothing to trim, to fold or to compose: nearly every value there is. Of all blanks only the
            # space is printable.
            if value.isascii() and (
                value.isalnum() or (value.isprintable() and value[:1] > " " and value[-1] > " " and "  " not in value)
            ):
                if key in folded:
                    found[key] = value.lower()
                continue
            meaning: Any = value if key in rules.verbatim else _string(value, fold=key in folded)
        elif kind is dict:
            _object(value, rules)
            meaning = value
        elif kind is list:
            meaning = _list(value, rules, key)
        else:
            meaning = _MARK + value if kind is _Number else value
        if meaning is None or meaning in _EMPTY:
            empty.append(key)
        elif meaning is not value:
            found[key] = meaning
    for key in empty:
        del found[key]


def _list(values: list[Any], rules: FieldRules, name: str) -> list[Any]:
    is_folded = name in rules.folded
    found = [
        value
        if type(value) is str and value.isalnum() and value.isascii() and not is_folded
        # What stands in a list is as its field would have it; what means nothing keeps its place.
        else _field(value, rules, name)
        for value in values
    ]
    return _set(found) if name in rules.sets else found


def _field(value: Any, rules: FieldRules, name: str) -> Any:  # noqa: ANN401 - any JSON value
    field_of = {name: value}
    _object(field_of, rules)
    return field_of.get(name)


def _set(found: list[Any]) -> list[Any]:
    """Each member once, in an order that depends on the members alone."""
    members = [member for member in found if member is not None]
    if all(type(member) is str for member in members):
        return sorted({*members})
    by_text = {write(member): member for member in members}
    return [by_text[text] for text in sorted(by_text)]


def _string(text: str, *, fold: bool) -> str:
    if not text.isascii():
        text = _composed(text)
    text = " ".join(text.split())
    if fold:
        text = text.lower()  # not casefold: "Strauss" and "Strauß" stay two names
    return _MARK + text if text.startswith(_MARK) else text


def _composed(text: str) -> str:
    """Return the composed form (NFC); marks in endless rows would be sorted for minutes."""
    if len(text) > _MARKS_IN_A_ROW:
        row = 0
        for sign in text:
            row = row + 1 if unicodedata.combining(sign) else 0
            if row > _MARKS_IN_A_ROW:
                raise NotCanonical(Unreadable.NOT_STREAM_SAFE)
    return unicodedata.normalize("NFC", text)


def _leave_out(value: Any, path: list[str]) -> None:  # noqa: ANN401 - any JSON value
    if isinstance(value, list):
        for item in value:
            _leave_out(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            del value[path[0]]
        else:
            _leave_out(value[path[0]], path[1:])


def _check_depth(value: object, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise NotCanonical(Unreadable.TOO_DEEP)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with each key once. Raises NotCanonical."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical(Unreadable.DUPLICATE_KEY)
    return found


def _not_finite(_: str) -> None:
    """Refuse NaN and Infinity. Raises NotCanonical."""
    raise NotCanonical(Unreadable.NOT_FINITE)


def _no_fraction(_: str) -> None:
    """Leave numbers that are compared as written to `_read`. Raises DecodeError."""
    raise msgspec.DecodeError


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_constant=_not_finite,
    parse_float=_Number,
)
_PLAIN: Final = msgspec.json.Decoder(dict[str, Any], float_hook=_no_fraction)
