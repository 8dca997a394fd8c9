"""The admin port: for Prometheus, Kubernetes and operators; never where callers come in.

Rules
- `/livez` and `/readyz` ask neither Redis nor the upstream: an outage elsewhere must not take down every
  replica at once.
- `/metrics` is worked out in slices, between which requests are served: a scrape must not be felt.
- `/policies` shows what is in force, without secrets and without their digests.
- What is refused is refused in fixed words: aiohttp's own quote what was sent, which may not have been meant for here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.http.server import Request

_JSON: Final = "application/json"
_METHODS: Final = ("GET", "HEAD")
_TURNS: Final = 50
_IDLE_TURN_S: Final = 0.000_02  # a turn in which nothing was done takes a few microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """What the admin port shows; each is asked anew for each request."""

    exposition: Callable[[str], tuple[str, Iterable[bytes]]]
    is_ready: Callable[[], bool]
    policies: Callable[[], object]


def admin_server(view: AdminView) -> web.Server:
    """Return the protocol factory of the admin port."""

    async def metrics(request: web.BaseRequest) -> web.StreamResponse:
        content_type, slices = view.exposition(request.headers.get("Accept", ""))
        headers = {"Content-Type": content_type}
        return web.Response(headers=headers) if request.method == "HEAD" else await _sliced(request, headers, slices)

    async def livez(_: web.BaseRequest) -> web.Response:
        return _status("alive")

    async def readyz(_: web.BaseRequest) -> web.Response:
        return _status("ready") if view.is_ready() else _status("draining", HTTPStatus.SERVICE_UNAVAILABLE)

    async def policies(_: web.BaseRequest) -> web.Response:
        return web.Response(body=orjson.dumps(view.policies(), option=orjson.OPT_INDENT_2), content_type=_JSON)

    pages: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
        "/metrics": metrics,
        "/livez": livez,
        "/readyz": readyz,
        "/policies": policies,
    }

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        page = pages.get(request.path)
        if page is None:
            return _status("unknown path", HTTPStatus.NOT_FOUND)
        if request.method not in _METHODS:
            return _status("wrong method", HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(_METHODS))
        return await page(request)

    return _Server(handle, request_factory=Request.of)


async def _sliced(request: web.BaseRequest, headers: dict[str, str], slices: Iterable[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for part in slices:
        if part:
            await response.write(part)
        await _step_aside()
    await response.write_eof()
    return response


async def _step_aside() -> None:
    """Return when nothing else is ready to run, or after so many turns of the loop.

    A request takes dozens of turns, one for each thing that it awaits; it must not wait for a slice in each of them.
    """
    for _ in range(_TURNS):
        began_at = time.perf_counter()
        await asyncio.sleep(0)
        if time.perf_counter() - began_at < _IDLE_TURN_S:
            return


def _status(word: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps({"status": word}), content_type=_JSON, headers=headers)


class _Connection(RequestHandler):
    """aiohttp's connection, but for what it says of what it cannot read."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer with fixed words."""
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun: there is no place for another")
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        response = (
            _status("failed", HTTPStatus.INTERNAL_SERVER_ERROR)
            if is_ours
            else _status("no HTTP", HTTPStatus.BAD_REQUEST)
        )
        response.force_close()
        return response


class _Server(web.Server):
    """A factory of `_Connection`s."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type] # as in server.py
