"""nginx and haproxy as they are installed, each as a process of its own between two addresses."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.running import eventually

NGINX: Final = """
daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; worker_rlimit_nofile 1024;
events {{ worker_connections 256; }}
http {{
    access_log off; large_client_header_buffers 4 64k; underscores_in_headers on; merge_slashes off;
    client_max_body_size 16m; keepalive_timeout 5s;
    client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
    upstream behind {{ server {behind}; keepalive 4; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_next_upstream off;
        }}
    }}
}}
"""
HAPROXY: Final = """
global
    maxconn 256
    tune.bufsize 65536
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 5s
    timeout server 30s
    timeout http-keep-alive 5s
frontend front
    bind {listen}
    default_backend behind
backend behind
    http-reuse always
    server one {behind}
"""


def nginx(at: Path) -> list[str]:
    return ["nginx", "-p", str(at), "-e", f"{at}/error.log", "-c", str(at / "configuration")]


def haproxy(at: Path) -> list[str]:
    return ["haproxy", "-db", "-f", str(at / "configuration")]


PROXIES: Final[dict[str, tuple[str, Callable[[Path], list[str]]]]] = {
    "nginx": (NGINX, nginx),
    "haproxy": (HAPROXY, haproxy),
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _process(name: str, at: Path, listen: str, behind: str) -> Iterator[subprocess.Popen[bytes]]:
    if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"Debian's {name} is not installed")
    text, command = PROXIES[name]
    (at / "configuration").write_text(text.format(at=at, listen=listen, behind=behind))
    arguments = command(at)
    arguments[0] = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or name
    process = subprocess.Popen(arguments, cwd=at, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@asynccontextmanager
async def proxy(name: str, at: Path, behind: str) -> AsyncIterator[tuple[str, int]]:
    """Run one in front of HOST:PORT, and say where it listens."""
    port = free_port()
    with _process(name, at, f"127.0.0.1:{port}", behind) as process:

        async def listens() -> bool:
            assert process.poll() is None, (at / "configuration").read_text()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return True
            return False

        await eventually(listens)
        yield "127.0.0.1", port
