"""How single values of a policy file are spelt.

Rules
- Durations are read once, here, and are seconds from then on.
- A header that the gateway itself answers for cannot be set or removed by a policy: a policy that could
  forge an identity would undo what the gateway promises.
"""

import hashlib
import math
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from gateway.operations import Found, OperationName, find

ANY: Final = "*"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # a token (RFC 9110, 5.6.2) without the underscore
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SUBTENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OF_NOTHING: Final = hashlib.sha256(b"").hexdigest()  # of a variable that was not set, perhaps
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAYER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")
_ROUTE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9._~!$&'()+,;=:@/-]*)(\*?)")

_CERTIFICATE_NAME = re.compile(r"dns:[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9])?|uri:[!-~]{1,251}")
_VISIBLE = re.compile(r"[!-~]{1,255}")
_ABSOLUTE = re.compile(r"/[^\x00]{1,4095}")
_SUBJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}/[!-~]{1,255}")
_RATE = re.compile(r"([1-9]\d{0,8})/(s|m|h)")

HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    },
)
# Whoever could set or remove one of these could forge an identity, break the framing or lose an answer.
PROTECTED_HEADERS: Final = HOP_BY_HOP | {
    *("authorization", "content-length", "expect", "host", "x-api-key"),
    *("x-optum-correlation-id", "x-optum-subtenant-id", "x-optum-tenant-id"),
}


def read_duration(value: object) -> object:
    """Turn `250ms`, `5s`, `2m`, `24h` or `30d` into seconds; leave anything else for the model to refuse."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        seconds = float(found[1]) * _UNIT_S[found[2]]
        if math.isfinite(seconds):
            return seconds
    raise ValueError("a duration such as 250ms, 5s, 2m, 24h or 30d")


def write_duration(seconds: float) -> str:
    """The shortest spelling of a duration: the largest unit that divides it."""
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNIT_S[unit] and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:.0f}{unit}"
    return f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms"


def _matching(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(expected)
        return value

    return AfterValidator(check)


def _settable(name: str) -> str:
    if name.lower() in PROTECTED_HEADERS:
        raise ValueError("a header that the gateway does not answer for itself")
    return name


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("an IANA time zone such as America/New_York") from None
    return name


Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    PlainSerializer(write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["5s", "125s", "24h"]}),
]
PositiveDuration = Annotated[Duration, Field(gt=0)]
HeaderName = Annotated[
    str, _matching(_HEADER_NAME, "a header name: letters, digits, hyphens"), AfterValidator(_settable)
]
HeaderValue = Annotated[str, _matching(_HEADER_VALUE, "a header value in visible ASCII, no blank at either end")]
CallerName = Annotated[str, _matching(_NAME, "a name of lower-case letters, digits and hyphens, at most 63")]
CallerPattern = Annotated[
    str,
    AfterValidator(lambda v: v if v == ANY or _NAME.fullmatch(v) else _refuse('a caller\'s name, or "*"')),
]
OperationPattern = Annotated[OperationName | Literal["*"], Field(union_mode="left_to_right")]
CallerOperation = Annotated[OperationName | Literal["forwarded", "*"], Field(union_mode="left_to_right")]
SubtenantId = Annotated[str, _matching(_SUBTENANT, "a subtenant id as Optum assigned it")]
Sha256 = Annotated[
    str,
    _matching(_SHA256, "64 lower-case hex digits: the SHA-256 of a caller's secret"),
    AfterValidator(lambda v: _refuse("the SHA-256 of a secret, not of nothing") if v == _OF_NOTHING else v),
]
PayerId = Annotated[str, _matching(_PAYER, "a payer's id: letters, digits, blanks, dots, hyphens, at most 80")]
TimeZone = Annotated[str, AfterValidator(_time_zone)]


def _refuse(expected: str) -> str:
    raise ValueError(expected)


def _route(value: str) -> str:
    found = _ROUTE.fullmatch(value)
    if found is None:
        raise ValueError('a method and a path such as "GET /rcm/eligibility/v1/payers" or one that ends in "/*"')
    if found[3] and not found[2].endswith("/"):
        raise ValueError('a "*" only after a slash')
    if any(segment in {".", ".."} for segment in found[2].split("/")):
        raise ValueError("a path without dot segments")
    if not found[3] and isinstance(find(found[1], found[2]), Found):
        raise ValueError("a path that is not already one of the nine operations")
    return value


Route = Annotated[str, AfterValidator(_route)]


def _jwks(value: str) -> str:
    if value.startswith("/") and "\0" not in value:
        return value
    parts = urlsplit(value if _VISIBLE.fullmatch(value) else "")  # which drops what nobody sees
    is_local = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if (parts.scheme != "https" and not is_local) or not parts.hostname or parts.username or parts.fragment:
        raise ValueError("an https:// URL without credentials, or the absolute path of a file")
    return value


CertificateName = Annotated[
    str, _matching(_CERTIFICATE_NAME, 'a name of a certificate: "dns:host.example.org" in lower case, or "uri:…"')
]
IssuerText = Annotated[str, _matching(_VISIBLE, "visible ASCII without blanks, at most 255")]
Jwks = Annotated[str, AfterValidator(_jwks)]
FilePath = Annotated[str, _matching(_ABSOLUTE, "the absolute path of a file")]
Subject = Annotated[str, _matching(_SUBJECT, 'an issuer\'s name, a slash and its subject: "cluster/system:…"')]


def read_rate(value: object) -> object:
    """Turn `50/s` or `600/m` into a number a second; leave anything else for the model to refuse."""
    if isinstance(value, str) and (found := _RATE.fullmatch(value)):
        rate = int(found[1]) / _UNIT_S[found[2]]
        if rate > 0:
            return rate
    raise ValueError("a number of requests above none in a second, a minute or an hour, such as 50/s or 600/m")


def write_rate(rate: float) -> str:
    """The shortest spelling of a rate: the smallest unit in which it is a whole number."""
    for unit in ("s", "m", "h"):
        if (count := rate * _UNIT_S[unit]) >= 1 and abs(count - round(count)) < 1e-6 * count:
            return f"{round(count)}/{unit}"
    return f"{rate:g}/s"


Rate = Annotated[
    float,
    BeforeValidator(read_rate),
    PlainSerializer(write_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_RATE.pattern}$", "examples": ["50/s", "600/m"]}),
]
