"""The composition root: the only place where things are built and joined."""

import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import uuid_utils
from aiohttp import web

from gateway.audit.book import Book
from gateway.audit.step import AuditStep
from gateway.breaker import Breaker
from gateway.callers.client import IssuerKeys, KeySources
from gateway.callers.step import CallersStep
from gateway.callers.step import Sources as CallersSources
from gateway.callers.tokens import Tokens
from gateway.callers.turns import Turns
from gateway.certificates import Certificates
from gateway.connect import Client, connect
from gateway.dedup.fleet import Fleet, Sources
from gateway.dedup.flights import Flights
from gateway.dedup.step import DedupStep
from gateway.dedup.store import CHANNEL, FlightStore
from gateway.headers.step import HeadersStep
from gateway.http.admin import AdminView
from gateway.http.ingress import Ingress, Limits
from gateway.http.sockets import Sockets
from gateway.http.tls import Tls
from gateway.http.upstream import Upstream, open_session
from gateway.in_flight import InFlight
from gateway.listening import address_of, admin_runner, listen, refuse_what_is_weak, traffic_runner
from gateway.observing import (
    VERSION,
    announce,
    of_calls,
    of_distrust,
    of_issuers,
    of_recoveries,
    of_requests,
    open_audit,
    open_metrics,
    open_traces,
)
from gateway.operations import TOKEN_PATH
from gateway.pipeline import Pipeline, Steps
from gateway.policy.files import PolicySet
from gateway.recovery.step import RecoverStep
from gateway.recovery.store import IdStore
from gateway.reload import Policies
from gateway.sealing import Sealing
from gateway.settings import Settings
from gateway.start import affordable, first_token, open_store, ring_and_url
from gateway.store import Store
from gateway.subscription import Subscription
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.token.client import TokenClient
from gateway.token.step import Sources as TokenSources
from gateway.token.step import TokenKeeper, TokenStep
from gateway.token.store import TokenStore


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that listens. `adopt` lets other policies govern whoever comes from then on."""

    ingress: Ingress
    flights: Flights
    traffic: web.TCPSite
    policies: Policies
    certificates: Certificates
    adopt: Callable[[PolicySet], None]
    audit: Book

    def look(self) -> None:
        """Look at the policy files, the certificates, and where the audit trail is written, now."""
        self.policies.look()
        self.certificates.look()
        self.audit.look()


@asynccontextmanager
async def open_gateway(  # noqa: PLR0915 - built and joined in one place, in the order in which it is needed
    settings: Settings,
    log: Log,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Gateway]:
    """Build everything, join it and listen; afterwards take it apart in the opposite order.

    `now` is the clock of what is measured, never of what is limited. Raises StartError and PolicyFilesError.
    """
    refuse_what_is_weak()
    metrics = open_metrics(log)
    policies = Policies(settings, metrics, log, _new_id)
    await policies.open()
    certificates = Certificates(settings, metrics, log, time.time)
    await certificates.open()
    in_flight = InFlight()
    sockets = Sockets(affordable(settings.max_in_flight, log))
    async with AsyncExitStack() as stack:
        traces = open_traces(settings)
        stack.push_async_callback(traces.close)
        keys, redis_url = ring_and_url(settings, stack)
        sealing = Sealing(keys)
        audit = open_audit(settings, sealing, metrics, log)
        stack.push_async_callback(audit.close)
        new_store = partial(_store, redis_url, settings.redis_timeout_s, metrics, log)
        store = await open_store(new_store, stack)
        session = await stack.enter_async_context(open_session(sockets, certificates.of_upstream))
        on_distrust = of_distrust(log, time.monotonic)
        keeper = _token_keeper(settings, store, sealing, _token_client(settings, session, on_distrust), metrics)
        stack.push_async_callback(keeper.close)
        if any(policy.token.inject for policy in policies.current.policies):
            await first_token(keeper, settings, log)
        urgent = new_store()  # a line of its own: those who wait cannot starve it
        stack.push_async_callback(urgent.close)
        flight_store = FlightStore(store, urgent, sealing, metrics.value_unusable)
        flights = await _open_flights(connect(redis_url, settings.redis_timeout_s), flight_store, metrics, stack)
        turns = Turns(settings.max_in_flight, now=time.monotonic, measured=now)
        in_flight.on_over, in_flight.on_left = turns.over, turns.left
        issuer_keys = IssuerKeys(KeySources(now=time.monotonic, on_fetched=of_issuers(metrics, log)))
        stack.push_async_callback(issuer_keys.close)
        client_id = settings.upstream_client_id.get_secret_value()
        steps = Steps(
            callers=CallersStep(
                Tokens(sealing.signing_keys("callers")),
                issuer_keys,
                turns,
                CallersSources(wall_now=time.time, new_id=_new_id),
            ),
            audit=AuditStep(audit),
            dedup=DedupStep(
                flights,
                sealing.name,
                in_flight,
                now,
                upstream=settings.upstream_url,
                credential=client_id,
                tag=audit.tag_question,
            ),
            recover=RecoverStep(
                IdStore(store, sealing), of_recoveries(metrics, log, audit, now, _new_id), policies.current.recovers
            ),
            headers=HeadersStep(),
            token=TokenStep(keeper, now),
            upstream=Upstream(
                session,
                settings.upstream_url,
                sockets,
                in_flight,
                of_calls(metrics, log, traces, audit, now, on_distrust=on_distrust),
            ),
        )
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            body_s=settings.body_timeout_s,
            head_s=settings.head_timeout_s,
            idle_s=settings.idle_timeout_s,
        )
        pipeline = Pipeline(policies.current, steps)
        observers = of_requests(metrics, log, traces, audit, now=now, new_id=_new_id)
        ingress = Ingress(pipeline, limits, sockets, in_flight, observers)
        metrics.watch(
            in_flight=in_flight,
            now=now,
            token_age=lambda: _age(keeper),
            followers=lambda: flights.followers,
            flights=lambda: flights.count,
            queued=lambda: turns.queued,
        )
        view = AdminView(
            exposition=metrics.exposition,
            is_ready=lambda: not ingress.is_draining,
            policies=policies.describe,
        )
        admin = await listen(stack, admin_runner(view), "admin_listen", settings.admin_listen)
        tls = Tls(context=lambda: certificates.of_callers, sockets=sockets, on_failed=metrics.handshake_failed)
        is_plain = settings.tls_certificate is None
        traffic = await listen(stack, traffic_runner(ingress), "listen", settings.listen, None if is_plain else tls)

        def adopt(adopted: PolicySet) -> None:
            audit.event("policies", before=policies.current.digest, after=adopted.digest)
            pipeline.adopt(adopted)
            steps.recover.adopt(is_wanted=adopted.recovers)
            announce(adopted, settings, metrics, log)

        announce(policies.current, settings, metrics, log)
        log.info(
            "listening",
            version=VERSION,
            listen=address_of(traffic),
            admin_listen=address_of(admin),
            policies=len(policies.current.policies),
            callers=len(policies.current.callers),
            digest=policies.current.digest,
            redis="embedded" if settings.is_embedded else "external",
            tls=not is_plain,
        )
        audit.event("serving", policies=policies.current.digest)
        yield Gateway(ingress, flights, traffic, policies, certificates, adopt, audit)


def _store(url: str, answer_s: float, metrics: Metrics, log: Log) -> Store:
    def on_change(is_open: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        metrics.redis_left_alone(is_open)
        if is_open:
            log.warning("redis is left alone", reason="it did not answer, or could do nothing, five times in a row")
        else:
            log.info("redis is back")

    return Store(
        connect(url, answer_s),
        on_error=metrics.redis_failed,
        new_breaker=lambda: Breaker(time.monotonic, random.random, on_change),
        answer_s=answer_s,
    )


async def _open_flights(client: Client, store: FlightStore, metrics: Metrics, stack: AsyncExitStack) -> Flights:
    sources = Sources(
        now=time.monotonic,
        jitter=random.random,
        new_id=_new_id,
        on_lost_lease=metrics.lease_lost,
        on_takeover=metrics.flight_taken_over,
        on_stored=metrics.answer_stored,
    )
    fleet = Fleet(store, sources)
    listener = Subscription(client, CHANNEL, on_message=fleet.wake, on_subscribed=fleet.wake_all)
    listener.start()
    stack.push_async_callback(listener.close)
    flights = Flights(fleet, sources)
    stack.push_async_callback(flights.close)
    return flights


def _token_keeper(
    settings: Settings,
    store: Store,
    sealing: Sealing,
    client: TokenClient,
    metrics: Metrics,
) -> TokenKeeper:
    url = settings.upstream_url + TOKEN_PATH
    client_id = settings.upstream_client_id.get_secret_value()
    client_secret = settings.upstream_client_secret.get_secret_value()
    return TokenKeeper(
        TokenStore(store, sealing, url, client_id, client_secret),  # another secret is another key: nothing stale
        client,
        TokenSources(
            now=time.monotonic,
            jitter=random.random,
            new_id=_new_id,
            on_fetch=lambda result: metrics.token_fetched(result.value),
        ),
    )


def _token_client(
    settings: Settings, session: aiohttp.ClientSession, on_distrust: Callable[[BaseException], None]
) -> TokenClient:
    return TokenClient(
        session,
        settings.upstream_url + TOKEN_PATH,
        settings.upstream_client_id.get_secret_value(),
        settings.upstream_client_secret.get_secret_value(),
        on_distrust,
    )


def _age(keeper: TokenKeeper) -> float:
    return time.monotonic() - keeper.token.received_at if keeper.token is not None else math.nan


def _new_id() -> str:
    return str(uuid_utils.uuid7())
