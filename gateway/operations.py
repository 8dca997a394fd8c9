"""The nine operations of the Enhanced Eligibility API: method, path, scope.

Rules
- An operation is found by method and raw path, byte for byte: nothing is decoded, normalised or
  lower-cased first, so what is matched here is exactly what is sent upstream.
- A path id is one segment. Dot segments and encoded slashes (also overlong ones), backslashes, dots or controls never
  match: whoever decodes them later would see another path than the one that was judged here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

BASE_PATH: Final = "/rcm/eligibility/v1"
TOKEN_PATH: Final = "/apip/auth/v2/token"  # noqa: S105 - a path, not a secret


class OperationName(StrEnum):
    """The names that policies, metrics, logs and docs use."""

    SUBMIT_ELIGIBILITY = "submit_eligibility"
    SUBMIT_ELIGIBILITY_X12 = "submit_eligibility_x12"
    LIST_TRANSACTIONS = "list_transactions"
    GET_TRANSACTION = "get_transaction"
    SUBMIT_DISCOVERY = "submit_discovery"
    SUBMIT_DISCOVERY_X12 = "submit_discovery_x12"
    LIST_DISCOVERIES = "list_discoveries"
    GET_DISCOVERY = "get_discovery"
    HEALTHCHECK = "healthcheck"


# The operations that ask a payer about a patient: each is paid for, and its answer may stand for a while.
QUESTIONS: Final = frozenset({OperationName.SUBMIT_ELIGIBILITY, OperationName.SUBMIT_ELIGIBILITY_X12})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the upstream's contract. `path` is a template; `{id}` is one segment."""

    name: OperationName
    method: str
    path: str
    scope: str


_TABLE: Final = (
    (OperationName.SUBMIT_ELIGIBILITY, "POST", "", "create_txn"),
    (OperationName.SUBMIT_ELIGIBILITY_X12, "POST", "/real-time/x12", "create_txn"),
    (OperationName.LIST_TRANSACTIONS, "GET", "/transactions", "read_txn"),
    (OperationName.GET_TRANSACTION, "GET", "/transactions/{id}", "read_txn"),
    (OperationName.SUBMIT_DISCOVERY, "POST", "/coverage-discovery", "create_coveragediscovery"),
    (OperationName.SUBMIT_DISCOVERY_X12, "POST", "/coverage-discovery/x12", "create_coveragediscovery"),
    (OperationName.LIST_DISCOVERIES, "GET", "/coverage-discovery", "read_coveragediscovery"),
    (OperationName.GET_DISCOVERY, "GET", "/coverage-discovery/{id}", "read_coveragediscovery"),
    (OperationName.HEALTHCHECK, "GET", "/healthcheck", "read_healthcheck"),
)

OPERATIONS: Final[Mapping[OperationName, Operation]] = MappingProxyType(
    {
        name: Operation(name=name, method=method, path=BASE_PATH + path, scope=scope)
        for name, method, path, scope in _TABLE
    },
)


class Found(Struct, frozen=True):
    """The request is this operation."""

    operation: Operation


class WrongMethod(Struct, frozen=True):
    """The path belongs to the contract, the method does not: `allowed` is sorted."""

    allowed: tuple[str, ...]


class UnknownPath(Struct, frozen=True):
    """The path is none of the contract's."""


Lookup = Found | WrongMethod | UnknownPath

_ID_SEGMENT = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%(?!2[EeFf]|5[Cc]|[01]|7[Ff]|[Cc][01]|[Ee]0%[89]|[Ff]0%8)[0-9A-Fa-f]{2})+"
)
_EXACT: Final[Mapping[str, Mapping[str, Operation]]] = MappingProxyType(
    {
        path: MappingProxyType({o.method: o for o in OPERATIONS.values() if o.path == path})
        for path in {o.path for o in OPERATIONS.values() if "{id}" not in o.path}
    },
)
_BY_ID: Final[Mapping[str, Mapping[str, Operation]]] = MappingProxyType(
    {o.path.removesuffix("{id}"): MappingProxyType({o.method: o}) for o in OPERATIONS.values() if "{id}" in o.path},
)


def find(method: str, raw_path: str) -> Lookup:
    """Say which operation a method and a raw path (no query) are.

    `/coverage-discovery/x12` is a path of its own: read with GET it is a wrong method, not the id "x12".
    """
    methods = _EXACT.get(raw_path)
    if methods is None:
        parent, slash, segment = raw_path.rpartition("/")
        if _is_id(segment):
            methods = _BY_ID.get(parent + slash)
    if methods is None:
        return UnknownPath()
    operation = methods.get(method)
    if operation is None:
        return WrongMethod(tuple(sorted(methods)))
    return Found(operation)


def is_disguised(raw_path: str) -> bool:
    """Whether a path that is no operation becomes one for whoever reads it generously.

    Percent-encoding undone, parameters dropped, case and repeated slashes ignored (RFC 3986, 6.2.2).
    """
    plain = "/".join(segment.partition(";")[0] for segment in unquote(raw_path).lower().split("/"))
    tidied = re.sub(r"/{2,}", "/", plain).rstrip("/")
    return tidied != raw_path and not isinstance(find("", tidied), UnknownPath)


def is_dot_segment(segment: str) -> bool:
    """Whether a segment is "." or "..", also with path parameters: some servers drop those before they resolve dots."""
    return segment.partition(";")[0] in {".", ".."}


def _is_id(segment: str) -> bool:
    return not is_dot_segment(segment) and _ID_SEGMENT.fullmatch(segment) is not None
