"""Where the gateway listens: the traffic port and the admin port."""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from gateway.http.admin import AdminView, admin_server
from gateway.http.ingress import Ingress
from gateway.http.tls import Tls, TlsSite
from gateway.settings import Address, variable
from gateway.start import StartError

_BACKLOG: Final = 4096
_CLEANUP_S: Final = 0.5


def refuse_what_is_weak() -> None:
    """Refuse to serve with what is for developers. Raises StartError.

    In debug mode aiohttp answers with tracebacks; its parser in Python takes what the other one refuses.
    """
    if asyncio.get_running_loop().get_debug():
        raise StartError("found Python's or asyncio's debug mode, expected neither PYTHONASYNCIODEBUG nor -X dev")
    if HttpRequestParser is HttpRequestParserPy:
        raise StartError(
            "found aiohttp's HTTP parser in Python, expected its extension: no AIOHTTP_NO_EXTENSIONS, and a wheel of "
            "aiohttp for this platform"
        )


def admin_runner(view: AdminView) -> web.ServerRunner:
    """Return what serves the admin port."""
    return web.ServerRunner(admin_server(view), shutdown_timeout=_CLEANUP_S)


def traffic_runner(ingress: Ingress) -> web.ServerRunner:
    """Return what serves the traffic port."""
    # Whoever had to end has ended in `drain`; aiohttp would wait for the others twice.
    return web.ServerRunner(ingress.server(), shutdown_timeout=_CLEANUP_S)


async def listen(
    stack: AsyncExitStack, runner: web.ServerRunner, name: str, address: Address, tls: Tls | None = None
) -> web.TCPSite:
    """Listen until the stack is closed, in plain HTTP or with TLS. Raises StartError."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, backlog=_BACKLOG)
    if tls is not None:
        site = TlsSite(runner, address.host, address.port, backlog=_BACKLOG, tls=tls)
        stack.push_async_callback(site.end)
    try:
        await site.start()
    except OSError as error:
        raise StartError(
            f"{variable(name)}: found {address} taken or not allowed ({os.strerror(error.errno or 0)}), "
            "expected an address to listen on",
        ) from error
    return site


def address_of(site: web.TCPSite) -> str:
    """Return where a site listens, with the port that the system chose."""
    server = site._server  # noqa: SLF001 - the only place that knows which port the system chose
    sockets = getattr(server, "sockets", None) or ()
    return str(Address(*sockets[0].getsockname()[:2])) if sockets else site.name
