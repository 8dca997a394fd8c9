"""The simulator's server: start, stop, run; and how answers leave, whole or broken."""

import asyncio
import contextlib
import importlib
import importlib.util
import resource
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from multidict import CIMultiDict

from gateway.simulator import wire
from gateway.simulator.api import Api
from gateway.simulator.callbacks import Courier
from gateway.simulator.clearinghouse import Clearinghouse
from gateway.simulator.clock import Clock
from gateway.simulator.control import PREFIX, Control
from gateway.simulator.exchange import TOKEN, Arrival, Reply, name_of, refusal
from gateway.simulator.faults import Fault, Kind
from gateway.simulator.gate import Gate
from gateway.simulator.options import Options
from gateway.simulator.owned import Owned
from gateway.simulator.tokens import Tokens
from gateway.simulator.world import Received, World

_BACKLOG: Final = 8192
_KEEPALIVE_S: Final = 3600.0
_SHUTDOWN_S: Final = 0.1
_HANG_S: Final = 600.0
_DRIP_S: Final = 60.0


class Simulator:
    """One simulated upstream. `async with Simulator(options) as simulator: simulator.url`."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._clock = Clock(self._options.speed)
        self._tokens = Tokens()
        self._world = self._new_world()
        self._owned = Owned()
        self._runner: web.ServerRunner | None = None
        self._courier: Courier | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The base URL, once started."""
        return self._url

    @property
    def world(self) -> World:
        """What it remembers and has counted since the last reset: for tests in the same process."""
        return self._world

    async def start(self) -> str:
        """Listen, and say under which base URL."""
        self._courier = Courier(self._options, self._clock)
        clearinghouse = Clearinghouse(self._options, self._clock, self._owned, self._courier)
        api = Api(self._options, self._clock, self._owned, clearinghouse)
        gate = Gate(self._options, self._clock, self._tokens, api)
        front = _Front(self._clock, gate, Control(self._tokens, self._reset), lambda: self._world)
        server = web.Server(
            front.handle,
            # A caller who leaves frees its handler at once; the clearinghouse goes on without it.
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
            # The request log shows bytes as sent, so nothing may be unpacked on the way in.
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._options.host, self._options.port, backlog=_BACKLOG)
        await site.start()
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        self._url = f"http://{host}:{site.port}"
        return self._url

    async def stop(self) -> None:
        """Drop everything under way and close the port."""
        await self._owned.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        # Handlers that the cleanup let finish may have started work of their own.
        await self._owned.stop()
        if self._courier is not None:
            await self._courier.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _new_world(self) -> World:
        return World(
            seed=self._options.seed,
            stored_records=self._options.stored_records,
            stored_requests=self._options.stored_requests,
        )

    def _reset(self) -> None:
        self._world = self._new_world()


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; the one line on stdout says where."""
    # 9,000 held requests need as many descriptors; the usual soft limit is 1,024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the system refuses its own hard limit (macOS), a small simulator is better than none.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _loop_runner()(_serve(options))


def _loop_runner() -> Callable[[Any], None]:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run
    runner: Callable[[Any], None] = importlib.import_module("uvloop").run
    return runner


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Simulator(options) as simulator:
        print(f"simulator listening on {simulator.url}", flush=True)  # noqa: T201 - the one line that scripts wait for
        await stop.wait()


class _Front:
    """Each request's way: read, counted, logged, perhaps broken, answered."""

    def __init__(self, clock: Clock, gate: Gate, control: Control, world: Callable[[], World]) -> None:
        self._clock = clock
        self._gate = gate
        self._control = control
        self._world = world

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request, from its head to the last byte of its answer."""
        world = self._world()
        path, _, query = request.raw_path.partition("?")
        if path.startswith(PREFIX):
            return _response(self._control.answer(world, request.method, path, query, await request.read()))
        name = name_of(request.method, request.raw_path)
        world.counters.enter(name)
        try:
            return await self._exchange(world, request, name)
        except asyncio.CancelledError:
            world.counters.disconnects += 1
            raise
        finally:
            world.counters.in_flight -= 1

    async def _exchange(self, world: World, request: web.BaseRequest, name: str) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return await _send(world, request, name, refusal(413, ["Too Large: the body is above 1 MiB"]))
        arrival = Arrival(method=request.method, target=request.raw_path, headers=request.headers, body=body)
        if name != TOKEN:
            world.requests.add(_received(request, name, body))
        fault = self._gate.fault(world, arrival)
        if fault is not None and fault.kind is Kind.RESET_BEFORE:
            return _gone(request)
        if fault is not None and fault.kind is Kind.HANG:
            await self._clock.sleep(_HANG_S if fault.seconds is None else fault.seconds)
        reply = await self._gate.reply(world, arrival, fault)
        if fault is None:
            return await _send(world, request, name, reply)
        return await self._send_broken(world, request, name, reply, fault)

    async def _send_broken(
        self,
        world: World,
        request: web.BaseRequest,
        name: str,
        reply: Reply,
        fault: Fault,
    ) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return await _send(world, request, name, reply)
        match fault.kind:
            case Kind.RESET_AFTER:
                return _gone(request)
            case Kind.RESET_MID:
                await wire.reset_midway(transport, reply, fault.after_bytes)
            case Kind.TORN_BODY:
                wire.tear(transport, reply, fault.after_bytes)
            case Kind.SLOW_DRIP:
                seconds = _DRIP_S if fault.seconds is None else fault.seconds
                await wire.drip(transport, reply, self._clock.real_s(seconds))
                world.counters.answer(name, reply.status)
            case _:
                return await _send(world, request, name, reply)
        return web.Response()


async def _send(world: World, request: web.BaseRequest, name: str, reply: Reply) -> web.StreamResponse:
    """Send a whole answer here, not after the handler, so that what is counted did leave."""
    response = _response(reply)
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        # Returned all the same: aiohttp meets the same closed connection and lets it go quietly.
        world.counters.disconnects += 1
    else:
        world.counters.answer(name, reply.status)
    return response


def _received(request: web.BaseRequest, name: str, body: bytes) -> Received:
    return Received(
        operation=name,
        method=request.method,
        target=request.raw_path,
        headers=tuple(request.raw_headers),
        body=body,
    )


def _gone(request: web.BaseRequest) -> web.Response:
    """Reset the connection; the response only tells aiohttp that there is nothing left to do."""
    if request.transport is not None:
        wire.reset(request.transport)
    return web.Response()


def _response(reply: Reply) -> web.Response:
    headers = CIMultiDict(reply.headers)
    headers.setdefault("content-type", reply.content_type)
    return web.Response(status=reply.status, body=reply.body, headers=headers)
