"""The admin port: for Prometheus, Kubernetes and operators; never where callers come in.

Rules
- `/livez` and `/readyz` ask neither Redis nor the upstream: an outage elsewhere must not take down every
  replica at once.
- `/metrics` is worked out in slices, between which requests are served: a scrape must not be felt.
- `/policies` shows what is in force, without secrets and without their digests.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

_JSON: Final = "application/json"
_TURNS: Final = 50
_IDLE_TURN_S: Final = 0.000_02  # a turn in which nothing was done takes a few microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """What the admin port shows; each is asked anew for each request."""

    exposition: Callable[[str], tuple[str, Iterable[bytes]]]
    is_ready: Callable[[], bool]
    policies: Callable[[], object]


async def _step_aside() -> None:
    """Return when nothing else is ready to run, or after so many turns of the loop.

    A request takes dozens of turns, one for each thing that it awaits; it must not wait for a slice in each of them.
    """
    for _ in range(_TURNS):
        began_at = time.perf_counter()
        await asyncio.sleep(0)
        if time.perf_counter() - began_at < _IDLE_TURN_S:
            return


def admin_application(view: AdminView) -> web.Application:
    """Return the application of the admin port."""

    async def metrics(request: web.Request) -> web.StreamResponse:
        content_type, slices = view.exposition(request.headers.get("Accept", ""))
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in slices:
            if part:
                await response.write(part)
            await _step_aside()
        await response.write_eof()
        return response

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
