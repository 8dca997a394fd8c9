"""Who is compared: two bare pass-throughs and the gateway, each started afresh for every measurement."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.messages import CALLER_TOKEN, TOKEN
from bench.processes import (
    ROOT,
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

BARE: Final = "bare web.Application"
BARE_UVLOOP: Final = "bare web.Application, uvloop"
GATEWAY: Final = "gateway"
PEERS: Final = (BARE, BARE_UVLOOP, GATEWAY)
DIRECT: Final = "no proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that listens, and the token with which its callers come."""

    running: Running
    port: int
    token: str


@contextmanager
def upstream(delay_s: float = 0.0) -> Iterator[int]:
    """Run the scripted upstream; its port."""
    with talking(module("upstream", "--delay", str(delay_s)), core=other_core()) as popen:
        yield int(line_of(popen))


@contextmanager
def proxy(name: str, upstream_port: int) -> Iterator[Proxy]:
    """Run a peer in front of an upstream."""
    port = free_port()
    url = f"http://127.0.0.1:{upstream_port}"
    is_gateway = name == GATEWAY
    bare = module("passthrough", "--port", str(port), "--upstream", url, *(["--uvloop"] if name == BARE_UVLOOP else []))
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        log = Path(directory) / "log"
        with started(
            module_of_gateway() if is_gateway else bare,
            core=proxy_core(),
            log=log,
            environment=_gateway_environment(port, url) if is_gateway else {},
        ) as running:
            wait_for_port(running, port, log)
            running.banish_children()
            yield Proxy(running=running, port=port, token=CALLER_TOKEN if is_gateway else TOKEN)


def module_of_gateway() -> tuple[str, ...]:
    """Return the command line of the gateway."""
    return (*module("")[:2], "gateway", "serve")


def _gateway_environment(port: int, upstream_url: str) -> Mapping[str, str]:
    """As it runs in production, log lines and all; only its Valkey is the bundled one."""
    return {
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "GATEWAY_POLICIES": str(ROOT / "policies"),
        "GATEWAY_REDIS_URL": "embedded",
        "GATEWAY_UPSTREAM_URL": upstream_url,
        "GATEWAY_UPSTREAM_CLIENT_ID": "bench",
        "GATEWAY_UPSTREAM_CLIENT_SECRET": "bench-secret",
        "GATEWAY_LOG_LEVEL": "info",
        "GATEWAY_DRAIN_TIMEOUT_S": "1",
    }
