"""The bare peer: the pass-through that anyone would write with aiohttp, and nothing else.

Facts
- A `web.Application`, one catch-all route, one ClientSession: the body is read whole on both sides, hop-by-hop
  headers are dropped. No policy, no token, no metrics, no log line.
- It is not made slow: no decompression, no cookies, no limit on the pool, no access log.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_BACKLOG: Final = 4096  # aiohttp's own 128 would not survive 9,000 connections in a few seconds
_NOT_FORWARDED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "content-length"),
    },
)
_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


def application(upstream: str) -> web.Application:
    """Return the application that forwards everything to one address."""

    async def forward(request: web.Request) -> web.Response:
        async with request.app[_SESSION].request(
            request.method,
            URL(upstream + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=await answer.read())

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as app[_SESSION]:
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _NOT_FORWARDED)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.passthrough")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="http://HOST:PORT")
    parser.add_argument("--uvloop", action="store_true", help="instead of asyncio's own event loop")
    arguments = parser.parse_args()
    web.run_app(
        application(arguments.upstream),
        host="127.0.0.1",
        port=arguments.port,
        access_log=None,
        backlog=_BACKLOG,
        loop=uvloop.new_event_loop() if arguments.uvloop else asyncio.new_event_loop(),
        print=None,
        shutdown_timeout=0.1,
    )


if __name__ == "__main__":
    main()
