"""Who asks, by what the request presents.

Rules
- A caller is known by the SHA-256 of its secret. The secret itself is nowhere: not in a policy, not in memory
  beyond the request.
- Exactly one secret may be presented. Two that differ are a refusal, whatever each of them is.
- In the place of its secret a caller may send a token that it got for it.
- A secret that belongs to nobody is a refusal, also where `anonymous` is allowed. Only where no caller has a
  secret at all is there nothing to be wrong about: then whatever is presented is ignored, and dropped.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from itertools import product

from msgspec import Struct

from gateway.callers.tokens import Tokens
from gateway.policy.callers import ANONYMOUS, Caller

_BEARER = "bearer "


class Identified(Struct, frozen=True):
    """The request is this caller's."""

    caller: Caller


class NotIdentified(Struct, frozen=True):
    """The request is nobody's."""


class Callers:
    """The declared callers, ready to be looked up by what a request presents."""

    def __init__(self, callers: Mapping[str, Caller], tokens: Tokens) -> None:
        self._callers = callers
        self._tokens = tokens
        self._by_digest = {digest: caller for caller in callers.values() for digest in caller.entry.digests}
        self._anonymous = callers.get(ANONYMOUS)

    def identify(
        self, authorizations: Sequence[str], api_keys: Sequence[str], now: float
    ) -> Identified | NotIdentified:
        """Decide by the values of all `Authorization` and `x-api-key` headers; `now` in seconds since 1970."""
        presented = {*map(_secret, authorizations), *api_keys} if self._by_digest else ()
        if not presented:
            return Identified(self._anonymous) if self._anonymous is not None else NotIdentified()
        if len(presented) > 1:
            return NotIdentified()
        secret = presented.pop()
        digest = _digest(secret)
        caller = self._by_digest.get(digest)
        if caller is None:
            caller = self._tokens.bearer(secret, self._callers, now)
        # Looking a digest up tells a timer nothing about the secret; the comparison is constant all the same.
        elif not any(hmac.compare_digest(digest, known) for known in caller.entry.digests):
            caller = None
        return Identified(caller) if caller is not None else NotIdentified()

    def having(self, name: str, secrets: Sequence[str]) -> tuple[Caller, str] | None:
        """Return the caller of this name and the digest of its secret, if one of these is its secret."""
        caller = self._callers.get(name)
        if caller is None:
            return None
        pairs = product(map(_digest, secrets), caller.entry.digests)
        return next(((caller, known) for shown, known in pairs if hmac.compare_digest(shown, known)), None)


def _digest(secret: str) -> str:
    try:
        return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    except UnicodeEncodeError:  # JSON can spell what no header can hold
        return ""


def _secret(authorization: str) -> str:
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return f"\0{authorization}"  # another scheme: presented, and nobody's, for no secret holds a NUL
