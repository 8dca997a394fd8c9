"""From a Reply, or an error, to what aiohttp sends; no caller is waited for without end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway.errors import CallerStalled
from gateway.exchange import CORRELATION_ID, Reply
from gateway.problem import GatewayError

AT_ONCE_BYTES: Final = 65_536  # what a transport takes without waiting for the caller


def problem_reply(error: GatewayError, correlation_id: str) -> Reply:
    """Return the problem document of an error as a reply."""
    problem = error.problem
    headers = CIMultiDict(problem.headers)
    headers["Content-Type"] = error.content_type
    headers[CORRELATION_ID] = correlation_id
    return Reply(
        status=problem.status,
        reason=HTTPStatus(problem.status).phrase,
        headers=headers,
        body=orjson.dumps(error.document(correlation_id)),
    )


async def in_time(writing: Awaitable[None], stall_s: float) -> None:
    """Write while the caller takes it. Raises CallerStalled."""
    try:
        async with asyncio.timeout(stall_s):
            await writing
    except TimeoutError:
        raise CallerStalled from None


def response_of(reply: Reply, *, is_whole: bool) -> web.StreamResponse:
    """Return what aiohttp sends: with its body, or with one that is written part by part."""
    if is_whole:
        return web.Response(status=reply.status, reason=reply.reason, headers=reply.headers, body=reply.body)
    response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=reply.headers)
    if reply.rest is None:
        response.content_length = len(reply.body)
    return response


async def in_parts(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body in parts of which each is written at once."""
    for begin in range(0, len(body), AT_ONCE_BYTES):
        yield body[begin : begin + AT_ONCE_BYTES]
