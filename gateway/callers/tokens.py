"""The gateway's own tokens: what a caller gets for its secret, and sends in the place of it.

Rules
- A token names its caller and nothing else: what that caller may do is looked up for each request.
- It is signed with a key that is derived from the key ring and from the digest of the secret for which it was issued.
  So every replica knows it, nothing is stored, and it ends with its secret, its caller or its key.
- HMAC-SHA-256 and no other algorithm, whatever a token says of itself (RFC 8725, 3.1).
- Every claim must be there, and be what it would be if it had been issued here: issuer, subject, two instants.
"""

import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, TypeVar

from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.callers.signed import take_apart
from gateway.policy.callers import Caller

LIFE_S: Final = 3600  # as long as the upstream's: whoever was written for those renews these in time
ISSUER: Final = "eligibility-gateway"
_ALGORITHM: Final = "HS256"
_TYPE: Final = "at+jwt"  # RFC 9068, 2.1: no other kind of token is taken for one of these
_SKEW_S: Final = 60  # between the clocks of two replicas

Keys = Sequence[tuple[str, bytes]]
T = TypeVar("T")


class Tokens:
    """Issues tokens, and knows whose they are. `keys`: kid and 32 bytes; the first one signs."""

    def __init__(self, keys: Keys) -> None:
        self._keys = dict(keys)
        self._signing_kid = keys[0][0]

    def issue(self, caller: str, digest: str, now: float, token_id: str) -> str:
        """Return a token for a caller that has shown the secret of this digest; `now` in seconds since 1970."""
        issued_at = int(now)
        claims = {"iss": ISSUER, "sub": caller, "iat": issued_at, "exp": issued_at + LIFE_S, "jti": token_id}
        header = {"alg": _ALGORITHM, "typ": _TYPE, "kid": self._signing_kid}
        key = OctKey.import_key(_key(self._keys[self._signing_kid], digest))
        return jwt.encode(header, claims, key, algorithms=[_ALGORITHM])

    def bearer(self, token: str, callers: Mapping[str, Caller], now: float) -> Caller | None:
        """Return the caller that a token names, if it was issued here, for a secret that is still accepted, in time."""
        found = take_apart(token)
        if found is None or found.head.get("typ") != _TYPE:
            return None
        key, caller = _known(self._keys, found.head.get("kid")), _known(callers, found.claims.get("sub"))
        if key is None or caller is None or not _is_in_time(found.claims, now):
            return None
        keys = (OctKey.import_key(_key(key, digest)) for digest in caller.entry.digests)
        return caller if any(found.is_signed(one, [_ALGORITHM]) for one in keys) else None


def _known(those: Mapping[str, T], name: object) -> T | None:
    return those.get(name) if isinstance(name, str) else None


def _key(key: bytes, digest: str) -> bytes:
    return hmac.new(key, digest.encode(), sha256).digest()


def _is_in_time(claims: Mapping[str, object], now: float) -> bool:
    issued_at, expires_at = claims.get("iat"), claims.get("exp")
    return (
        claims.get("iss") == ISSUER
        and type(issued_at) is int
        and type(expires_at) is int
        and issued_at - _SKEW_S <= now < expires_at <= issued_at + LIFE_S
    )
