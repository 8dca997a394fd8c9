"""The connection to Redis, and the one way in which rooms' stores use it.

Fact (redis-py 8.1): called once per command it costs more than everything else a request does. So the commands that
the requests of one loop tick ask for travel as one batch, on one line for each server.

Rules
- Every call ends within `answer_s`, whatever Redis does, in a value or in StoreUnavailable.
- Only scripts: what reads and then writes is one step on the server, timed by the server's own clock. Each is
  idempotent by owner, for it is sent again where its answer was lost with a connection.
- Each server has a breaker of its own: of a cluster, one that is down does not take the others' keys with it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import hiredis
from msgspec import Struct
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError

from gateway.breaker import Breaker
from gateway.connect import TIMEOUT_S, Client, close_client, node_client
from gateway.line import CONNECT_S, Answers, Batch, Line, is_timeout

_SCAN_COUNT: Final = 500
_BY_DIGEST, _BY_SOURCE = "EVALSHA", "EVAL"
_MOVED: Final = frozenset({"MOVED", "ASK"})
_ANSWER: Final = "answer"  # the reason of what is wrong with one command, and not with the server
# The server's own clock, for the scripts of rooms: the clocks of replicas never matter.
LUA_NOW_MS: Final = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

Argument = str | bytes | int


class StoreUnavailable(Exception):
    """Redis did not do it: it is unreachable, slow, full, read-only, or speaks nonsense."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with its SHA-1, by which the server knows it."""

    source: str
    sha1: str

    @classmethod
    def of(cls, source: str) -> "Script":
        """Make a script of its source."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class ScriptRunner(Protocol):
    """What a room's store needs of the connection."""

    async def run(self, script: Script, key: bytes, *arguments: Argument) -> Any:  # noqa: ANN401 - what Lua returns
        """Run a script on one key. Raises StoreUnavailable."""
        ...


class _Call(Struct, frozen=True):
    script: Script
    key: bytes
    arguments: tuple[Argument, ...]
    answer: asyncio.Future[Any]

    def words(self, command: str) -> tuple[Argument, ...]:
        script = self.script.sha1 if command == _BY_DIGEST else self.script.source
        return (command, script, 1, self.key, *self.arguments)

    def settle(self, answer: object) -> None:
        if not self.answer.done():  # else whoever asked has left
            self.answer.set_result(answer)

    def fail(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(StoreUnavailable(reason))


class _Server(Struct, frozen=True):
    """One server: a node of a cluster under its name, or the only one, which has none."""

    name: str
    line: Line
    breaker: Breaker | None


class Store:
    """Runs scripts; those asked for within one tick of the event loop travel as one batch."""

    def __init__(
        self,
        client: Client,
        *,
        on_error: Callable[[str], None],
        new_breaker: Callable[[], Breaker] | None = None,
        answer_s: float = TIMEOUT_S,
    ) -> None:
        self._client = client
        self._answer_s = answer_s
        self._on_error = on_error
        self._new_breaker = new_breaker
        self._servers: dict[str, _Server] = {}
        self._waiting: list[_Call] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._knows_nodes = False
        self._is_looking = False
        self._is_closed = False

    async def run(self, script: Script, key: bytes, *arguments: Argument) -> Any:  # noqa: ANN401 - what Lua returns
        """Run a script on one key. Raises StoreUnavailable within `answer_s`, at once while a breaker is open."""
        if self._is_closed:
            raise StoreUnavailable("closed")
        loop = asyncio.get_running_loop()
        call = _Call(script, key, arguments, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._depart)
        self._waiting.append(call)
        return await call.answer

    async def ping(self) -> None:
        """Return if Redis answers. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._client.ping()
        except Exception as error:  # redis-py raises more than its own errors, of a cluster for instance
            raise StoreUnavailable(_reason(error)) from error

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """Yield every key of a pattern, on every primary; some perhaps twice. Raises StoreUnavailable."""
        try:
            async for key in self._client.scan_iter(match=pattern, count=_SCAN_COUNT):
                yield key
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(_reason(error)) from error

    async def close(self) -> None:
        """Close the connections; calls that are still under way end in StoreUnavailable."""
        self._is_closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.line.close()
        await close_client(self._client)

    # --- there --------------------------------------------------------------------------------------------------

    def _depart(self) -> None:
        calls, self._waiting = self._waiting, []
        if self._is_closed:
            self._fail(calls, "closed")
        elif isinstance(self._client, RedisCluster):
            self._own(self._to_nodes(self._client, calls), calls)
        else:
            client = self._client
            self._send(self._server("", lambda: client), calls)

    async def _to_nodes(self, cluster: RedisCluster, calls: Sequence[_Call]) -> None:
        """Send to each node what is its own: redis-py refuses scripts in its pipelines for clusters."""
        by_node: dict[str, tuple[ClusterNode, list[_Call]]] = {}
        try:
            if not self._knows_nodes:
                async with asyncio.timeout(self._answer_s):
                    await cluster.initialize()
                self._knows_nodes = True
            for call in calls:
                node = cluster.get_node_from_key(call.key.decode())
                if node is None:
                    raise RedisClusterException("no node has this slot")
                by_node.setdefault(node.name, (node, []))[1].append(call)
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._on_error(_reason(error))
            self._fail(calls, _reason(error))
            return
        for name, (node, part) in by_node.items():
            self._send(self._server(name, partial(node_client, cluster, node.host, int(node.port))), part)

    def _server(self, name: str, client: Callable[[], Redis]) -> _Server:
        server = self._servers.get(name)
        if server is None:
            breaker = self._new_breaker() if self._new_breaker is not None else None
            server = self._servers[name] = _Server(name, Line(client().connection_pool, self._answer_s), breaker)
        return server

    def _send(self, server: _Server, calls: Sequence[_Call]) -> None:
        if server.breaker is not None and not server.breaker.admits():
            self._fail(calls, "breaker")
            return
        self._put(server, calls, _BY_DIGEST, asyncio.get_running_loop().time() + self._answer_s)

    def _put(self, server: _Server, calls: Sequence[_Call], command: str, give_up_at: float) -> None:
        packed = b"".join([hiredis.pack_command(call.words(command)) for call in calls])  # type: ignore[arg-type] # says tuple of one
        ended = partial(self._arrived, server, calls, give_up_at)
        server.line.send(Batch(packed, len(calls), give_up_at, ended))

    # --- and back -----------------------------------------------------------------------------------------------

    def _arrived(
        self,
        server: _Server,
        calls: Sequence[_Call],
        give_up_at: float,
        answers: Answers | BaseException,
    ) -> None:
        if isinstance(answers, BaseException):
            self._judge(server, is_alive=False)
            self._on_error(_reason(answers))
            self._fail(calls, _reason(answers))
            if isinstance(self._client, RedisCluster) and not self._is_looking and not self._is_closed:
                self._is_looking = True
                self._own(self._look_for(self._client, server.name), ())
            return
        unknown: list[_Call] = []  # a restart, a failover or SCRIPT FLUSH: send the sources along
        moved: list[_Call] = []
        is_alive = False
        for call, answer in zip(calls, answers, strict=True):
            if not isinstance(answer, hiredis.ReplyError):
                is_alive = True
                call.settle(answer)
                continue
            word = str(answer).partition(" ")[0]
            if word == "NOSCRIPT":
                unknown.append(call)
            elif word in _MOVED and isinstance(self._client, RedisCluster):
                moved.append(call)
            else:
                reason = _REASON_OF_WORD.get(word, _ANSWER)
                is_alive |= reason == _ANSWER  # it refused this one command alone
                self._on_error(reason)
                call.fail(reason)
        self._judge(server, is_alive=is_alive or bool(unknown or moved))
        if unknown:
            self._put(server, unknown, _BY_SOURCE, give_up_at)
        if moved and isinstance(self._client, RedisCluster):
            self._own(self._elsewhere(self._client, moved, give_up_at), moved)

    async def _elsewhere(self, cluster: RedisCluster, calls: Sequence[_Call], give_up_at: float) -> None:
        """Let redis-py look for the node that has these keys now, and remember it."""

        async def ask(call: _Call) -> None:
            try:
                async with asyncio.timeout_at(give_up_at):
                    call.settle(await cluster.execute_command(*call.words(_BY_SOURCE)))
            except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
                self._on_error(_reason(error))
                call.fail(_reason(error))

        await asyncio.gather(*(ask(call) for call in calls))

    async def _look_for(self, cluster: RedisCluster, lost: str) -> None:
        """Ask the other nodes who has the slots of one that is silent: it sends nobody elsewhere itself."""
        try:
            with suppress(RedisError, RedisClusterException, OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await cluster.nodes_manager.initialize(last_failed_node_name=lost)
        finally:
            self._is_looking = False

    def _judge(self, server: _Server, *, is_alive: bool) -> None:
        if server.breaker is not None:
            (server.breaker.succeeded if is_alive else server.breaker.failed)()

    def _fail(self, calls: Sequence[_Call], reason: str) -> None:
        for call in calls:
            call.fail(reason)

    def _own(self, work: Coroutine[Any, Any, None], calls: Sequence[_Call]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, calls))

    def _done(self, calls: Sequence[_Call], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Perhaps before it began, perhaps because redis-py could not read an answer: whoever waits is told.
        if task.cancelled() or task.exception() is not None:
            self._fail(calls, "closed" if task.cancelled() else _ANSWER)


def _reason(error: BaseException) -> str:
    """A closed set of reasons: a foreign exception's own words may quote what was sent."""
    if is_timeout(error):
        return "timeout"
    match error:
        case RedisError() if type(error).__name__ in _REASONS:
            return _REASONS[type(error).__name__]
        case OSError():
            return "connection"
        case _:
            return _ANSWER


_REASONS: Final = {
    "AuthenticationError": "refused",
    "AuthorizationError": "refused",
    "BusyLoadingError": "loading",
    "ClusterDownError": "connection",
    "ConnectionError": "connection",
    "MaxConnectionsError": "pool",
    "NoPermissionError": "refused",
    "OutOfMemoryError": "full",
    "ReadOnlyError": "read_only",
}
_REASON_OF_WORD: Final = {
    **dict.fromkeys(("NOAUTH", "NOPERM", "WRONGPASS"), "refused"),
    **dict.fromkeys(("READONLY", "MISCONF", "NOREPLICAS"), "read_only"),
    **dict.fromkeys(("CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"), "connection"),
    "BUSY": "timeout",
    "LOADING": "loading",
    "OOM": "full",
}
