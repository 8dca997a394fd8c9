"""Carry out the `token:` clause: put a good token on what goes out, and void the one that was refused.

Order of places: memory, then Redis, then the issuer under a lease. However many requests and replicas
need a token at once, one of them asks the issuer and the others hear from it.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.errors import CredentialsRefused, TokenUnavailable
from gateway.exchange import Exchange, Forward, Outbound, Reply
from gateway.problem import GatewayError
from gateway.store import StoreUnavailable
from gateway.token.client import TokenClient
from gateway.token.life import (
    Answer,
    Cause,
    Fetch,
    Issued,
    NotIssued,
    Token,
    Use,
    UseAndRefresh,
    backoff_s,
    begin,
    next_move,
    usable_life_s,
)
from gateway.token.store import Blocked, Claim, Lead, Stored, TokenStore, Wait

_UNAUTHORIZED: Final = 401
_WAIT_MAX_S: Final = 20.0  # for a token, all in all: two leases, the first of which may have lost its owner
_CLAIM_ATTEMPTS: Final = 2
_POLL_FIRST_S: Final = 0.02
_POLL_MAX_S: Final = 0.25
_DISTRUST_S: Final = 5.0


class FetchResult(StrEnum):
    """What came of asking the issuer: a closed set, for the counter."""

    ISSUED = "issued"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where instants, chance and fresh ids come from, and who is told of every fetch."""

    now: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    on_fetch: Callable[[FetchResult], None]


class TokenNotIssued(Exception):
    """There is no token; `answer` says why, and `wait_s` for how long nobody asks again."""

    def __init__(self, answer: NotIssued, wait_s: float) -> None:
        super().__init__(answer.cause.value)
        self.answer = answer
        self.wait_s = wait_s

    def as_error(self) -> GatewayError:
        """What a caller is told."""
        refused = self.answer.cause is Cause.REFUSED
        return (CredentialsRefused if refused else TokenUnavailable)(retry_after_s=max(math.ceil(self.wait_s), 1))


class _LeaseLost(Exception):
    """The issuer gave nothing, and meanwhile another replica took over."""


class TokenKeeper:
    """Keeps one good token at hand, and asks for the next before anybody has to wait for it."""

    def __init__(self, store: TokenStore, client: TokenClient, sources: Sources) -> None:
        self._store = store
        self._client = client
        self._sources = sources
        self._token: Token | None = None
        self._unwanted = ""
        self._fetching: asyncio.Task[Token] | None = None
        self._not_before = 0.0
        self._last_failure = NotIssued(Cause.UNAVAILABLE)
        self._failures = 0

    @property
    def token(self) -> Token | None:
        """The token at hand, usable or not."""
        return self._token

    async def obtain(self) -> Token:
        """Return a usable token. Raises TokenNotIssued."""
        match next_move(self._token, self._sources.now()):
            case Use(token):
                return token
            case UseAndRefresh(token):
                self._refresh_ahead(token)
                return token
            case Fetch() if self._token is not None and self._token.is_valid(self._sources.now()):
                # In the margin before expiry it still serves: nobody waits for an issuer that hangs.
                self._refresh_ahead(self._token)
                return self._token
            case Fetch():
                # Shielded: whoever leaves takes nothing away from the others who wait for the same fetch.
                return await asyncio.shield(self._fetch_once())

    async def void(self, token: Token) -> None:
        """Give up exactly this token, here and in Redis: a newer one stays."""
        if self._token is not None and self._token.generation == token.generation:
            self._token = None
            self._unwanted = token.generation
        with suppress(StoreUnavailable):  # the claim that follows names it as unwanted
            await self._store.void(token.generation)

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _refresh_ahead(self, token: Token) -> None:
        if self._fetching is None and self._sources.now() >= self._not_before:
            self._unwanted = token.generation
            self._fetch_once()

    def _fetch_once(self) -> asyncio.Task[Token]:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[Token]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        match task.exception():
            case None:
                self._token, self._unwanted, self._failures = task.result(), "", 0
            case TokenNotIssued(answer=answer, wait_s=wait_s):
                self._last_failure = answer
                self._not_before = self._sources.now() + wait_s
            case _:
                pass  # a defect: whoever waits for the task is told

    async def _fetch(self) -> Token:
        remaining_s = self._not_before - self._sources.now()
        if remaining_s > 0:
            raise TokenNotIssued(self._last_failure, remaining_s)
        owner = self._sources.new_id()
        give_up_at = self._sources.now() + _WAIT_MAX_S
        poll_s = _POLL_FIRST_S
        while self._sources.now() < give_up_at:
            match await self._claim(owner):
                case Stored(token):
                    return token
                case Blocked(cause, wait_s):
                    raise TokenNotIssued(NotIssued(cause), wait_s)
                case Wait(lease_s):
                    await asyncio.sleep(min(poll_s * (0.5 + self._sources.jitter()), lease_s + _POLL_FIRST_S))
                    poll_s = min(poll_s * 2, _POLL_MAX_S)
                case Lead():
                    try:
                        return await self._ask(owner)
                    except _LeaseLost:
                        owner = self._sources.new_id()  # whoever took over may have a token by now
        raise TokenNotIssued(NotIssued(Cause.UNAVAILABLE), 1.0)

    async def _claim(self, owner: str) -> Claim:
        """Claim, and once more if there was no answer: the first may have been carried out, and it is idempotent.

        Without Redis whoever asks leads: one question a replica, not one a request.
        """
        for _ in range(_CLAIM_ATTEMPTS):
            with suppress(StoreUnavailable):
                return await self._store.claim(
                    owner,
                    self._unwanted,
                    now=self._sources.now(),
                    jitter=self._sources.jitter(),
                )
        return Lead()

    async def _ask(self, owner: str) -> Token:
        """Ask the issuer, and let the fleet know what came of it, also where the lease could not be heard of."""
        answer = await self._client.fetch()
        self._sources.on_fetch(_result(answer))
        match answer:
            case Issued() as issued:
                token = self._begin(issued)
                with suppress(StoreUnavailable):  # ours is good all the same
                    await self._store.publish(owner, token, life_s=issued.life_s)
                return token
            case NotIssued():
                self._failures += 1
                wait_s = backoff_s(answer.cause, self._failures, answer.retry_after_s)
                with suppress(StoreUnavailable):  # our own backoff holds
                    fleet_s = await self._store.block(owner, answer.cause, answer.retry_after_s)
                    if fleet_s is None and self._failures == 1:
                        raise _LeaseLost
                    wait_s = max(fleet_s or 0.0, wait_s)
                raise TokenNotIssued(answer, wait_s)

    def _begin(self, issued: Issued) -> Token:
        return begin(
            issued,
            self._sources.new_id(),
            remaining_s=usable_life_s(issued.life_s),
            now=self._sources.now(),
            jitter=self._sources.jitter(),
        )


class TokenStep:
    """After it, the outbound carries a good token; a 401 has voided the one that was used, and only that one."""

    def __init__(self, keeper: TokenKeeper, now: Callable[[], float]) -> None:
        self._keeper = keeper
        self._now = now
        self._distrust_until = 0.0

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Send with a token; on a 401 once more with another. Raises what `forward` raises, and token errors."""
        clause = exchange.governing.token
        if not clause.inject:
            return await forward(exchange, outbound)
        began_at = self._now()
        token = await self._obtain(exchange)
        reply = await forward(exchange, _authorized(outbound, token))
        if reply.status != _UNAUTHORIZED or not clause.retry_unauthorized or self._now() < self._distrust_until:
            return reply
        await reply.discard()
        await self._keeper.void(token)
        token = await self._obtain(exchange)
        reply = await forward(exchange, _authorized(outbound, token))
        if reply.status == _UNAUTHORIZED:
            await self._mistrust(token, began_at)
        return reply

    async def _mistrust(self, token: Token, began_at: float) -> None:
        if token.received_at >= began_at:
            # Fresh from the issuer and refused all the same, so it is not the token's fault: without this pause
            # every request would buy a new one.
            self._distrust_until = self._now() + _DISTRUST_S
        else:
            await self._keeper.void(token)  # an older one that Redis still had

    async def _obtain(self, exchange: Exchange) -> Token:
        exchange.waits(self._now())
        try:
            return await self._keeper.obtain()
        except TokenNotIssued as error:
            raise error.as_error() from error
        finally:
            exchange.token_wait_s += exchange.resumes(self._now())


def _result(answer: Answer) -> FetchResult:
    match answer:
        case Issued():
            return FetchResult.ISSUED
        case NotIssued(cause=Cause.REFUSED):
            return FetchResult.REFUSED
        case NotIssued():
            return FetchResult.UNAVAILABLE


def _authorized(outbound: Outbound, token: Token) -> Outbound:
    outbound.headers["Authorization"] = f"Bearer {token.secret}"
    return outbound
