"""From a Redis URL to a client that makes connections: to one server, a Sentinel's primary, or the nodes of a cluster.

Facts (redis-py 8.1)
- Its defaults would hold a request for a minute: 5 s timeouts, ten retries. A retry also runs a command twice when only
  its answer was lost, so there are none.
- It leaves connections open that it made on the way to others.
"""

from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel, SentinelConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_S: Final = 0.25
_POOL_CONNECTIONS: Final = 32
_NODE_OPTIONS: Final = frozenset(
    {
        "username",
        "password",
        "credential_provider",
        "protocol",
        "driver_info",
        "socket_timeout",
        "socket_connect_timeout",
    },
)
_TLS_FILES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

Client = Redis | RedisCluster


class StoreUrlError(ValueError):
    """The Redis URL cannot be used; the message does not repeat it, for it may hold a password."""


def connect(url: str, answer_s: float = TIMEOUT_S) -> Client:
    """Return a client for a Redis that may take so long for each answer; nothing is sent yet. Raises StoreUrlError."""
    options = _options(max(answer_s, TIMEOUT_S))
    try:
        parts = urlsplit(url)  # its errors quote what stands before the host: a password
        match parts.scheme:
            case "redis" | "rediss" if not parts.path.strip("/").isdecimal() and parts.path.strip("/"):
                # redis-py would take a database that is no number for the first one.
                raise StoreUrlError("the database is no number, expected for instance redis://host:6379/0")
            case "redis" | "rediss" | "unix":
                return Redis.from_pool(BlockingConnectionPool.from_url(url, **_pool_options(), **options))
            case "redis+sentinel" | "rediss+sentinel":
                return _sentinel(parts, options)
            case "redis+cluster" | "rediss+cluster":
                return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
            case _:
                raise StoreUrlError(
                    f"the scheme is '{parts.scheme[:20]}', expected embedded, redis, rediss, unix, redis+sentinel, "
                    "redis+cluster, rediss+sentinel or rediss+cluster",
                )
    except StoreUrlError:
        raise
    except Exception:  # noqa: BLE001 - an option that redis-py does not know is a TypeError, and so on
        raise StoreUrlError("the URL cannot be read, expected for instance redis://host:6379/0") from None


async def close_client(client: Client) -> None:
    """Close a client's connections.

    Redis-py leaves open those to the Sentinels, and those to a cluster that it has not found again after a failure.
    """
    await client.aclose()
    if isinstance(client, RedisCluster):
        for nodes in ("nodes_cache", "startup_nodes"):
            await client.nodes_manager.aclose(nodes)
    elif isinstance(client.connection_pool, SentinelConnectionPool):
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


def _sentinel(parts: SplitResult, options: dict[str, Any]) -> Redis:
    """`redis[s]+sentinel://[user:password@]host:port[,host:port…]/SERVICE[/DB][?ssl_ca_certs=FILE…]`."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":") if at else ("", "", "")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise StoreUrlError("no service is named, expected redis+sentinel://host:26379/SERVICE")
    nodes = [(host, int(port or 26379)) for host, _, port in (node.partition(":") for node in hosts.split(","))]
    options = options | (_tls_options(parts) if parts.scheme.startswith("rediss") else {})
    sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py annotates it in part
        nodes, sentinel_kwargs=options, **options
    )
    client: Redis = sentinel.master_for(
        service,
        db=int(database or 0),
        username=user or None,
        password=password or None,
        max_connections=_POOL_CONNECTIONS,
    )
    return client


def _tls_options(parts: SplitResult) -> dict[str, Any]:
    """Return what a URL says of TLS, to sentinels as to those whom they name; both are verified."""
    stated = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    if stated.keys() - _TLS_FILES:
        raise StoreUrlError(f"an option is not known, expected of {', '.join(sorted(_TLS_FILES))}")
    return {"ssl": True, **stated}


def _options(answer_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": answer_s,
        "socket_connect_timeout": answer_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
        "driver_info": None,  # whose library it is concerns nobody, and CLIENT SETINFO would have to be allowed
    }


def _pool_options() -> dict[str, Any]:
    return {"max_connections": _POOL_CONNECTIONS, "timeout": TIMEOUT_S}
