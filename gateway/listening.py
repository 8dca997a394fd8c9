"""Where the gateway listens: the traffic port and the admin port."""

import os
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from gateway.http.admin import AdminView, admin_server
from gateway.http.ingress import Ingress
from gateway.settings import Address, variable
from gateway.start import StartError

_BACKLOG: Final = 4096
_CLEANUP_S: Final = 0.5


def admin_runner(view: AdminView) -> web.ServerRunner:
    """Return what serves the admin port."""
    return web.ServerRunner(admin_server(view), shutdown_timeout=_CLEANUP_S)


def traffic_runner(ingress: Ingress) -> web.ServerRunner:
    """Return what serves the traffic port."""
    # Whoever had to end has ended in `drain`; aiohttp would wait for the others twice.
    return web.ServerRunner(ingress.server(), shutdown_timeout=_CLEANUP_S)


async def listen(stack: AsyncExitStack, runner: web.BaseRunner, name: str, address: Address) -> web.TCPSite:
    """Listen until the stack is closed. Raises StartError."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, backlog=_BACKLOG)
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
