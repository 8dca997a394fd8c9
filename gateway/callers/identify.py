"""Who asks, by what the request presents.

Rules
- A caller is known by the SHA-256 of its secret, by a name in its client certificate, or by the subject of a token that
  a platform has issued. The secret itself is nowhere: not in a policy, not in memory beyond the request.
- In the place of its secret a caller may send a token that it got here for it.
- Exactly one secret or token may be presented. Two that differ are a refusal, whatever each of them is; so is one that
  is another caller's than the certificate.
- What is presented and belongs to nobody is a refusal, also where `anonymous` is allowed. Only where no caller has a
  secret at all is there nothing to be wrong about: then whatever is presented is ignored, and dropped. So it is with
  certificates.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import product
from typing import Final

from msgspec import Struct

from gateway.callers.issuers import Keys, Proven, UnknownKey
from gateway.callers.signed import take_apart
from gateway.callers.tokens import Tokens
from gateway.policy.callers import ANONYMOUS, Caller, Issuer

_BEARER: Final = "bearer "


class Means(StrEnum):
    """By what a caller was identified."""

    SECRET = "secret"  # noqa: S105 - the name of a means
    TOKEN = "token"  # noqa: S105
    CERTIFICATE = "certificate"
    PLATFORM = "platform"
    ANONYMOUS = "anonymous"


class Presented(Struct, frozen=True):
    """The values of all `Authorization` and `x-api-key` headers, and the names in the certificate."""

    authorizations: Sequence[str] = ()
    api_keys: Sequence[str] = ()
    certificate_names: Sequence[str] = ()

    def __repr__(self) -> str:
        return "Presented()"


class Identified(Struct, frozen=True):
    """The request is this caller's."""

    caller: Caller
    by: Means


class NotIdentified(Struct, frozen=True):
    """The request is nobody's."""


class KeyWanted(Struct, frozen=True):
    """The request cannot be judged by the keys of this issuer that are known."""

    issuer: str


class Callers:
    """The declared callers, ready to be looked up by what a request presents; `keys_of` has an issuer's by its name."""

    def __init__(
        self,
        callers: Mapping[str, Caller],
        tokens: Tokens,
        issuers: Mapping[str, Issuer],
        keys_of: Callable[[str], Keys],
    ) -> None:
        self._callers = callers
        self._tokens = tokens
        self._keys_of = keys_of
        self._issuers = {issuer.issuer: (name, issuer) for name, issuer in issuers.items()}
        entries = [(caller, caller.entry) for caller in callers.values()]
        self._by_digest = {digest: caller for caller, entry in entries for digest in entry.digests}
        self._by_certificate = {name: caller for caller, entry in entries for name in entry.certificates}
        self._by_subject = {subject: caller for caller, entry in entries for subject in entry.subjects}
        self._anonymous = callers.get(ANONYMOUS)

    def identify(self, presented: Presented, now: float) -> Identified | NotIdentified | KeyWanted:
        """Decide by what is presented; `now` in seconds since 1970."""
        has_secrets = bool(self._by_digest or self._by_subject)
        shown = {*map(_secret, presented.authorizations), *presented.api_keys} if has_secrets else set[str]()
        names = presented.certificate_names if self._by_certificate else ()
        certified = {name: caller for name in names if (caller := self._by_certificate.get(name)) is not None}
        owners = {caller.name for caller in certified.values()}
        if len(shown) > 1 or len(owners) > 1:
            return NotIdentified()
        if not shown:
            for caller in certified.values():
                return Identified(caller, Means.CERTIFICATE)
            is_nobodys = bool(names) or self._anonymous is None
            return NotIdentified() if is_nobodys else self._as_anonymous()
        found = self._by_secret(shown.pop(), now)
        if isinstance(found, Identified) and owners and found.caller.name not in owners:
            return NotIdentified()
        return found

    def having(self, name: str, secrets: Sequence[str]) -> tuple[Caller, str] | None:
        """Return the caller of this name and the digest of its secret, if one of these is its secret."""
        caller = self._callers.get(name)
        if caller is None:
            return None
        pairs = product(map(_digest, secrets), caller.entry.digests)
        return next(((caller, known) for shown, known in pairs if hmac.compare_digest(shown, known)), None)

    def _as_anonymous(self) -> Identified | NotIdentified:
        return Identified(self._anonymous, Means.ANONYMOUS) if self._anonymous is not None else NotIdentified()

    def _by_secret(self, secret: str, now: float) -> Identified | NotIdentified | KeyWanted:
        digest = _digest(secret)
        caller = self._by_digest.get(digest)
        if caller is not None:
            # Looking a digest up tells a timer nothing about the secret; the comparison is constant all the same.
            is_its_own = any(hmac.compare_digest(digest, known) for known in caller.entry.digests)
            return Identified(caller, Means.SECRET) if is_its_own else NotIdentified()
        caller = self._tokens.bearer(secret, self._callers, now)
        return Identified(caller, Means.TOKEN) if caller is not None else self._by_platform(secret, now)

    def _by_platform(self, secret: str, now: float) -> Identified | NotIdentified | KeyWanted:
        claimed = take_apart(secret) if self._issuers else None
        if claimed is None or claimed.text("iss") not in self._issuers:
            return NotIdentified()
        name, issuer = self._issuers[claimed.text("iss")]
        match self._keys_of(name).judge(claimed, issuer, now):
            case Proven(subject):
                caller = self._by_subject.get(f"{name}/{subject}")
                return Identified(caller, Means.PLATFORM) if caller is not None else NotIdentified()
            case UnknownKey():
                return KeyWanted(name)
            case _:
                return NotIdentified()


def _digest(secret: str) -> str:
    try:
        return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    except UnicodeEncodeError:  # JSON can spell what no header can hold
        return ""


def _secret(authorization: str) -> str:
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return f"\0{authorization}"  # another scheme: presented, and nobody's, for no secret holds a NUL
