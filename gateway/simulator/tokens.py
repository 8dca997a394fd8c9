"""The token endpoint's judgement, and the tokens it has issued.

Rules
- A token is accepted until its second, unless it was revoked; `now_s` is always an argument.
- What `expires_in` promises is what is kept: a whole number of real seconds, at least one.
- A client id is a tenant; its tenant id follows from it.
"""

import hmac
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gateway.simulator.inquiry import Rejected, read_object

_TENANTS: Final = uuid.UUID("6f0c1f5e-5a0f-4b0e-9f0a-5f1d2c3b4a59")
_MOST_TOKENS: Final = 10_000
"""Far above any fleet; a caller that fetches one per request must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The client may have a token."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The client may not, in the words of RFC 6749."""

    status: int
    error: str
    description: str


def judge(body: bytes, credentials: tuple[tuple[str, str], ...]) -> Granted | Refused:
    """Judge a token request."""
    document = read_object(body)
    if isinstance(document, Rejected):
        return Refused(400, "invalid_request", document.problems[0])
    client_id, secret, grant = (document.get(name) for name in ("client_id", "client_secret", "grant_type"))
    if not (isinstance(client_id, str) and isinstance(secret, str) and isinstance(grant, str)):
        return Refused(400, "invalid_request", "client_id, client_secret and grant_type are required strings")
    if grant != "client_credentials":
        return Refused(400, "unsupported_grant_type", "only client_credentials is supported")
    # surrogatepass: JSON can spell a lone surrogate, and no secret is worth an exception.
    given = (client_id.encode("utf-8", "surrogatepass"), secret.encode("utf-8", "surrogatepass"))
    for known_id, known_secret in credentials:
        if hmac.compare_digest(given[0], known_id.encode()) and hmac.compare_digest(given[1], known_secret.encode()):
            return Granted(known_id)
    return Refused(401, "invalid_client", "the client id or its secret is not valid")


def tenant_of(client_id: str) -> str:
    """Give the tenant id of a client."""
    return str(uuid.uuid5(_TENANTS, client_id))


class Tokens:
    """The tokens that are out there. They outlive a reset: their holders cannot know of it."""

    __slots__ = ("_issued",)

    def __init__(self) -> None:
        self._issued: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def issue(self, token: str, client_id: str, expires_at_s: float) -> None:
        """Remember a token; the oldest is forgotten when there are too many."""
        self._issued[token] = (client_id, expires_at_s)
        if len(self._issued) > _MOST_TOKENS:
            self._issued.popitem(last=False)

    def client_of(self, token: str, now_s: float) -> str | None:
        """Say whose token it is; None if it is not (or no longer) accepted."""
        client_id, expires_at_s = self._issued.get(token, ("", 0.0))
        return client_id if now_s < expires_at_s else None

    def revoke(self, token: str) -> None:
        """Void one token."""
        self._issued.pop(token, None)

    def revoke_all(self) -> int:
        """Void every token; say how many there were."""
        count = len(self._issued)
        self._issued.clear()
        return count


def bearer(authorization: str | None) -> str | None:
    """Read the token of an Authorization header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
