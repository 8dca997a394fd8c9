"""A request for a token, as the upstream's own endpoint takes it, and in the two other ways that clients know.

Rules (RFC 6749)
- The credentials come in JSON, as in the upstream's contract, in a form, or as Basic (2.3.1): in exactly one of them.
- `grant_type` is `client_credentials`; each parameter comes once (3.2). Others are ignored.
- What is refused is refused in the standard's words (5.2), and says nothing of what was sent.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from msgspec import Struct

from gateway.errors import InvalidTokenRequest, UnsupportedGrantType

GRANT_TYPE: Final = "client_credentials"
_FORM: Final = "application/x-www-form-urlencoded"
_BASIC: Final = "basic "
MAX_BYTES: Final = 8192
_MAX_FIELDS: Final = 16


class Credentials(Struct, frozen=True):
    """Who says to be which caller; `secrets` are the ways in which its secret can be read."""

    caller: str
    secrets: tuple[str, ...]
    is_basic: bool = False

    def __repr__(self) -> str:
        return "Credentials()"


class Unclear(Struct, frozen=True):
    """The request cannot be taken; `error` is one of the standard's codes (RFC 6749, 5.2)."""

    error: str


def read_request(content_type: str, body: bytes, authorizations: Sequence[str]) -> Credentials | Unclear:
    """Read the credentials of a request for a token."""
    if len(body) > MAX_BYTES or len(authorizations) > 1:
        return Unclear(InvalidTokenRequest.code)
    fields = _form(body) if content_type.partition(";")[0].strip().lower() == _FORM else _json(body)
    basic = _basic(authorizations[0]) if authorizations else None
    if fields is None or (authorizations and basic is None):
        return Unclear(InvalidTokenRequest.code)
    in_body = fields.get("client_id"), fields.get("client_secret")
    if basic is not None and (in_body[1] is not None or in_body[0] not in {None, basic.caller}):
        return Unclear(InvalidTokenRequest.code)
    if "grant_type" not in fields:
        return Unclear(InvalidTokenRequest.code)
    if fields["grant_type"] != GRANT_TYPE:
        return Unclear(UnsupportedGrantType.code)
    if basic is not None:
        return basic
    caller, secret = in_body
    return Credentials(caller, (secret,)) if caller and secret else Unclear(InvalidTokenRequest.code)


def _json(body: bytes) -> Mapping[str, str] | None:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if not isinstance(document, dict):
        return None
    return {name: value for name, value in document.items() if isinstance(value, str)}


def _form(body: bytes) -> Mapping[str, str] | None:
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(
            text, strict_parsing=True, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None


def _basic(authorization: str) -> Credentials | None:
    """Read Basic. The standard has both parts form-encoded, and many clients do not: each reading is tried."""
    if authorization[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        text = base64.b64decode(authorization[len(_BASIC) :].strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    caller, colon, secret = text.partition(":")
    if not colon or not caller or not secret:
        return None
    return Credentials(unquote_plus(caller), tuple({secret: None, unquote_plus(secret): None}), is_basic=True)
