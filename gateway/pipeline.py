"""The spine: one request, top to bottom.

http/ingress   accepts what is unambiguous and makes an Inbound
callers        says who asks, or gives a token to whoever shows a secret
operations     says which of the nine operations it is
policy         says what governs, on whose behalf, and for how long the caller waits: no policy, no passage
callers        says whose turn it is: within its limits, and no more of the process than is fair
http/ingress   reads the body, of those who may ask
audit          refuses what cannot be audited, where a policy says so
dedup          has one question asked once, however often and wherever it comes
recovery       what was cut off is looked up: it may be there all the same
headers        what goes upstream: the policy's, and nothing forged
token          a good token, and once more with another if the upstream refuses it
http/upstream  the call itself
telemetry      one record, when the reply has left
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

from gateway import operations
from gateway.audit.step import AuditStep
from gateway.callers.step import CallersStep, asks_for_token
from gateway.dedup.step import DedupStep
from gateway.errors import AnswerPending, DeadlineExceeded, NoPolicy, UnknownPath, WrongMethod
from gateway.exchange import Exchange, Forward, Outbound, Reply, Step
from gateway.headers.prefer import shortened_s
from gateway.headers.step import HeadersStep
from gateway.http.upstream import Upstream
from gateway.policy.files import PolicySet
from gateway.recovery.step import RecoverStep
from gateway.telemetry.payer import payer_of
from gateway.token.step import TokenStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What takes part in a request, named by its room."""

    callers: CallersStep
    audit: AuditStep
    dedup: DedupStep
    recover: RecoverStep
    headers: HeadersStep
    token: TokenStep
    upstream: Upstream

    def in_order(self) -> Sequence[Step]:
        """The order of steps, outermost first: each sees what the one before it made of the request."""
        return (
            self.audit,  # before a replay as well: what is kept of a patient is shown to nobody unseen
            self.dedup,  # then: no injected header is part of a question, and a replay costs neither token nor call
            self.recover,  # within a flight: what was cut is found for all who wait, and kept for whoever asks again
            self.headers,  # what a caller sent under a protected name is gone before a value is added
            self.token,  # last before the call: a retry after 401 repeats nothing but the token and the call
        )


class Pipeline:
    """Answers one request at a time, any number of them at once."""

    def __init__(self, policies: PolicySet, steps: Steps) -> None:
        self._callers = steps.callers
        self._headers = steps.headers
        last: Forward = steps.upstream
        self._forward = reduce(lambda forward, step: partial(step, forward), reversed(steps.in_order()), last)
        self.adopt(policies)

    def adopt(self, policies: PolicySet) -> None:
        """Let these govern whoever comes from now on; who is in flight keeps the policy that it began with."""
        self._policies = policies
        self._callers.adopt(policies)

    async def admit(self, exchange: Exchange) -> None:
        """Say who asks for what, and what governs it; the head alone decides. Raises GatewayError for a refusal."""
        exchange.asks_for_token = asks_for_token(exchange.inbound)
        governing = None
        while governing is not self._policies:  # others may be in force when it has waited for its turn
            governing = self._policies
            if not exchange.asks_for_token:
                await self._callers.identify(exchange)
                self._recognise(exchange)
                self._govern(exchange)
            await self._callers.take_turn(exchange)

    async def answer(self, exchange: Exchange) -> Reply:
        """Return the upstream's answer as the policy lets it pass. Raises GatewayError where there is none."""
        if exchange.asks_for_token:
            return self._callers.grant(exchange)
        inbound, policy = exchange.inbound, exchange.governing
        exchange.payer = payer_of(inbound.body, policy.metrics.payer_set)
        exchange.budget_s = shortened_s(policy.timeout.caller_s, inbound.headers.getall("Prefer", ()))
        try:
            async with asyncio.timeout(exchange.budget_s):
                return await self._forward(exchange, Outbound.of(inbound))
        except TimeoutError:
            raise (AnswerPending(retry_after_s=1) if exchange.goes_on else DeadlineExceeded()) from None

    def _recognise(self, exchange: Exchange) -> None:
        method, raw_path = exchange.inbound.method, exchange.inbound.raw_path
        match operations.find(method, raw_path):
            case operations.Found(operation):
                exchange.operation = operation
            case operations.WrongMethod(allowed) if not self._policies.table.forwards(method, raw_path):
                raise WrongMethod(headers={"Allow": ", ".join(allowed)})
            case operations.UnknownPath() if not self._policies.table.forwards(method, raw_path):
                raise UnknownPath
            case _:
                exchange.is_forwarded = True

    def _govern(self, exchange: Exchange) -> None:
        name = exchange.operation.name if exchange.operation is not None else None
        inbound = exchange.inbound
        exchange.policy = self._policies.table.govern(name, inbound.method, inbound.raw_path, exchange.asking.name)
        if exchange.policy is None:
            raise NoPolicy
        self._headers.speak_for(exchange)
