"""Who is compared, each started afresh for every measurement: pass-throughs, nginx in three forms, the gateway.

Facts
- `nginx + Lua` does with a question what the gateway does: decode, canonical form, HMAC, Redis GET, replay or proxy;
  `keeping` also writes the answer to Redis, without which there would be nothing to replay.
- `nginx, by bytes` is nginx's own cache with the body in its key, and its lock: no code at all.
- Every peer that needs Redis has a Valkey of its own, on the other core.
"""

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import redis

from bench.messages import CALLER_TOKEN, TOKEN
from bench.processes import (
    ROOT,
    BenchError,
    Running,
    free_port,
    line_of,
    module,
    other_core,
    proxy_core,
    started,
    talking,
    wait_for_port,
)
from gateway.embedded import EmbeddedUnavailable, EmbeddedValkey

BARE: Final = "bare web.Application"
BARE_UVLOOP: Final = "bare web.Application, uvloop"
LUA: Final = "nginx + Lua"
LUA_KEEPING: Final = "nginx + Lua, keeping"
BYTES: Final = "nginx, by bytes"
PASSING: Final = "gateway, dedup off"
GATEWAY: Final = "gateway"
DIRECT: Final = "no proxy"
TIMED: Final = "gateway with a stop-watch"
CROWDED: Final = "gateway with a large fleet's metrics"

_BARE: Final = (BARE, BARE_UVLOOP)
_GATEWAYS: Final = (GATEWAY, PASSING, TIMED, CROWDED)
_NGINX: Final = (LUA, LUA_KEEPING, BYTES)
_LUA_RULES: Final = 'access_by_lua_block { require("dedup").replay() }'
_RULES: Final = {
    LUA: _LUA_RULES,
    LUA_KEEPING: _LUA_RULES
    + """
      body_filter_by_lua_block { require("dedup").collect() }
      log_by_lua_block { require("dedup").keep() }""",
    BYTES: """proxy_cache answers;
      proxy_cache_methods POST;
      proxy_cache_key "$request_uri $http_x_optum_subtenant_id $request_body";
      proxy_cache_valid 200 24h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 130s;
      proxy_cache_lock_age 130s;
      proxy_ignore_headers Cache-Control Expires Vary;""",
}
_NGINX_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
_LUA_REDIS: Final = Path("/usr/share/lua/5.1/nginx/redis.lua")
_KEYS: Final = "bench:" + base64.b64encode(b"b" * 32).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that listens, and the token with which its callers come."""

    running: Running
    port: int
    token: str
    admin_port: int = 0


def has_nginx() -> bool:
    """Whether nginx, its Lua and a Redis client for it are installed."""
    return shutil.which("nginx") is not None and _NGINX_MODULE.exists() and _LUA_REDIS.exists()


def available(*names: str) -> tuple[str, ...]:
    """Leave out what cannot run on this machine."""
    return names if has_nginx() else tuple(name for name in names if name not in _NGINX)


@contextmanager
def upstream(name: str = "upstream", *arguments: str) -> Iterator[int]:
    """Run a scripted upstream; its port."""
    with talking(module(name, *arguments), core=other_core()) as popen:
        yield int(line_of(popen))


@contextmanager
def valkey() -> Iterator[str]:
    """Run a Valkey on the other core; its URL."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(EmbeddedValkey())
        except EmbeddedUnavailable as error:
            raise BenchError(str(error)) from error
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {other_core()})
        with redis.Redis.from_url(server.url) as client:  # what is pushed out is no error of whoever is measured
            client.config_set("maxmemory-policy", "allkeys-random")
        yield server.url


@contextmanager
def proxy(name: str, upstream_port: int, redis_url: str | None = None) -> Iterator[Proxy]:
    """Run a peer in front of an upstream, and with a Valkey of its own where none is given."""
    port, admin_port = free_port(), free_port()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        log = directory / "log"
        command, environment = _bare(name, port, upstream_port), dict[str, str]()
        if name not in _BARE:
            redis_url = redis_url or stack.enter_context(valkey())
            if name in _NGINX:
                command = _nginx(name, directory, port, upstream_port, redis_url)
            else:
                command = _gateway(name)
                environment |= _gateway_environment(name, (port, admin_port), upstream_port, redis_url)
        running = stack.enter_context(started(command, core=proxy_core(), log=log, environment=environment))
        wait_for_port(running, port, log)
        token = CALLER_TOKEN if name in _GATEWAYS else TOKEN
        yield Proxy(running=running, port=port, token=token, admin_port=admin_port)


def _gateway(name: str) -> tuple[str, ...]:
    if name in {TIMED, CROWDED}:
        return module("variant", "timed" if name == TIMED else "crowded", "serve")
    return (*module("")[:2], "gateway", "serve")


def _bare(name: str, port: int, upstream_port: int) -> tuple[str, ...]:
    options = ("--port", str(port), "--upstream", f"http://127.0.0.1:{upstream_port}")
    return module("passthrough", *options, *(["--uvloop"] if name == BARE_UVLOOP else []))


def _nginx(name: str, directory: Path, port: int, upstream_port: int, redis_url: str) -> tuple[str, ...]:
    if not has_nginx():
        raise BenchError(
            "this needs nginx with Lua: apt install nginx-light libnginx-mod-http-lua lua-nginx-redis lua-cjson"
        )
    source = ROOT / "bench" / "nginx"
    words = {
        "directory": str(directory),
        "modules": str(source),
        "redis": redis_url.replace("unix://", "unix:"),
        "upstream": str(upstream_port),
        "port": str(port),
        "rules": _RULES[name],
    }
    template = Template((source / "nginx.conf").read_text(encoding="utf-8"))
    configuration = directory / "nginx.conf"
    configuration.write_text(template.safe_substitute(words), encoding="utf-8")
    return ("nginx", "-p", str(directory), "-c", str(configuration), "-e", "stderr")


def _gateway_environment(name: str, ports: tuple[int, int], upstream_port: int, redis_url: str) -> Mapping[str, str]:
    """As it runs in production, log lines and all."""
    return {
        "GATEWAY_LISTEN": f"127.0.0.1:{ports[0]}",
        "GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}",
        "GATEWAY_POLICIES": str(ROOT / "bench" / "policies" / ("off" if name == PASSING else "enforce")),
        "GATEWAY_REDIS_URL": redis_url,
        "GATEWAY_KEYS": _KEYS,
        "GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
        "GATEWAY_UPSTREAM_CLIENT_ID": "bench",
        "GATEWAY_UPSTREAM_CLIENT_SECRET": "bench-secret",
        "GATEWAY_LOG_LEVEL": "info",
        "GATEWAY_LOG_REQUESTS_PER_S": "1000000",
        "GATEWAY_DRAIN_TIMEOUT_S": "1",
    }
