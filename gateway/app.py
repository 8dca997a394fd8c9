"""The composition root: the only place where things are built and joined."""

import importlib.metadata
import math
import os
import platform
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp
import uuid_utils
from aiohttp import web

from gateway.breaker import Breaker
from gateway.callers.step import CallersStep
from gateway.callers.step import Sources as CallersSources
from gateway.callers.tokens import Tokens
from gateway.connect import connect
from gateway.dedup.fleet import Fleet, Sources
from gateway.dedup.flights import Flights
from gateway.dedup.step import DedupStep
from gateway.dedup.store import CHANNEL, FlightStore
from gateway.exchange import CallRecord, Record, RecoveryRecord
from gateway.headers.step import HeadersStep
from gateway.http.admin import AdminView, admin_server
from gateway.http.ingress import Ingress, Limits, Observers
from gateway.http.sockets import Sockets
from gateway.http.upstream import CallObservers, Upstream, open_session
from gateway.in_flight import InFlight
from gateway.operations import TOKEN_PATH
from gateway.pipeline import Pipeline, Steps
from gateway.policy.files import PolicySet
from gateway.recovery.step import RecoverStep
from gateway.recovery.step import Sources as RecoverySources
from gateway.recovery.store import IdStore
from gateway.reload import Policies
from gateway.sealing import Sealing
from gateway.settings import Address, Settings, variable
from gateway.start import StartError, affordable, first_token, open_store, ring_and_url
from gateway.store import Store
from gateway.subscription import Subscription
from gateway.telemetry.log import Log, log_call, log_record, log_recovery
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import NoTraces, Traces, TracingUnavailable
from gateway.token.client import TokenClient
from gateway.token.step import FetchResult, TokenKeeper, TokenStep
from gateway.token.step import Sources as TokenSources
from gateway.token.store import TokenStore

VERSION: Final = importlib.metadata.version("eligibility-gateway")
_BACKLOG: Final = 4096
_CLEANUP_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that listens. `adopt` lets other policies govern whoever comes from then on."""

    ingress: Ingress
    flights: Flights
    traffic: web.TCPSite
    policies: Policies
    adopt: Callable[[PolicySet], None]


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    log: Log,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Gateway]:
    """Build everything, join it and listen; afterwards take it apart in the opposite order.

    `now` is the clock of what is measured, never of what is limited. Raises StartError and PolicyFilesError.
    """
    metrics = _metrics(log)
    policies = Policies(settings, metrics, log, _new_id)
    await policies.open()
    in_flight = InFlight()
    sockets = Sockets(affordable(settings.max_in_flight, log))
    async with AsyncExitStack() as stack:
        traces = _traces(settings)
        stack.push_async_callback(traces.close)
        keys, redis_url = ring_and_url(settings, stack)
        new_store = partial(_store, redis_url, settings.redis_timeout_s, metrics, log)
        store = await open_store(new_store, stack)
        session = await stack.enter_async_context(open_session(sockets))
        sealing = Sealing(keys)
        keeper = _token_keeper(settings, store, sealing, session, metrics)
        stack.push_async_callback(keeper.close)
        if any(policy.token.inject for policy in policies.current.policies):
            await first_token(keeper, settings, log)
        urgent = new_store()  # a line of its own: those who wait cannot starve it
        stack.push_async_callback(urgent.close)
        flight_store = FlightStore(store, urgent, sealing, metrics.value_unusable)
        flights = await _open_flights(redis_url, flight_store, metrics, stack)
        client_id = settings.upstream_client_id.get_secret_value()
        steps = Steps(
            callers=CallersStep(
                Tokens(sealing.signing_keys("callers")), CallersSources(wall_now=time.time, new_id=_new_id)
            ),
            dedup=DedupStep(
                flights, sealing.name, in_flight, now, upstream=settings.upstream_url, credential=client_id
            ),
            recover=RecoverStep(
                IdStore(store, sealing), _recovery_sources(metrics, log, now), policies.current.recovers
            ),
            headers=HeadersStep(),
            token=TokenStep(keeper, now),
            upstream=Upstream(
                session, settings.upstream_url, sockets, in_flight, _call_observers(metrics, log, traces, now)
            ),
        )
        limits = Limits(
            in_flight=settings.max_in_flight, body_bytes=settings.max_body_bytes, body_s=settings.body_timeout_s
        )
        pipeline = Pipeline(policies.current, steps)
        ingress = Ingress(pipeline, limits, sockets, in_flight, _observers(metrics, log, traces, now))
        metrics.watch(
            in_flight=in_flight,
            now=now,
            token_age=lambda: _age(keeper),
            followers=lambda: flights.followers,
            flights=lambda: flights.count,
        )
        view = AdminView(
            exposition=metrics.exposition,
            is_ready=lambda: not ingress.is_draining,
            policies=policies.describe,
        )
        admin = await _listen(stack, _admin_runner(view), "admin_listen", settings.admin_listen)
        traffic = await _listen(stack, _traffic_runner(ingress), "listen", settings.listen)

        def adopt(adopted: PolicySet) -> None:
            pipeline.adopt(adopted)
            steps.recover.adopt(is_wanted=adopted.recovers)
            _known(adopted, settings, metrics, log)

        _known(policies.current, settings, metrics, log)
        log.info(
            "listening",
            version=VERSION,
            listen=_name(traffic),
            admin_listen=_name(admin),
            policies=len(policies.current.policies),
            callers=len(policies.current.callers),
            digest=policies.current.digest,
            redis="embedded" if settings.is_embedded else "external",
        )
        yield Gateway(ingress, flights, traffic, policies, adopt)


def _store(url: str, answer_s: float, metrics: Metrics, log: Log) -> Store:
    def on_change(is_open: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        metrics.redis_left_alone(is_open)
        if is_open:
            log.warning("redis is left alone", reason="it did not answer, or could do nothing, five times in a row")
        else:
            log.info("redis is back")

    return Store(
        connect(url),
        on_error=metrics.redis_failed,
        new_breaker=lambda: Breaker(time.monotonic, random.random, on_change),
        answer_s=answer_s,
    )


async def _open_flights(url: str, store: FlightStore, metrics: Metrics, stack: AsyncExitStack) -> Flights:
    sources = Sources(
        now=time.monotonic,
        jitter=random.random,
        new_id=_new_id,
        on_lost_lease=metrics.lease_lost,
        on_takeover=metrics.flight_taken_over,
        on_stored=metrics.answer_stored,
    )
    fleet = Fleet(store, sources)
    listener = Subscription(connect(url), CHANNEL, on_message=fleet.wake, on_subscribed=fleet.wake_all)
    listener.start()
    stack.push_async_callback(listener.close)
    flights = Flights(fleet, sources)
    stack.push_async_callback(flights.close)
    return flights


def _token_keeper(
    settings: Settings,
    store: Store,
    sealing: Sealing,
    session: aiohttp.ClientSession,
    metrics: Metrics,
) -> TokenKeeper:
    url = settings.upstream_url + TOKEN_PATH
    client_id = settings.upstream_client_id.get_secret_value()
    client_secret = settings.upstream_client_secret.get_secret_value()
    return TokenKeeper(
        TokenStore(store, sealing, url, client_id, client_secret),  # another secret is another key: nothing stale
        TokenClient(session, url, client_id, client_secret),
        TokenSources(
            now=time.monotonic,
            jitter=random.random,
            new_id=_new_id,
            on_fetch=lambda result: metrics.token_fetched(result.value),
        ),
    )


def _metrics(log: Log) -> Metrics:
    metrics = Metrics(
        version=VERSION,
        python_version=platform.python_version(),
        fetch_results=FetchResult,
        wall_now=time.time,
    )
    log.on_skipped(metrics.lines_skipped)
    return metrics


def _known(policies: PolicySet, settings: Settings, metrics: Metrics, log: Log) -> None:
    """Tell the metrics whom the policies name, and the log what their author may not think of."""
    payers = {payer for policy in policies.policies for payer in policy.metrics.payers}
    metrics.expect(callers=policies.callers, payers=payers)
    longest_s = max(p.timeout.connect + p.timeout.answer + p.recover.within for p in policies.policies)
    if settings.drain_timeout_s < longest_s:
        log.warning(
            "notice",
            notice=f"{variable('drain_timeout_s')} is {settings.drain_timeout_s:g}: a call and its recovery may "
            f"take {longest_s:g} s, and what a stop cuts short is asked, and paid for, again",
        )
    for notice in policies.notices:
        log.warning("notice", notice=notice)


def _traces(settings: Settings) -> Traces | NoTraces:
    if not settings.otlp_endpoint:
        return NoTraces()
    try:
        return Traces(
            settings.otlp_endpoint,
            share=settings.trace_sample_ratio,
            version=VERSION,
            chance=random.Random(),  # noqa: S311 - ids of spans are no secrets
            wall_now=time.time,
        )
    except TracingUnavailable as error:
        raise StartError(
            f"{variable('otlp_endpoint')}: found no OpenTelemetry installed, expected the extra: "
            "pip install 'eligibility-gateway[otel]'",
        ) from error


def _recovery_sources(metrics: Metrics, log: Log, now: Callable[[], float]) -> RecoverySources:
    def on_ended(record: RecoveryRecord) -> None:
        metrics.observe_recovery(record)
        log_recovery(log, record)

    return RecoverySources(
        now=now,
        wall_now=time.time,
        jitter=random.random,
        new_id=_new_id,
        on_tried=metrics.recovery_tried,
        on_ended=on_ended,
    )


def _call_observers(metrics: Metrics, log: Log, traces: Traces | NoTraces, now: Callable[[], float]) -> CallObservers:
    def on_call(call: CallRecord) -> None:
        metrics.observe_call(call)
        log_call(log, call)
        traces.on_call(call)

    return CallObservers(now=now, on_call=on_call, begin_trace=traces.call)


def _observers(metrics: Metrics, log: Log, traces: Traces | NoTraces, now: Callable[[], float]) -> Observers:
    def on_record(record: Record) -> None:
        metrics.observe(record)
        log_record(log, record)
        traces.on_record(record)

    return Observers(
        now=now,
        new_id=_new_id,
        on_record=on_record,
        on_defect=lambda defect: log.error("defect", error=type(defect).__name__),
        begin_trace=traces.begin,
    )


def _admin_runner(view: AdminView) -> web.ServerRunner:
    return web.ServerRunner(admin_server(view), shutdown_timeout=_CLEANUP_S)


def _traffic_runner(ingress: Ingress) -> web.ServerRunner:
    # Whoever had to end has ended in `drain`; aiohttp would wait for the others twice.
    return web.ServerRunner(ingress.server(), shutdown_timeout=_CLEANUP_S)


async def _listen(stack: AsyncExitStack, runner: web.BaseRunner, name: str, address: Address) -> web.TCPSite:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, backlog=_BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise StartError(
            f"{variable(name)}: found {address} taken or not allowed ({os.strerror(error.errno or 0)}), "
            "expected an address to listen on",
        ) from error
    return site


def _name(site: web.TCPSite) -> str:
    server = site._server  # noqa: SLF001 - the only place that knows which port the system chose
    sockets = getattr(server, "sockets", None) or ()
    return str(Address(*sockets[0].getsockname()[:2])) if sockets else site.name


def _age(keeper: TokenKeeper) -> float:
    return time.monotonic() - keeper.token.received_at if keeper.token is not None else math.nan


def _new_id() -> str:
    return str(uuid_utils.uuid7())
