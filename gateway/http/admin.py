"""The admin port: for Prometheus, Kubernetes and operators; never where callers come in.

Rules
- `/livez` and `/readyz` ask neither Redis nor the upstream: an outage elsewhere must not take down every
  replica at once.
- `/metrics` is worked out in slices, between which requests are served: a scrape must not be felt.
- `/policies` shows what is in force, without secrets and without their digests.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
from aiohttp import web

_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """What the admin port shows; each is asked anew for each request."""

    exposition: Callable[[str], tuple[str, Iterable[bytes]]]
    is_ready: Callable[[], bool]
    policies: Callable[[], object]


def admin_application(view: AdminView) -> web.Application:
    """Return the application of the admin port."""

    async def metrics(request: web.Request) -> web.Response:
        content_type, slices = view.exposition(request.headers.get("Accept", ""))
        body = bytearray()
        for part in slices:
            body += part
            await asyncio.sleep(0)
        return web.Response(body=bytes(body), headers={"Content-Type": content_type})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"alive"}', content_type=_JSON)

    async def readyz(_: web.Request) -> web.Response:
        if view.is_ready():
            return web.Response(body=b'{"status":"ready"}', content_type=_JSON)
        return web.Response(status=503, body=b'{"status":"draining"}', content_type=_JSON)

    async def policies(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(view.policies(), option=orjson.OPT_INDENT_2), content_type=_JSON)

    application = web.Application()
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/policies", policies),
        ],
    )
    return application
