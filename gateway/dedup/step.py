"""Carry out the `dedup:` clause: one question, one call.

Order of places: a flight of this process, then one of the fleet or a kept answer, then the upstream.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.dedup.canonical import FieldRules
from gateway.dedup.compare import field_rules
from gateway.dedup.decide import Ask, Pass, Reason, decide
from gateway.dedup.fingerprint import Asker, Naming, Question, answering_headers
from gateway.dedup.fleet import Followed, Replayed, Seen, Terms
from gateway.dedup.flights import Call, Flights, Led
from gateway.dedup.replay import NoAnswer, NotShareable, Shared, difference
from gateway.dedup.store import Lead, Spent, Wait
from gateway.dedup.window import Window, window_of
from gateway.errors import DedupUnavailable, Overloaded, QuestionSpent, error_of
from gateway.exchange import Decision, DecisionKind, Exchange, Forward, Outbound, Recovery, Reply
from gateway.in_flight import InFlight
from gateway.operations import QUESTIONS, OperationName
from gateway.policy.model import DedupClause, DedupMode
from gateway.problem import GatewayError

CACHE_STATUS: Final = "Cache-Status"
_OURS: Final = "eligibility-gateway"
_ALONE_AT_ONCE: Final = 8  # of those whose answer is too large to be shared
_NOT_DECIDED: Final = (DedupUnavailable, Overloaded)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a clause says, in the form in which it is used."""

    clause: DedupClause
    fields: FieldRules
    window: Window


class DedupStep:
    """After it, one question has cost one call, wherever and however often it was asked within the window."""

    def __init__(  # noqa: PLR0913 - one fact each
        self,
        flights: Flights,
        name: Naming,
        in_flight: InFlight,
        now: Callable[[], float],
        *,
        upstream: str,
        credential: str,
        tag: Callable[[bytes], str] | None = None,
    ) -> None:
        self._flights = flights
        self._name = name
        self._in_flight = in_flight
        self._now = now
        self._upstream = upstream
        self._credential = credential
        self._tag = tag
        self._rules: dict[str, _Rules] = {}
        self._callers: dict[str, str] = {}
        self._alone = asyncio.Semaphore(_ALONE_AT_ONCE)

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Answer from what is known, or have it asked once. Raises GatewayError where there is no answer."""
        clause = exchange.governing.dedup
        operation = exchange.operation.name if exchange.operation is not None else None
        if clause.mode is DedupMode.OFF or operation is None or operation not in QUESTIONS:
            return await forward(exchange, outbound)
        rules = self._rules_of(clause)
        call = partial(self._lead, forward, exchange, outbound)
        try:
            match decide(operation, exchange.inbound, rules.fields):
                case Pass(reason):
                    return await self._pass(exchange, call, reason)
                case Ask(question, is_fresh):
                    # Whoever shares an answer must be able to read it; the upstream would compress it for the leader.
                    outbound.headers["Accept-Encoding"] = "identity"
                    if self._tag is not None:
                        exchange.tag = self._tag(question.text)
                    terms = self._terms(exchange, operation, question, rules)
                    del question  # its key is enough: it may be held for minutes
                    return await self._ask(exchange, call, terms, is_fresh=is_fresh)
        except GatewayError as error:
            if exchange.dedup is None and not isinstance(error, _NOT_DECIDED):
                _decided(exchange, DecisionKind.FOLLOW if isinstance(error, QuestionSpent) else DecisionKind.LEAD)
            raise

    async def _ask(self, exchange: Exchange, call: Call, terms: Terms, *, is_fresh: bool) -> Reply:
        if is_fresh:
            _decided(exchange, DecisionKind.BYPASS, reason=Reason.REQUESTED)
            return self._led(exchange, await self._flights.refresh(terms, call), Reason.REQUESTED)
        if exchange.governing.dedup.mode is DedupMode.SHADOW:
            return self._shadowed(exchange, *await self._flights.watch(terms, call))
        try:
            outcome = await self._flights.answer(terms, call, partial(self._follows, exchange))
        except asyncio.CancelledError:
            if exchange.goes_on:
                self._flights.remind(terms)
            raise
        finally:
            self._follows_no_more(exchange)
        match outcome:
            case Led() as led:
                return self._led(exchange, led, "" if led.has_lease else Reason.STORE_UNAVAILABLE)
            case Replayed() as replayed:
                return self._replayed(exchange, replayed)
            case Followed(landing):
                if not isinstance(landing, NotShareable):
                    return self._followed(exchange, landing)
                async with self._alone:
                    return await self._pass(exchange, call, Reason.TOO_LARGE)

    def _terms(self, exchange: Exchange, operation: OperationName, question: Question, rules: _Rules) -> Terms:
        policy = exchange.governing
        asker = Asker(
            upstream=self._upstream,
            credential=self._credential if policy.token.inject else "",
            subtenant=exchange.subtenant or "",
            caller=exchange.asking.name if rules.clause.share == "caller" else "",
        )
        key = question.key(
            self._name,
            operation.value,
            asker,
            query=exchange.inbound.raw_target.partition("?")[2],
            headers=answering_headers(exchange.inbound, policy.headers),
        )
        return Terms(
            key=key,
            group=rules.clause.digest,
            window=rules.window,
            correlation_id=exchange.correlation_id,
            may_bypass_store=rules.clause.store_unavailable == "bypass",
            caller=self._caller(exchange.asking.name),
        )

    def _caller(self, name: str) -> str:
        digest = self._callers.get(name)
        if digest is None:
            digest = self._callers[name] = self._name("caller", name)
        return digest

    def _rules_of(self, clause: DedupClause) -> _Rules:
        rules = self._rules.get(clause.digest)
        if rules is None:
            rules = self._rules[clause.digest] = _Rules(clause, field_rules(clause.fields), window_of(clause))
        return rules

    # --- while it lasts ----------------------------------------------------------------------------------------

    async def _lead(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Ask the upstream, in a task that the caller may have left; telemetry sees it all the same."""
        self._follows_no_more(exchange)
        if exchange.dedup is None or exchange.dedup.kind is DecisionKind.FOLLOW:
            _decided(exchange, DecisionKind.LEAD)
            self._will_be_kept(exchange)
        self._in_flight.led.add(exchange)
        try:
            return await forward(exchange, outbound)
        finally:
            self._in_flight.landed(exchange)

    def _follows(self, exchange: Exchange) -> None:
        _decided(exchange, DecisionKind.FOLLOW)
        self._will_be_kept(exchange)
        exchange.waits(self._now())

    def _follows_no_more(self, exchange: Exchange) -> None:
        if exchange.dedup is not None and exchange.dedup.kind is DecisionKind.FOLLOW:
            exchange.follow_s = (exchange.follow_s or 0.0) + exchange.resumes(self._now())

    def _will_be_kept(self, exchange: Exchange) -> None:
        clause = exchange.governing.dedup
        exchange.goes_on = clause.mode is DedupMode.ENFORCE and clause.window > 0

    # --- what the caller gets, and what is known of it ---------------------------------------------------------

    async def _pass(self, exchange: Exchange, call: Call, reason: str) -> Reply:
        _decided(exchange, DecisionKind.BYPASS, reason=reason)
        return _marked(await call(), f"fwd=bypass; detail={reason}")

    def _led(self, exchange: Exchange, led: Led, bypass: str) -> Reply:
        _decided(exchange, DecisionKind.BYPASS if bypass else DecisionKind.LEAD, reason=bypass, led=led)
        stored = _stored(led.kept_s)
        if exchange.recovery == Recovery.RECOVERED and not bypass:
            return _marked(led.reply, f"fwd=miss{stored}; detail=recovered")
        return _marked(led.reply, f"fwd=bypass{stored}; detail={bypass}" if bypass else f"fwd=miss{stored}")

    def _followed(self, exchange: Exchange, landing: Shared | NoAnswer) -> Reply:
        _decided(exchange, DecisionKind.FOLLOW)
        if isinstance(landing, NoAnswer):
            raise error_of(landing.code)(
                retry_after_s=landing.retry_after_s,
                upstream_correlation_id=landing.correlation_id,
            )
        return _marked(landing.reply(exchange.correlation_id), "fwd=miss; collapsed")

    def _replayed(self, exchange: Exchange, replayed: Replayed) -> Reply:
        _decided(exchange, DecisionKind.REPLAY, age_s=replayed.age_s)
        reply = replayed.shared.reply(exchange.correlation_id)
        reply.headers["Age"] = str(int(replayed.age_s))
        return _marked(reply, f"hit; ttl={int(replayed.remaining_s)}")

    def _shadowed(self, exchange: Exchange, seen: Seen | None, led: Led) -> Reply:
        match seen:
            case Lead():
                _decided(exchange, DecisionKind.LEAD, led=led)
            case Wait() | Followed() | Spent():
                _decided(exchange, DecisionKind.FOLLOW, led=led)
            case Replayed(shared, age_s):
                _decided(exchange, DecisionKind.REPLAY, age_s=age_s, led=led, earlier=shared)
            case None:
                _decided(exchange, DecisionKind.BYPASS, reason=Reason.STORE_UNAVAILABLE, led=led)
        return _marked(led.reply, f"fwd=bypass{_stored(led.kept_s)}; detail=shadow")


def _decided(  # noqa: PLR0913 - one fact each
    exchange: Exchange,
    kind: DecisionKind,
    *,
    reason: str = "",
    age_s: float | None = None,
    led: Led | None = None,
    earlier: Shared | None = None,
) -> None:
    landing = led.landing if led is not None else None
    exchange.dedup = Decision(
        mode=exchange.governing.dedup.mode.value,
        kind=kind,
        reason=str(reason),
        age_s=age_s,
        outcome=earlier.outcome if earlier is not None else "",
        difference=difference(earlier, led.reply) if earlier is not None and led is not None else "",
        is_upstream_duplicate=isinstance(landing, Shared) and landing.is_upstream_duplicate,
    )


def _stored(kept_s: float) -> str:
    return f"; stored; ttl={int(kept_s)}" if kept_s else ""


def _marked(reply: Reply, status: str) -> Reply:
    """Say in the reply what became of the request here, after what caches before us said (RFC 9211, 2)."""
    reply.headers.add(CACHE_STATUS, f"{_OURS}; {status}")
    return reply
