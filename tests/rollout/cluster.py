"""As much of Kubernetes as a rollout needs: pods that are processes, probes, a Service, and a Deployment's controller.

Facts that it keeps to (kubernetes.io, "Pod Lifecycle", "Probes", "Deployments")
- A pod that is deleted is taken out of the Service at the same time as its end begins, and each node hears of it later:
  connections still arrive meanwhile. Connections that are open stay where they are.
- Its grace period runs from the deletion on, and the preStop hook is part of it; then comes SIGTERM, at last SIGKILL.
- With maxUnavailable 0 and maxSurge 1 a new pod must have been ready for minReadySeconds before an old one is deleted;
  one that is ending counts no more.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from tests.running import GatewayProcess, url_of


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP probe of the chart; periods in seconds of the simulation."""

    path: str
    period_s: float
    timeout_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class Times:
    """What the chart says of a pod's life. `hears_late_s`: until the last node knows of a change of the endpoints."""

    startup: Probe
    readiness: Probe
    liveness: Probe
    min_ready_s: float
    pre_stop_s: float
    termination_grace_s: float
    hears_late_s: float


def times_of(pod: Mapping[str, Any], *, min_ready_s: float, hears_late_s: float, speed: float) -> Times:
    """Read them from a pod's spec; everything is divided by `speed`, and so must be what the program is told."""
    (container,) = pod["containers"]

    def probe(name: str) -> Probe:
        stated = container[name]
        assert stated["httpGet"]["port"] == "admin"
        return Probe(
            stated["httpGet"]["path"],
            stated["periodSeconds"] / speed,
            stated["timeoutSeconds"],  # a machine is not faster because the clock is
            stated["failureThreshold"],
        )

    return Times(
        startup=probe("startupProbe"),
        readiness=probe("readinessProbe"),
        liveness=probe("livenessProbe"),
        min_ready_s=min_ready_s / speed,
        pre_stop_s=container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) / speed,
        termination_grace_s=pod["terminationGracePeriodSeconds"] / speed,
        hears_late_s=hears_late_s / speed,
    )


class Pod:
    """One replica, from its start to its end."""

    def __init__(self, name: str, process: GatewayProcess, times: Times, session: aiohttp.ClientSession) -> None:
        self.name = name
        self.process = process
        self.is_ready = asyncio.Event()
        self.was_killed = False
        self.code: int | None = None
        self._times = times
        self._session = session
        self._probing = asyncio.create_task(self._probe())

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.process.url)
        return str(parts.hostname), int(parts.port or 0)

    async def end(self) -> None:
        """What the kubelet does with a pod that is deleted."""
        ends_at = asyncio.get_running_loop().time() + self._times.termination_grace_s
        await asyncio.sleep(self._times.pre_stop_s)
        self.process.popen.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(ends_at):
                while self.process.popen.poll() is None:  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self.was_killed = True
            self.process.popen.kill()
        self._probing.cancel()
        self.code = await asyncio.to_thread(self.process.popen.wait)

    async def _probe(self) -> None:
        if not await self._passes(self._times.startup):
            self.was_killed = True
            self.process.popen.kill()
            return
        self.is_ready.set()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._watch(self._times.readiness, self.is_ready.clear, self.is_ready.set))
            both.create_task(self._watch(self._times.liveness, self._kill, lambda: None))

    def _kill(self) -> None:
        if self.process.popen.poll() is None:
            self.was_killed = True
            self.process.popen.kill()

    async def _passes(self, probe: Probe) -> bool:
        for _ in range(probe.failures):
            if await self._answers(probe):
                return True
            await asyncio.sleep(probe.period_s)
        return False

    async def _watch(self, probe: Probe, on_failed: Callable[[], None], on_passed: Callable[[], None]) -> None:
        failed = 0
        while True:
            await asyncio.sleep(probe.period_s)
            failed = 0 if await self._answers(probe) else failed + 1
            if failed >= probe.failures:
                on_failed()
            elif not failed:
                on_passed()

    async def _answers(self, probe: Probe) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError):
            limit = aiohttp.ClientTimeout(total=probe.timeout_s)
            async with self._session.get(self.process.admin_url + probe.path, timeout=limit) as response:
                return response.status == 200
        return False


@dataclass(slots=True)
class Service:
    """A port that hands each connection to one of the endpoints it has heard of, and bytes to and fro."""

    hears_late_s: float
    endpoints: dict[str, tuple[str, int]] = field(default_factory=dict)
    unserved: int = 0
    url: str = ""
    _turn: "count[int]" = field(default_factory=count)
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = url_of(self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def add(self, pod: Pod) -> None:
        self.endpoints[pod.name] = pod.address

    async def remove(self, pod: Pod) -> None:
        """Take a pod out, once everybody has heard of it."""
        await asyncio.sleep(self.hears_late_s)
        self.endpoints.pop(pod.name, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        addresses = list(self.endpoints.values())
        try:
            host, port = addresses[next(self._turn) % len(addresses)]
            there, back = await asyncio.open_connection(host, port)
        except (ZeroDivisionError, OSError):
            self.unserved += 1
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        writer.transport.abort()
    finally:
        writer.close()


@dataclass(slots=True)
class Deployment:
    """Replicas behind a Service, and the rollout that replaces them: one more, then one less."""

    start: Callable[[], Coroutine[Any, Any, GatewayProcess]]
    times: Times
    service: Service
    session: aiohttp.ClientSession
    pods: list[Pod] = field(default_factory=list)
    gone: list[Pod] = field(default_factory=list)
    _ending: list[asyncio.Task[Any]] = field(default_factory=list)
    _names: "count[int]" = field(default_factory=count)

    async def scale(self, replicas: int) -> None:
        await asyncio.gather(*(self._add() for _ in range(replicas)))

    async def roll_out(self) -> None:
        """Replace every replica; return when the last of the old ones has ended."""
        for old in list(self.pods):
            await self._add()
            await asyncio.sleep(self.times.min_ready_s)
            self._delete(old)
        await asyncio.gather(*self._ending)

    async def _add(self) -> None:
        pod = Pod(f"pod-{next(self._names)}", await self.start(), self.times, self.session)
        self.pods.append(pod)
        async with asyncio.timeout(60):
            await pod.is_ready.wait()
        self.service.add(pod)

    def _delete(self, pod: Pod) -> None:
        self.pods.remove(pod)
        self.gone.append(pod)
        self._ending += [asyncio.create_task(self.service.remove(pod)), asyncio.create_task(pod.end())]

    async def close(self) -> None:
        for pod in [*self.pods, *self.gone]:
            pod._probing.cancel()
            await asyncio.to_thread(pod.process.__exit__, None, None, None)
