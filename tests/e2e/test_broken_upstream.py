"""What an upstream gets wrong stays with the request that met it: nobody else gets it, nothing is repeated or lost."""

import asyncio
import gzip
import json
from contextlib import suppress

import pytest

from tests.e2e.conftest import environment, run_gateway
from tests.e2e.test_pass_through import raw_exchange
from tests.scripted import TOKEN_REPLY, Request, ScriptedUpstream, reply

GET = b"GET /rcm/eligibility/v1/healthcheck HTTP/1.1\r\nHost: x\r\nX-Who: %d\r\n\r\n"
STALE = (
    reply(body=b"of-somebody-else"),
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Len",
    b"XXXX",
    b"\r\n",
)


@pytest.mark.parametrize("stale", STALE)
async def test_what_an_idle_connection_says_is_nobodys_answer(stale: bytes, redis_url: str) -> None:
    """A late second answer, or an idle 408, must not be taken for the answer to the next caller's request."""
    writers: list[asyncio.StreamWriter] = []

    async def own_answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        (who,) = request.values("x-who")
        writer.write(reply(body=b"for-" + who.encode()))

    async with (
        ScriptedUpstream(answer=own_answer) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        for who in range(6):
            seen = await raw_exchange(gateway.url, GET % who)
            assert seen.startswith(b"HTTP/1.1 200 OK")
            assert seen.endswith(b"\r\n\r\nfor-%d" % who)
            with suppress(ConnectionError):  # the gateway may have hung up on the first of it
                writers[-1].write(stale)
                await writers[-1].drain()
            await asyncio.sleep(0.02)  # the idling itself: the stray bytes arrive while nothing is asked
    assert len(upstream.requests) == 6


async def test_a_connection_that_keeps_its_peace_is_used_again(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for _ in range(20):
            assert (await gateway.submit()).status == 200
    assert upstream.connections <= 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX-A: fo\x01o\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-A: a\x7fb\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_signs_that_cannot_be_sent_on_cost_the_header_not_the_answer(raw: bytes, redis_url: str) -> None:
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        response = await gateway.submit(x_optum_correlation_id="mine-1")
        assert response.headers["x-optum-correlation-id"] == "mine-1"
        assert response.status in {200, 502}
        record = gateway.records()[-1]
    assert (record["upstream_calls"], record["operation"]) == (1, "submit_eligibility")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("line", [b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 099 Odd"])
async def test_a_status_that_is_no_answer_is_a_broken_upstream(line: bytes, redis_url: str, lookless: str) -> None:
    raw = line + b"\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n"
    async with (
        ScriptedUpstream(raw=raw) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=lookless)) as gateway,
    ):
        response = await gateway.submit()
        assert (response.status, json.loads(await response.text())["code"]) == (502, "upstream_broken")


async def test_a_token_endpoint_is_not_offered_a_compression_that_nobody_undoes(redis_url: str) -> None:
    packed = reply(body=gzip.compress(TOKEN_REPLY), headers=("Content-Encoding: gzip",))
    async with ScriptedUpstream() as upstream:
        offered: list[bytes] = []

        async def token(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            offered.append(head.lower())
            writer.write(packed if b"gzip" in head.lower() else upstream.token_reply)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(token, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        async with run_gateway(environment(f"http://{host}:{port}", redis_url)) as gateway:
            assert 'token_fetches_total{result="issued"} 1.0' in await gateway.metrics()
        server.close()
    assert b"user-agent" not in offered[0]


async def test_whoever_may_not_ask_is_told_so_before_the_body_is_read(redis_url: str) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        seen = await raw_exchange(gateway.url, head)
    assert seen.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nConnection: close" in seen


async def test_an_offer_of_http_2_is_ignored_as_the_standard_allows(redis_url: str) -> None:
    request = (
        b"GET /rcm/eligibility/v1/healthcheck HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    )
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        assert (await raw_exchange(gateway.url, request)).startswith(b"HTTP/1.1 200 OK")
    (seen,) = upstream.requests
    assert seen.values("upgrade") == seen.values("http2-settings") == []


async def test_garbage_is_answered_once_and_not_read_on(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"x" * 1_000_000)
        seen = await reader.readuntil(b"\r\n\r\n")
        assert seen.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await send_more(reader, writer)
        writer.close()
        assert [record["code"] for record in gateway.records()] == ["not_http"]


async def send_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Go on sending until somebody hangs up, and then read to the end."""
    for _ in range(100):
        writer.write(b"x" * 1_000_000)
        await asyncio.wait_for(writer.drain(), 5)
    await reader.readexactly(10_000)
