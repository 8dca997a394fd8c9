"""What goes in comes out: method, raw target, body, status and end-to-end headers, byte for byte."""

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientPayloadError
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.operations import OPERATIONS, OperationName
from gateway.simulator import Simulator
from tests.e2e.conftest import BODY, Running, environment, run_gateway
from tests.scripted import Request, ScriptedUpstream, reply

ADDED = {"x-optum-correlation-id", "authorization", "content-length", "host"}


async def last_request(simulator: Simulator, gateway: Running) -> dict[str, Any]:
    async with gateway.session.get(f"{simulator.url}/_simulator/requests?limit=1") as response:
        requests: list[dict[str, Any]] = await response.json()
        return requests[0]


X12 = (
    "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1200*^*00501*000000001*0*T*:~"
    "GS*HS*SENDER*RECEIVER*20260102*1200*1*X*005010X279A1~ST*270*0001*005010X279A1~BHT*0022*13*1*20260102*1200~"
    "HL*1**20*1~NM1*PR*2*INSTANT*****PI*SIM-INSTANT~HL*2*1*21*1~NM1*1P*2*CLINIC*****XX*1999999984~HL*3*2*22*0~"
    "TRN*1*1*9000000000~NM1*IL*1*SAMPLE*ADA****MI*TESTMEMBER1~DMG*D8*19700101~DTP*291*D8*20260102~EQ*30~"
    "SE*13*0001~GE*1*1~IEA*1*000000001~"
)
REQUESTS = {
    OperationName.SUBMIT_ELIGIBILITY: (BODY, 200),
    OperationName.SUBMIT_ELIGIBILITY_X12: ({"x12": X12}, 200),
    OperationName.LIST_TRANSACTIONS: (None, 200),
    OperationName.GET_TRANSACTION: (None, 404),
    OperationName.SUBMIT_DISCOVERY: ({"canonicalEligibilityRequest": BODY, "dryRun": True}, 200),
    OperationName.SUBMIT_DISCOVERY_X12: ({"x12-270": X12, "x12-271": X12, "dryRun": True}, 200),
    OperationName.LIST_DISCOVERIES: (None, 200),
    OperationName.GET_DISCOVERY: (None, 404),
    OperationName.HEALTHCHECK: (None, 200),
}


@pytest.mark.parametrize("name", list(OperationName))
async def test_each_of_the_nine_operations_passes(name: OperationName, gateway: Running, simulator: Simulator) -> None:
    operation = OPERATIONS[name]
    document, status = REQUESTS[name]
    body = json.dumps(document).encode() if document is not None else None
    target = operation.path.replace("{id}", "0716e3e8-87ee-11ee-b9d1-0242ac120002")
    async with gateway.session.request(
        operation.method,
        URL(gateway.url + target, encoded=True),
        data=body,
        headers={"X-Kept": "Value; with=Bytes", "Content-Type": "application/json"},
    ) as response:
        assert response.status == status
        assert response.headers["x-optum-trace-id"]
    seen = await last_request(simulator, gateway)
    assert (seen["method"], seen["target"]) == (operation.method, target)
    assert base64.b64decode(seen["body"]) == (body or b"")
    assert ["X-Kept", "Value; with=Bytes"] in seen["headers"]
    assert gateway.records()[-1]["operation"] == name


def contract_examples() -> Iterator[tuple[str, str, bytes]]:
    path = os.environ.get("ENHANCED_ELIGIBILITY_OPENAPI")
    if path is None:
        return
    contract = json.loads(Path(path).read_text())
    bodies = contract["components"]["requestBodies"]
    for target, operations in contract["paths"].items():
        reference = operations.get("post", {}).get("requestBody", {}).get("$ref", "")
        if not reference:
            continue
        for name, example in bodies[reference.rpartition("/")[2]]["content"]["application/json"]["examples"].items():
            value = contract["components"]["examples"][example["$ref"].rpartition("/")[2]]["value"]
            yield name, target, json.dumps(value, indent=2).encode()


@pytest.mark.skipif(
    "ENHANCED_ELIGIBILITY_OPENAPI" not in os.environ,
    reason="ENHANCED_ELIGIBILITY_OPENAPI does not name the public contract's document",
)
async def test_every_example_of_the_public_contract_goes_through_and_back(
    gateway: Running,
    simulator: Simulator,
) -> None:
    """Ten digits stand in one example where the document wants nine: so the simulator's own verdict is the measure."""
    examples = list(contract_examples())
    assert len(examples) >= 13
    for name, target, body in examples:
        async with gateway.session.post(
            URL(gateway.url + target, encoded=True),
            data=body,
            headers={"Content-Type": "application/json"},
        ) as response:
            answer = await response.read()
        seen = await last_request(simulator, gateway)
        assert base64.b64decode(seen["body"]) == body, name
        status, headers = await ask_directly(simulator, gateway, target, body)
        assert response.status == status, name
        own = set() if "coverage-discovery" in target else {"Cache-Status"}  # what the gateway adds to questions
        assert set(response.headers) - {"Date"} == headers - {"Date"} | own, name
        assert seen["target"] == target
        assert len(answer) == int(response.headers["Content-Length"])


async def ask_directly(simulator: Simulator, gateway: Running, target: str, body: bytes) -> tuple[int, set[str]]:
    credentials = {"client_id": "simulator", "client_secret": "simulator-secret", "grant_type": "client_credentials"}
    async with gateway.session.post(f"{simulator.url}/apip/auth/v2/token", json=credentials) as response:
        token = (await response.json())["access_token"]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    async with gateway.session.post(URL(simulator.url + target, encoded=True), data=body, headers=headers) as response:
        await response.read()
        return response.status, set(response.headers)


SEGMENT = st.from_regex(r"(?:[A-Za-z0-9_~!$&'()*+,;=:@-]|%(?:7E|41|20|3F)){1,20}", fullmatch=True)
QUERY = st.from_regex(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2}){0,40}", fullmatch=True)


def test_the_raw_target_arrives_as_it_was_sent() -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        upstream, gateway = runner.run(scripted(stack))

        @given(segment=SEGMENT, query=QUERY)
        def check(segment: str, query: str) -> None:
            target = f"/rcm/eligibility/v1/transactions/{segment}?{query}"
            line = f"GET {target} HTTP/1.1".encode()
            seen = runner.run(raw_exchange(gateway.url, line + b"\r\nHost: x\r\n\r\n"))
            assert seen.startswith(b"HTTP/1.1 200")
            assert upstream.requests[-1].line == line

        try:
            check()
        finally:
            runner.run(stack.aclose())


@pytest.mark.parametrize(
    "raw",
    [
        reply("204 No Content", b"", ()),
        reply("404 Not Found", b'["Not Found"]', ("Content-Type: application/json", "x-optum-trace-id: t")),
        reply("307 Temporary Redirect", b"", ("Location: /elsewhere",)),
        reply("500 Internal Server Error", b"oops", ("Content-Type: text/plain", "X-Odd: \u00e9")),
        reply("200 OK", bytes(range(256)) * 5, ("Content-Encoding: gzip", "Set-Cookie: a=b", "ETag: W/1")),
        reply("299 Odd But Fine", b"x", ()),
    ],
)
async def test_a_reply_comes_back_as_the_upstream_gave_it(raw: bytes, redis_url: str) -> None:
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        seen = await raw_exchange(gateway.url, b"GET /rcm/eligibility/v1/transactions HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = seen.partition(b"\r\n\r\n")
    expected_head, _, expected_body = raw.partition(b"\r\n\r\n")
    line, *headers = expected_head.split(b"\r\n")
    assert head.split(b"\r\n")[0] == line
    assert body == expected_body
    for header in headers:
        if header.startswith(b"X-Odd"):
            continue  # bytes that are no UTF-8 cannot be passed on; the answer can
        assert header in head.split(b"\r\n") or line.startswith(b"HTTP/1.1 204")
    added = {one.split(b":")[0].lower() for one in head.split(b"\r\n")[1:]} - {
        one.split(b":")[0].lower() for one in headers
    }
    assert added <= {b"date", b"x-optum-correlation-id"}


async def test_a_large_answer_streams_through_whole(redis_url: str) -> None:
    body = os.urandom(3_000_000)
    async with (
        ScriptedUpstream(raw=reply(body=body)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
        gateway.session.get(f"{gateway.url}/rcm/eligibility/v1/transactions") as response,
    ):
        assert await response.read() == body
    assert gateway.records()[-1]["reply_bytes"] == len(body)


async def test_a_large_answer_in_http_1_0_ends_with_its_connection(redis_url: str) -> None:
    body = os.urandom(3_000_000)
    asked = b"GET /rcm/eligibility/v1/transactions HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    async with (
        ScriptedUpstream(raw=reply(body=body)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        parts = urlsplit(gateway.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(asked + asked)
        seen = await reader.read()
        writer.close()
    assert seen.partition(b"\r\n\r\n")[2] == body  # and no second reply behind it
    assert len(upstream.requests) == 1


async def test_a_large_answer_that_is_cut_off_is_seen_to_be_cut_off(redis_url: str) -> None:
    async def torn(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=b"x" * 1_000_000)[:700_000])
        await writer.drain()
        writer.close()

    async with ScriptedUpstream(answer=torn) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        with pytest.raises(ClientPayloadError):
            async with gateway.session.get(f"{gateway.url}/rcm/eligibility/v1/transactions") as response:
                await response.read()
    record = gateway.records()[-1]
    assert (record["is_complete"], record["code"]) == (False, "upstream_broken")


async def test_a_policy_forwards_what_is_no_operation(redis_url: str, policies: Callable[..., str]) -> None:
    directory = policies(
        beta='match: {forward: ["GET /rcm/eligibility/v1/payers", "POST /beta/*"]}\n',
        callers="callers: {anonymous: {}}\n",
    )
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        for method, path, status in (
            ("GET", "/rcm/eligibility/v1/payers", 200),
            ("POST", "/beta/x/y?z=1", 200),
            ("GET", "/beta/x", 404),
            ("POST", "/beta/../x", 404),
            ("POST", "/beta/%2e%2e/x", 404),
            ("GET", "/rcm/eligibility/v1/healthcheck", 403),
        ):
            async with gateway.session.request(method, URL(gateway.url + path, encoded=True)) as response:
                assert (method, path, response.status) == (method, path, status)
        assert [request.line for request in upstream.requests] == [
            b"GET /rcm/eligibility/v1/payers HTTP/1.1",
            b"POST /beta/x/y?z=1 HTTP/1.1",
        ]
        assert gateway.records()[0]["operation"] == "forwarded"


async def scripted(stack: AsyncExitStack) -> tuple[ScriptedUpstream, Running]:
    upstream = await stack.enter_async_context(ScriptedUpstream())
    return upstream, await stack.enter_async_context(run_gateway(environment(upstream.url, "embedded")))


async def raw_exchange(url: str, request: bytes) -> bytes:
    """Send bytes, and return what comes back until the connection closes or is quiet."""
    parts = URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")),
        0,
    )
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return head + body
