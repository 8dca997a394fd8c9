"""Tokens of platforms that vouch for a caller, such as a Kubernetes cluster's (JWT, RFC 7519; RFC 8725).

Rules
- Signed with a published key, by an algorithm that needs one: never `none`, never a secret that both sides know.
- A key is for one kind of algorithm, whatever the token says of itself; RSA keys have 2,048 bits at least.
- Issuer, audience, subject and an end must be there and be right; a token without an end is refused.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from msgspec import Struct

from gateway.callers.signed import Claimed
from gateway.policy.callers import Issuer

_ALGORITHMS: Final[Mapping[type[Key], tuple[str, ...]]] = {
    RSAKey: ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ECKey: ("ES256", "ES384", "ES512"),
    OKPKey: ("Ed25519",),
}
_KINDS: Final = frozenset({"RSA", "EC", "OKP"})
_MIN_BITS: Final = {"RSA": 2048}
_MAX_KEYS: Final = 100
_MAX_REMEMBERED: Final = 10_000
_SKEW_S: Final = 60
_NEVER: Final = 1e15
_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})


class Proven(Struct, frozen=True):
    """The token is good: the issuer vouches for this subject."""

    subject: str


class UnknownKey(Struct, frozen=True):
    """The token was signed by no key that the issuer had published when it was last asked."""


class Wrong(Struct, frozen=True):
    """The token is not good, whatever keys there are."""


class Keys:
    """What an issuer has published. A token that was proven once is not proven again: that costs 0.2 ms."""

    def __init__(self, published: Iterable[Mapping[str, Any]] = ()) -> None:
        usable = [key for document in published if (key := _usable(document)) is not None]
        self._keys = usable[:_MAX_KEYS]
        self._proven: dict[bytes, str] = {}

    @classmethod
    def read(cls, document: bytes) -> "Keys | None":
        """Read a JWK Set (RFC 7517, 5); None: it is none. One without a key that can be used has withdrawn them all."""
        try:
            keys = json.loads(document)["keys"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return cls(one for one in keys if isinstance(one, dict)) if isinstance(keys, list) else None

    def __len__(self) -> int:
        return len(self._keys)

    def judge(self, token: Claimed, issuer: Issuer, now: float) -> Proven | UnknownKey | Wrong:
        """Say whether the issuer vouches for the token's subject; `now` in seconds since 1970."""
        subject, kid = token.text("sub"), token.head.get("kid")
        if not subject or not isinstance(kid, str | None) or not _is_access_token(token.head):
            return Wrong()
        if not _is_meant(token.claims, issuer) or not _is_in_time(token.claims, now):
            return Wrong()
        if self._proven.get(token.digest) == subject:
            return Proven(subject)
        # Without a name for its key, a token is tried with the only one there is.
        tried = [key for key in self._keys if key.kid == kid] if kid is not None else self._keys
        if not tried:
            return UnknownKey()
        if len(tried) > 1 and kid is None:
            return Wrong()
        if not any(_is_signed(token, key) for key in tried):
            return UnknownKey()  # another key of the same name, perhaps
        if len(self._proven) >= _MAX_REMEMBERED:
            self._proven.clear()
        self._proven[token.digest] = subject
        return Proven(subject)


def _usable(document: Mapping[str, Any]) -> Key | None:
    kind, modulus = document.get("kty"), document.get("n", "")
    if document.get("use", "sig") != "sig" or kind not in _KINDS or len(str(modulus)) * 6 < _MIN_BITS.get(kind, 0):
        return None
    try:
        key = JWKRegistry.import_key(dict(document))
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if type(key) in _ALGORITHMS else None


def _is_signed(token: Claimed, key: Key) -> bool:
    allowed = [name for name in _ALGORITHMS[type(key)] if key.alg is None or name == key.alg]
    return bool(allowed) and token.is_signed(key, allowed)


def _is_access_token(head: Mapping[str, Any]) -> bool:
    """Whether it is no token for something else, such as a logout (RFC 8725, 3.11)."""
    kind = head.get("typ", "")
    return isinstance(kind, str) and kind.lower() in _TYPES


def _is_meant(claims: Mapping[str, Any], issuer: Issuer) -> bool:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    return claims.get("iss") == issuer.issuer and issuer.audience in audiences


def _is_in_time(claims: Mapping[str, Any], now: float) -> bool:
    ends, *begins = (_instant(claims.get(name, default)) for name, default in (("exp", None), ("nbf", 0), ("iat", 0)))
    return all(begin - _SKEW_S <= now for begin in begins) and now < ends


def _instant(claim: object) -> float:
    """Return a NumericDate; what is none compares with nothing, and so no token with it is in time."""
    return float(claim) if type(claim) in {int, float} and abs(claim) < _NEVER else math.nan  # type: ignore[arg-type] # a number
