"""A signed token (JWS, RFC 7515) taken apart, before anything of it is believed.

Rule: what a token says before its signature was checked decides nothing but which keys are tried.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import CompactSignature, extract_compact, validate_compact
from msgspec import Struct

_BEGINS: Final = "eyJ"  # what every JSON object begins with, in base64
_MAX_CHARS: Final = 8190  # a header field's own limit; a Kubernetes token has 1,200


class Claimed(Struct, frozen=True):
    """What a token says of itself; `digest` is the same for the same token alone."""

    signature: CompactSignature
    head: Mapping[str, Any]
    claims: Mapping[str, Any]
    digest: bytes

    def text(self, claim: str) -> str:
        """Return a claim that is text, or nothing."""
        value = self.claims.get(claim)
        return value if isinstance(value, str) else ""

    def is_signed(self, key: Key, algorithms: list[str]) -> bool:
        """Whether this key has signed it, by one of these algorithms."""
        try:
            return validate_compact(self.signature, key, algorithms=algorithms)
        except (JoseError, ValueError, TypeError):
            return False

    def __repr__(self) -> str:
        return "Claimed()"


def take_apart(token: str) -> Claimed | None:
    """Read a token without believing it; None: it is none."""
    if not token.startswith(_BEGINS) or len(token) > _MAX_CHARS or not token.isascii():
        return None
    try:
        found = extract_compact(token.encode())
        claims = json.loads(found.payload)
    except (JoseError, ValueError, RecursionError):
        return None
    head: object = found.protected
    if not isinstance(claims, dict) or not isinstance(head, dict):
        return None
    return Claimed(found, head, claims, sha256(token.encode()).digest())
