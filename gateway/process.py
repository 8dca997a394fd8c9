"""One process, from its start to its end: the loop, the signals, the watch over the policies, and the drain.

How it ends
1. SIGTERM: `/readyz` says 503 and every reply closes its connection, but whoever comes is served: a load balancer hears
   of it a little later. SIGINT leaves this out, for a terminal has no load balancer.
2. Nobody new is let in. What is in flight ends, awaited or not; its leases are renewed meanwhile.
3. What has not ended is handed over: whoever waits on another replica has a successor at once, whoever waits here is
   told so.
A second signal goes to 3 at once.
"""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from gateway.app import Gateway, open_gateway
from gateway.settings import Settings
from gateway.start import keep_memory_private
from gateway.telemetry.log import Log

_LAST_WORDS_S: Final = 1.0


def run(settings: Settings, log: Log) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 if all that was in flight has ended, else 1.

    SIGHUP has the policy files and the certificates read, and the audit trail's file opened anew if it was moved away.
    Raises StartError and PolicyFilesError.
    """
    keep_memory_private()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_serve(settings, log))
        except asyncio.CancelledError:  # it was told to end before it had begun
            return 0


async def _serve(settings: Settings, log: Log) -> int:
    ending = Ending(settings.drain_grace_s, asyncio.current_task())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.signalled, number)
    async with open_gateway(settings, log) as gateway, watching(gateway):
        ending.starting = None
        loop.add_signal_handler(signal.SIGHUP, gateway.look)
        _spare_the_garbage_collector()
        await ending.has_begun.wait()
        log.info("draining", in_flight=gateway.ingress.in_flight, flights=gateway.flights.count)
        left = await drain(gateway, ending, settings.drain_timeout_s)
        (log.warning if any(left) else log.info)(
            "stopped", in_flight=left.requests, flights=left.flights, answers=left.answers, drained=not any(left)
        )
    return 1 if any(left) else 0


class Ending:
    """How a process is asked to end; `starting` has nothing in flight yet, and ends at once."""

    def __init__(self, grace_s: float = 0.0, starting: "asyncio.Task[Any] | None" = None) -> None:
        self.grace_s = grace_s
        self.starting = starting
        self.has_begun = asyncio.Event()
        self.hurries = asyncio.Event()

    def signalled(self, number: signal.Signals) -> None:
        """Begin to end; asked again, hurry."""
        if self.starting is not None:
            self.starting.cancel()
        if self.has_begun.is_set():
            self.hurries.set()
        if number == signal.SIGINT:
            self.grace_s = 0.0
        self.has_begun.set()


class Left(NamedTuple):
    """What had not ended in time: requests that were told so, flights that were handed over, answers lost to Redis."""

    requests: int
    flights: int
    answers: int


async def drain(gateway: Gateway, ending: Ending, timeout_s: float) -> Left:
    """Let what is in flight end; return what did not, and had to be handed over."""
    untaken = gateway.flights.untaken
    gateway.ingress.drain()
    await _until(ending.hurries.wait(), timeout_s=ending.grace_s)
    await gateway.traffic.stop()
    await _until(_idle(gateway), ending.hurries.wait(), timeout_s=timeout_s)
    flights = gateway.flights.count
    if flights or gateway.ingress.in_flight:
        await gateway.flights.close()
        gateway.ingress.stop()
        await _until(gateway.ingress.idle(), timeout_s=_LAST_WORDS_S)
    requests = gateway.ingress.stopped + gateway.ingress.in_flight
    left = Left(requests, flights, gateway.flights.untaken - untaken)
    gateway.audit.event("drained", in_flight=left.requests, flights=left.flights, answers=left.answers)
    return left


async def _idle(gateway: Gateway) -> None:
    while gateway.ingress.in_flight or gateway.flights.count:  # a connection that is kept may bring another request
        await gateway.ingress.idle()
        await gateway.flights.idle()


async def _until(*ends: Coroutine[Any, Any, object], timeout_s: float) -> None:
    """Return when one of them has happened, or the time is up."""
    waits = [asyncio.create_task(end) for end in ends]
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@asynccontextmanager
async def watching(gateway: Gateway) -> AsyncIterator[None]:
    """Meanwhile let the policies of the directory be in force, and the certificates of the files, as they change."""
    watches = [
        asyncio.create_task(gateway.policies.watch(gateway.adopt)),
        asyncio.create_task(gateway.certificates.watch()),
    ]
    try:
        yield
    finally:
        for watch in watches:
            watch.cancel()
        for watch in watches:
            with suppress(asyncio.CancelledError):
                await watch


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _spare_the_garbage_collector() -> None:
    """Leave what was built at start out of every collection, and collect less often.

    A full collection walks some hundred thousand objects that never die, while requests wait. Measured: an
    eighth of the CPU of a request. What a request makes is freed by counting references, collected or not.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
