"""Say who asks, and give a token to whoever shows a secret.

Not in the order of steps: whoever asks is known before there is a policy that a step could carry out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from multidict import CIMultiDict

from gateway.callers.client import IssuerKeys
from gateway.callers.grant import Credentials, Unclear, read_request
from gateway.callers.identify import Callers, Identified, KeyWanted, Means, NotIdentified, Presented
from gateway.callers.tokens import LIFE_S, Tokens
from gateway.callers.turns import Turns
from gateway.errors import InvalidClient, IssuerUnavailable, Unauthenticated, error_of
from gateway.exchange import CORRELATION_ID, Exchange, Inbound, Reply
from gateway.operations import TOKEN_PATH
from gateway.policy.files import PolicySet

_NOT_KEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, 5.1
_BASIC: Final = {"WWW-Authenticate": 'Basic realm="eligibility-gateway"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where instants (seconds since 1970) and fresh ids come from."""

    wall_now: Callable[[], float]
    new_id: Callable[[], str]


class CallersStep:
    """After it, a request has its caller, or is refused."""

    def __init__(self, tokens: Tokens, keys: IssuerKeys, turns: Turns, sources: Sources) -> None:
        self._tokens = tokens
        self._turns = turns
        self._keys = keys
        self._sources = sources
        self._callers = Callers({}, tokens, {}, keys.keys)

    def adopt(self, policies: PolicySet) -> None:
        """Know these callers from now on, and no others."""
        self._keys.adopt(policies.issuers)
        self._turns.adopt(policies.callers)
        self._callers = Callers(policies.callers, self._tokens, policies.issuers, self._keys.keys)

    async def identify(self, exchange: Exchange) -> None:
        """Find the caller by what is presented. Raises Unauthenticated, and IssuerUnavailable where nobody can say."""
        inbound = exchange.inbound
        if inbound.certificate_ends_at <= self._sources.wall_now():  # after its handshake, on a connection that is kept
            raise Unauthenticated(headers={"WWW-Authenticate": "Bearer"})
        presented = Presented(
            inbound.headers.getall("Authorization", ()),
            inbound.headers.getall("x-api-key", ()),
            inbound.certificate_names,
        )
        found = self._callers.identify(presented, self._sources.wall_now())
        if isinstance(found, KeyWanted):
            are_known = await self._keys.look_again(found.issuer)
            found = self._callers.identify(presented, self._sources.wall_now())
            if isinstance(found, KeyWanted) and not are_known:
                raise IssuerUnavailable(retry_after_s=10)
        match found:
            case Identified(caller, by):
                exchange.caller, exchange.identified_by = caller, by
            case NotIdentified() | KeyWanted():
                raise Unauthenticated(headers={"WWW-Authenticate": "Bearer"})

    async def take_turn(self, exchange: Exchange) -> None:
        """Return when its caller, or one more stranger who asks for a token, may have a request under way.

        Raises TooManyRequests and Overloaded.
        """
        await self._turns.take(exchange)

    def grant(self, exchange: Exchange) -> Reply:
        """Return a token for the credentials that stand in the request. Raises the errors of RFC 6749, 5.2."""
        headers, body = exchange.inbound.headers, exchange.inbound.body
        match read_request(headers.get("Content-Type", ""), body, headers.getall("Authorization", ())):
            case Credentials() as shown:
                found = self._callers.having(shown.caller, shown.secrets)
                if found is None:
                    raise InvalidClient(headers=_NOT_KEPT | (_BASIC if shown.is_basic else {}))
            case Unclear(error):
                raise error_of(error)(headers=_NOT_KEPT)
        exchange.caller, digest = found
        exchange.identified_by = Means.SECRET
        token = self._tokens.issue(exchange.caller.name, digest, self._sources.wall_now(), self._sources.new_id())
        granted = {"access_token": token, "token_type": "bearer", "expires_in": LIFE_S}
        return Reply(
            status=200,
            reason="OK",
            headers=CIMultiDict(
                {**_NOT_KEPT, "Content-Type": "application/json", CORRELATION_ID: exchange.correlation_id}
            ),
            body=orjson.dumps(granted),
        )


def asks_for_token(inbound: Inbound) -> bool:
    """Whether the request is for a token: its body, not its head, says who asks."""
    return inbound.method == "POST" and inbound.raw_target == TOKEN_PATH
