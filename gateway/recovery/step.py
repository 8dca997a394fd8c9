"""Carry out the `recover:` clause: what was cut without an answer is looked up by its correlation id.

A submission is cut where its call ends in a 504, in a connection that breaks, or at our own limit. The transaction may
be there all the same, a little later, paid for. It is asked for in the name of the same policy and subtenant, with the
gateway's token, while whoever waits may be answered, and afterwards for whoever asks again.

Rules
- An id that somebody used before is not looked up, nor one of which that cannot be known; and what is found is taken
  only if the id was not used again meanwhile.
- A 504 that comes at once is no cut, but an outage, and callers are not kept waiting for it.
- What the submission got stands where nothing better is found.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from multidict import CIMultiDict

from gateway.errors import UpstreamBroken, UpstreamTimeout
from gateway.exchange import CORRELATION_ID, Exchange, Forward, Inbound, Outbound, Recovery, RecoveryRecord, Reply
from gateway.operations import OPERATIONS, QUESTIONS, OperationName
from gateway.policy.model import Policy, RecoverClause
from gateway.problem import GatewayError
from gateway.recovery.find import Ambiguous, There, get_target, is_answer, list_target, read_list
from gateway.recovery.store import NOTED_S, IdStore
from gateway.recovery.subject import Subject, subject_of
from gateway.store import StoreUnavailable

_AT_ONCE_S: Final = 0.25
_ASK_S: Final = 10.0
_LOOKUPS: Final = 64  # an outage must not be asked about by everybody it has hit
_READ_MAX_BYTES: Final = 4_194_304
_NEVER: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where instants, chance and fresh ids come from, and who is told. `wall_now`: seconds since 1970."""

    now: Callable[[], float]
    wall_now: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    on_tried: Callable[[str], None]
    on_ended: Callable[[RecoveryRecord], None]


class _Submission(Struct, frozen=True):
    """What was sent: `owner` is unique, whatever the correlation id."""

    owner: str
    sent_at: float
    subject: Subject


class RecoverStep:
    """After it, a submission that was cut has its answer, if the upstream has it in time and the id is unique."""

    def __init__(self, ids: IdStore, sources: Sources, is_wanted: bool) -> None:  # noqa: FBT001 - the policies' word
        """`is_wanted`: whether any policy has the clause."""
        self._ids = ids
        self._sources = sources
        self._is_wanted = is_wanted
        self._noted_since = -math.inf
        self._asking = asyncio.Semaphore(_LOOKUPS)

    def adopt(self, *, is_wanted: bool) -> None:
        """Begin to note ids, or cease to, while the process runs."""
        if is_wanted and not self._is_wanted:
            self._noted_since = self._sources.now()
        self._is_wanted = is_wanted

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Send, and look up what was cut. Raises what `forward` raises, where nothing is found."""
        if not self._is_wanted or exchange.operation is None or exchange.operation.name not in QUESTIONS:
            return await forward(exchange, outbound)
        owner, sent_at = self._sources.new_id(), self._sources.wall_now()
        # Every id is noted, whoever made it and whatever the policy: a caller may take one from a reply.
        is_ours = await self._is_ours(exchange, owner) and self._knows_who_used()
        is_unique = is_ours or CORRELATION_ID not in exchange.inbound.headers
        if not exchange.governing.recover.within:
            return await forward(exchange, outbound)
        recover = partial(self._recover, forward, exchange, owner if is_unique else "", sent_at)
        try:
            reply = await forward(exchange, outbound)
        except (UpstreamTimeout, UpstreamBroken):
            found = await recover()
            if found is None:
                raise
            return found
        if reply.status != HTTPStatus.GATEWAY_TIMEOUT or not _took_time(exchange):
            return reply
        found = await recover()
        if found is None:
            return reply
        await reply.discard()
        return found

    async def _recover(self, forward: Forward, exchange: Exchange, owner: str, sent_at: float) -> Reply | None:
        began_at = self._sources.now()
        exchange.waits(began_at)
        result, found = Recovery.UNAVAILABLE, None
        try:
            is_x12 = exchange.operation_name == OperationName.SUBMIT_ELIGIBILITY_X12
            subject = subject_of(exchange.inbound.body, is_x12=is_x12)
            if not owner:
                result = Recovery.REUSED
            elif subject is not None:
                submission = _Submission(owner, sent_at, subject)
                async with asyncio.timeout(exchange.governing.recover.within):
                    result, found = await self._look(forward, exchange, submission)
        except TimeoutError:
            pass  # whoever is asked takes longer than the clause
        finally:
            exchange.resumes(self._sources.now())
            exchange.recovery = result
            self._sources.on_ended(
                RecoveryRecord(
                    operation=exchange.operation_name,
                    caller=exchange.asking.name,
                    payer=exchange.payer,
                    recovery=result,
                    timed_out_by=exchange.timed_out_by,
                    correlation_id=exchange.correlation_id,
                    trace_id=exchange.upstream_trace_id,
                    duration_s=self._sources.now() - began_at,
                    trace=exchange.trace,
                )
            )
        if found is not None:
            exchange.timed_out_by = ""
        return found

    async def _look(
        self,
        forward: Forward,
        exchange: Exchange,
        submission: _Submission,
    ) -> tuple[Recovery, Reply | None]:
        clause = exchange.governing.recover
        target = list_target(exchange.correlation_id, submission.sent_at)
        result = Recovery.NOT_FOUND
        for pause_s in self._pauses(clause):
            await asyncio.sleep(pause_s)
            self._sources.on_tried(exchange.operation_name)
            listed = await self._ask(forward, exchange, OperationName.LIST_TRANSACTIONS, target)
            if listed is None or listed.status != HTTPStatus.OK:
                result = Recovery.UNAVAILABLE
                if listed is not None and listed.status in _NEVER:
                    break  # not provisioned for this list: asking again changes nothing
                continue
            match read_list(listed.body, exchange.correlation_id, submission.sent_at):
                case There() as there:
                    found = await self._read(forward, exchange, submission, there)
                    if isinstance(found, Reply):
                        return Recovery.RECOVERED, found
                    result = found
                    if result is Recovery.REUSED:
                        break
                case Ambiguous():
                    return Recovery.REUSED, None
                case _:
                    result = Recovery.NOT_FOUND
        return result, None

    def _pauses(self, clause: RecoverClause) -> "list[float]":
        """The pauses before each attempt, doubling, as many as fit into the clause's time."""
        pauses: list[float] = []
        pause_s = clause.pause
        for _ in range(clause.attempts):
            jittered_s = pause_s * (0.75 + self._sources.jitter() / 4)
            if sum(pauses) + jittered_s > clause.within:
                break
            pauses.append(jittered_s)
            pause_s *= 2
        return pauses

    async def _read(
        self,
        forward: Forward,
        exchange: Exchange,
        submission: _Submission,
        there: There,
    ) -> Reply | Recovery:
        reply = await self._ask(forward, exchange, OperationName.GET_TRANSACTION, get_target(there.transaction_id))
        if reply is None or reply.status != HTTPStatus.OK:
            return Recovery.UNAVAILABLE
        if not is_answer(reply.body, there, exchange.correlation_id, submission.sent_at, submission.subject):
            return Recovery.REUSED
        return reply if await self._is_ours(exchange, submission.owner) else Recovery.REUSED

    def _knows_who_used(self) -> bool:
        """Whether ids were noted for so long that whoever used one before is known."""
        return self._sources.now() - self._noted_since >= NOTED_S

    async def _is_ours(self, exchange: Exchange, owner: str) -> bool:
        try:
            return await self._ids.use(exchange.correlation_id, owner)
        except StoreUnavailable:
            return False

    async def _ask(
        self,
        forward: Forward,
        exchange: Exchange,
        operation: OperationName,
        target: str,
    ) -> Reply | None:
        """Read from the upstream in the name of the submission; None where nothing could be read."""
        headers = CIMultiDict({"Accept": "application/json"})
        raw_headers = tuple((name.encode(), value.encode()) for name, value in headers.items())
        reading = Exchange(
            inbound=Inbound(method="GET", raw_target=target, headers=headers, raw_headers=raw_headers, body=b""),
            correlation_id=exchange.correlation_id,
            started_at=self._sources.now(),
            operation=OPERATIONS[operation],
            caller=exchange.caller,
            policy=_reading(exchange.governing),
            subtenant=exchange.subtenant,
            payer=exchange.payer,
            trace=exchange.trace,
        )
        outbound = Outbound(
            method="GET", raw_target=target, headers=CIMultiDict({"Accept-Encoding": "identity"}), body=b""
        )
        try:
            async with self._asking, asyncio.timeout(_ASK_S):
                return await _whole(await forward(reading, outbound))
        except (GatewayError, TimeoutError):
            return None


def _took_time(exchange: Exchange) -> bool:
    """Whether a 504 can be a cut: one that comes at once says that the upstream is out, and nothing is behind it."""
    return (exchange.upstream_s or 0.0) >= _AT_ONCE_S


def _reading(policy: Policy) -> Policy:
    """The policy to read with: a token that may not read is no bad token, and must not be voided for everybody."""
    return policy.model_copy(update={"token": policy.token.model_copy(update={"retry_unauthorized": False})})


async def _whole(reply: Reply) -> Reply | None:
    if reply.rest is None:
        return reply
    body = bytearray(reply.body)
    try:
        async for part in reply.rest:
            body += part
            if len(body) > _READ_MAX_BYTES:
                return None
    finally:
        await reply.discard()
    return replace(reply, body=bytes(body), rest=None)
