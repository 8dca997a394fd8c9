"""The connection to Redis, and the one way in which rooms' stores use it.

Facts (redis-py 8.1)
- Its defaults would hold a request for a minute: 5 s timeouts, ten retries. A retry also runs a command
  twice when only its answer was lost, so there are none, and every script is idempotent by owner.
- Called once per command it costs more than everything else a request does. So the commands that the
  requests of one loop tick ask for travel as one pipeline.

Rules
- Every call ends within `TIMEOUT_S`, whatever Redis does, in a value or in StoreUnavailable.
- Only scripts: what reads and then writes is one step on the server, timed by the server's own clock.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel, SentinelConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.breaker import Breaker

TIMEOUT_S: Final = 0.25
_POOL_CONNECTIONS: Final = 32
_SCAN_COUNT: Final = 500
_NODE_OPTIONS: Final = frozenset(
    {"username", "password", "credential_provider", "protocol", "socket_timeout", "socket_connect_timeout"},
)

# The server's own clock, for the scripts of rooms: the clocks of replicas never matter.
LUA_NOW_MS: Final = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

Argument = str | bytes | int
Client = Redis | RedisCluster


class StoreUnavailable(Exception):
    """Redis did not do it: it is unreachable, slow, full, read-only, or speaks nonsense."""


class StoreUrlError(ValueError):
    """The Redis URL cannot be used; the message does not repeat it, for it may hold a password."""


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


class Store:
    """Runs scripts; those asked for within one tick of the event loop travel as one pipeline."""

    def __init__(self, client: Client, *, on_error: Callable[[str], None], breaker: Breaker | None = None) -> None:
        self._client = client
        self._on_error = on_error
        self._breaker = breaker
        self._waiting: list[_Call] = []
        self._is_closed = False
        self._flights: set[asyncio.Task[None]] = set()
        self._nodes: dict[tuple[str, int], Redis] = {}  # of a cluster

    async def run(self, script: Script, key: bytes, *arguments: Argument) -> Any:  # noqa: ANN401 - what Lua returns
        """Run a script on one key. Raises StoreUnavailable within TIMEOUT_S, at once while the breaker is open."""
        if self._is_closed:
            raise StoreUnavailable("closed")
        if self._breaker is not None and self._breaker.is_open:
            raise StoreUnavailable("breaker")
        loop = asyncio.get_running_loop()
        call = _Call(script, key, arguments, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._depart)
        self._waiting.append(call)
        return await call.answer

    async def ping(self) -> None:
        """Return if Redis answers. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(4 * TIMEOUT_S):  # a first connection, perhaps with TLS and AUTH
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
        for flight in tuple(self._flights):
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)
        for client in (self._client, *self._nodes.values()):
            await close_client(client)

    def _depart(self) -> None:
        calls, self._waiting = self._waiting, []
        if self._breaker is not None and not self._breaker.admits():
            self._settle(calls, [StoreUnavailable("breaker")] * len(calls))
            return
        flight = asyncio.get_running_loop().create_task(self._fly(calls))
        self._flights.add(flight)
        flight.add_done_callback(partial(self._landed, calls))

    def _landed(self, calls: Sequence[_Call], flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        # Perhaps before it began, perhaps because redis-py could not read an answer: whoever waits is told.
        reason = "closed" if flight.cancelled() else "answer" if flight.exception() is not None else ""
        if reason:
            self._settle(calls, [StoreUnavailable(reason)] * len(calls))

    async def _fly(self, calls: Sequence[_Call]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answers = await self._pipeline(calls, "EVALSHA")
                unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                if unknown:  # a restart, a failover or SCRIPT FLUSH: send the sources along
                    again = await self._pipeline([calls[i] for i in unknown], "EVAL")
                    for i, answer in zip(unknown, again, strict=True):
                        answers[i] = answer
        except (RedisError, OSError, TimeoutError) as error:
            self._on_error(_reason(error))
            self._settle(calls, [StoreUnavailable(_reason(error))] * len(calls))
            self._judge(is_alive=False)
        else:
            self._judge(is_alive=any(_says_something(answer) for answer in answers))
            self._settle(calls, [self._counted(answer) for answer in answers])

    def _judge(self, *, is_alive: bool) -> None:
        if self._breaker is not None:
            (self._breaker.succeeded if is_alive else self._breaker.failed)()

    def _counted(self, answer: object) -> object:
        if not isinstance(answer, Exception):
            return answer
        self._on_error(_reason(answer))
        return StoreUnavailable(_reason(answer))

    def _settle(self, calls: Sequence[_Call], answers: Sequence[object]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():
                continue  # whoever asked has left
            if isinstance(answer, StoreUnavailable):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    async def _pipeline(self, calls: Sequence[_Call], command: str) -> list[Any]:
        if not isinstance(self._client, RedisCluster):
            return await _travel(self._client, calls, command)
        await self._client.initialize()
        by_node: dict[tuple[str, int], list[_Call]] = {}
        for call in calls:
            node = self._client.get_node_from_key(call.key.decode())
            if node is None:
                raise ConnectionError("no node has this slot")
            by_node.setdefault((node.host, int(node.port)), []).append(call)
        found = await asyncio.gather(*(self._to_node(self._client, *item, command) for item in by_node.items()))
        answer_of = {id(call): answer for part in found for call, answer in part}
        return [answer_of[id(call)] for call in calls]

    async def _to_node(
        self,
        cluster: RedisCluster,
        place: tuple[str, int],
        calls: Sequence[_Call],
        command: str,
    ) -> list[tuple[_Call, Any]]:
        """Send to one node what is its own, and to where redis-py finds it what has moved meanwhile."""
        if place not in self._nodes:
            self._nodes[place] = node_client(cluster, *place)
        try:
            answers = await _travel(self._nodes[place], calls, command)
        except (RedisError, OSError) as error:
            answers = [error] * len(calls)
        for i, answer in enumerate(answers):
            if isinstance(answer, (MovedError, AskError, RedisConnectionError, OSError)):
                try:
                    answers[i] = await cluster.execute_command(*_words(calls[i], command))
                except (RedisError, OSError) as error:
                    answers[i] = error
        return list(zip(calls, answers, strict=True))


async def _travel(client: Redis, calls: Sequence[_Call], command: str) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*_words(call, command))
        return list(await pipeline.execute(raise_on_error=False))


async def close_client(client: Client) -> None:
    """Close a client's connections; redis-py leaves those to the Sentinels open."""
    await client.aclose()
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def node_client(cluster: RedisCluster, host: str, port: int) -> Redis:
    """Return an ordinary client for one node of a cluster."""
    options = cluster.connection_kwargs
    kept = {name: value for name, value in options.items() if name in _NODE_OPTIONS or name.startswith("ssl_")}
    kept["retry"] = Retry(NoBackoff(), 0)
    pool = BlockingConnectionPool(
        connection_class=options["connection_class"], host=host, port=port, **kept, **_pool_options()
    )
    return Redis.from_pool(pool)


def connect(url: str, *, answer_s: float | None = TIMEOUT_S) -> Client:
    """Return a client for a Redis URL; nothing is sent yet. Raises StoreUrlError.

    `answer_s` bounds each answer; None where the caller bounds its calls itself: redis-py sets up a timer an answer.
    """
    parts = urlsplit(url)
    try:
        match parts.scheme:
            case "redis" | "rediss" if not parts.path.strip("/").isdecimal() and parts.path.strip("/"):
                # redis-py would take a database that is no number for the first one.
                raise StoreUrlError("the database is no number, expected for instance redis://host:6379/0")
            case "redis" | "rediss" | "unix":
                options = {**_options(), "socket_timeout": answer_s}
                return Redis.from_pool(BlockingConnectionPool.from_url(url, **_pool_options(), **options))
            case "redis+sentinel":
                return _sentinel(parts)
            case "redis+cluster":
                return RedisCluster.from_url("redis" + url.removeprefix("redis+cluster"), **_options())
            case _:
                raise StoreUrlError(
                    f"the scheme is '{parts.scheme[:20]}', expected embedded, redis, rediss, unix, redis+sentinel or "
                    "redis+cluster",
                )
    except StoreUrlError:
        raise
    except Exception:  # noqa: BLE001 - an option that redis-py does not know is a TypeError, and so on
        raise StoreUrlError("the URL cannot be read, expected for instance redis://host:6379/0") from None


def _sentinel(parts: SplitResult) -> Redis:
    """`redis+sentinel://[user:password@]host:port[,host:port…]/SERVICE[/DB]`."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":") if at else ("", "", "")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise StoreUrlError("no service is named, expected redis+sentinel://host:26379/SERVICE")
    nodes = [(host, int(port or 26379)) for host, _, port in (node.partition(":") for node in hosts.split(","))]
    sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py annotates it in part
        nodes, sentinel_kwargs=_options(), **_options()
    )
    client: Redis = sentinel.master_for(
        service,
        db=int(database or 0),
        username=user or None,
        password=password or None,
        max_connections=_POOL_CONNECTIONS,
    )
    return client


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
    }


def _pool_options() -> dict[str, Any]:
    return {"max_connections": _POOL_CONNECTIONS, "timeout": TIMEOUT_S}


def _words(call: _Call, command: str) -> tuple[Argument, ...]:
    script = call.script.sha1 if command == "EVALSHA" else call.script.source
    return (command, script, 1, call.key, *call.arguments)


def _says_something(answer: object) -> bool:
    """Whether the server did what was asked, or refused this one command alone."""
    return not isinstance(answer, Exception) or _reason(answer) == "answer"


def _reason(error: BaseException) -> str:
    """A closed set of reasons: a foreign exception's own words may quote what was sent."""
    match error:
        case TimeoutError():
            return "timeout"
        case RedisError() if type(error).__name__ in _REASONS:
            return _REASONS[type(error).__name__]
        case OSError():
            return "connection"
        case _:
            return "answer"


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
    "TimeoutError": "timeout",
}
