"""What is refused: in one shape, with a hint, and with nothing of it reaching the upstream."""

import asyncio
import hashlib
import json
import socket
from collections.abc import Callable

import pytest
from yarl import URL

from gateway.policy.documents import PolicyFilesError
from gateway.start import StartError
from tests.e2e.conftest import about, environment, run_gateway
from tests.e2e.test_pass_through import raw_exchange
from tests.scripted import Request, ScriptedUpstream, reply

HEAD = b"POST /rcm/eligibility/v1 HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /rcm/eligibility/v1/healthcheck HTTP/1.1\r\nHost: x\r\n"


async def refused(url: str, request: bytes) -> tuple[int, dict[str, object], bytes]:
    """Send bytes, read the reply to its end, and return status, problem and head."""
    seen = await raw_exchange(url, request)
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"\r\nx-optum-correlation-id: " in head
    assert b"\r\nServer:" not in head
    return int(head.split(b" ")[1]), json.loads(body), head


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_path"),
        (b"GET /rcm/eligibility/v1/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_path"),
        (b"GET /rcm/eligibility/v1/transactions/.. HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_path"),
        (b"GET /rcm/eligibility/v1/transactions/a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_path"),
        (b"DELETE /rcm/eligibility/v1 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "wrong_method"),
        (b"GET /rcm/eligibility/v1/coverage-discovery/x12 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "wrong_method"),
        (HEAD + b"Content-Length: 2000000\r\n\r\n", 413, "body_too_large"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * 0x200000 + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
        (HEAD + b"Content-Length: 2\r\nExpect: magic\r\n\r\n{}", 417, "expectation_unknown"),
        (GET.replace(b"/rcm", b"http://evil/rcm") + b"\r\n", 400, "ambiguous_request"),
        (GET.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n", 400, "ambiguous_request"),
        (GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400, "ambiguous_request"),
        (GET + b"X-Odd: \xff\xfe\r\n\r\n", 400, "ambiguous_request"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_request"),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "not_http"),
        (b"GET / HTTP/1.1\r\nAuthoriz\x00ation: Bearer TSECRET\r\n\r\n", 400, "not_http"),
        (b"nonsense\r\n\r\n", 400, "not_http"),
        (GET + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431, "head_too_large"),
    ],
)
async def test_a_refusal_has_one_shape_and_reaches_nobody(
    request_bytes: bytes,
    status: int,
    code: str,
    redis_url: str,
) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        seen_status, problem, head = await refused(gateway.url, request_bytes)
        assert (seen_status, problem["code"], problem["status"]) == (status, code, status)
        assert "TSECRET" not in json.dumps(problem) + head.decode("latin-1") + gateway.output.getvalue().decode()
        assert gateway.records()[-1]["code"] == code
        assert f'problems_total{{code="{code}"}} 1.0' in await gateway.metrics()
    assert upstream.requests == []
    if status == 405:
        assert b"\r\nAllow: POST" in head


async def test_a_body_that_comes_too_slowly_is_408_and_the_connection_is_closed(redis_url: str) -> None:
    variables = environment("http://127.0.0.1:1", redis_url, body_timeout_s="0.2")
    async with ScriptedUpstream() as upstream:
        variables["GATEWAY_UPSTREAM_URL"] = upstream.url
        async with run_gateway(variables) as gateway:
            status, problem, head = await refused(gateway.url, HEAD + b"Content-Length: 10\r\n\r\n{}")
    assert (status, problem["code"]) == (408, "body_too_slow")
    assert b"\r\nConnection: close" in head
    assert upstream.requests == []


async def test_a_caller_that_leaves_in_the_middle_of_its_body_reaches_nobody(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        parts = URL(gateway.url)
        _, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(HEAD + b"Content-Length: 10\r\n\r\n{}")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with gateway.session.get(f"{gateway.url}/rcm/eligibility/v1/healthcheck") as response:
            assert response.status == 200
    assert [request.line.split()[0] for request in upstream.requests] == [b"GET"]


async def test_a_wrong_media_type_is_the_upstreams_to_judge(redis_url: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
        gateway.session.post(
            f"{gateway.url}/rcm/eligibility/v1",
            data=b"<xml/>",
            headers={"Content-Type": "application/xml"},
        ) as response,
    ):
        assert response.status == 200
    assert upstream.requests[0].body == b"<xml/>"
    assert upstream.requests[0].values("content-type") == ["application/xml"]


async def test_expect_is_answered_here_and_does_not_pass(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        parts = URL(gateway.url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await writer.wait_closed()
    assert upstream.requests[0].values("expect") == []
    assert upstream.requests[0].body == b"{}"


async def test_one_request_more_than_the_process_holds_is_503_at_once(redis_url: str) -> None:
    release = asyncio.Event()
    held = asyncio.Semaphore(0)

    async def hold(_: Request, writer: asyncio.StreamWriter) -> None:
        held.release()
        await release.wait()
        writer.write(reply())

    async with (
        ScriptedUpstream(answer=hold) as upstream,
        run_gateway(environment(upstream.url, redis_url, max_in_flight="2")) as gateway,
    ):
        waiting = [asyncio.create_task(gateway.submit(about(number))) for number in range(2)]
        await held.acquire()
        await held.acquire()
        response = await gateway.submit()
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        release.set()
        assert [(await one).status for one in waiting] == [200, 200]


SECRETS = {name: f"secret-of-{name}" for name in ("billing", "lookup")}
CALLERS = "callers:\n" + "".join(
    f"  {name}:\n    secret_sha256: {hashlib.sha256(secret.encode()).hexdigest()}\n    operations: [{operations}]\n"
    for (name, secret), operations in zip(SECRETS.items(), ("submit_eligibility", "healthcheck"), strict=True)
)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthenticated"),
        ({"Authorization": "Bearer wrong"}, 401, "unauthenticated"),
        ({"x-api-key": ""}, 401, "unauthenticated"),
        ({"x-api-key": SECRETS["billing"], "Authorization": f"Bearer {SECRETS['lookup']}"}, 401, "unauthenticated"),
        ({"x-api-key": SECRETS["lookup"]}, 403, "no_policy"),
        ({"x-api-key": SECRETS["billing"]}, 200, ""),
        ({"Authorization": f"bearer {SECRETS['billing']}"}, 200, ""),
    ],
)
async def test_who_is_not_known_or_not_entitled_is_refused(
    headers: dict[str, str],
    status: int,
    code: str,
    redis_url: str,
    policies: Callable[..., str],
) -> None:
    directory = policies(callers=CALLERS, all='match: {operations: ["*"]}\n')
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        response = await gateway.submit(**headers)
        assert response.status == status
        assert gateway.records()[-1]["code"] == code
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert len(upstream.requests) == (status == 200)


def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(reply(body=b"x" * 100)[:-50])
    writer.close()


def babble(writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is no HTTP\r\n\r\n")


@pytest.mark.parametrize("answer", [reset, cut, babble])
async def test_a_post_is_never_sent_twice_however_its_answer_is_lost(
    answer: Callable[[asyncio.StreamWriter], None],
    redis_url: str,
    lookless: str,
) -> None:
    async def misbehave(_: Request, writer: asyncio.StreamWriter) -> None:
        answer(writer)

    async with (
        ScriptedUpstream(answer=misbehave) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=lookless)) as gateway,
    ):
        response = await gateway.submit()
        code = json.loads(await response.text())["code"]
    assert (response.status, code, len(upstream.requests)) == (502, "upstream_broken", 1)


async def test_an_answer_that_does_not_come_is_a_504_that_says_what_to_do(
    redis_url: str,
    policies: Callable[..., str],
) -> None:
    async def silence(_: Request, __: asyncio.StreamWriter) -> None:
        return

    directory = policies(
        all='match: {operations: ["*"]}\ntimeout: {answer: 200ms}\n',
        callers="callers: {anonymous: {}}\n",
    )
    async with (
        ScriptedUpstream(answer=silence) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        response = await gateway.submit()
        problem = json.loads(await response.text())
    assert (response.status, problem["code"], problem["retry_safe"]) == (504, "upstream_timeout", False)
    assert len(upstream.requests) == 1


async def test_an_upstream_that_is_gone_is_a_502_that_is_safe_to_retry(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await upstream.__aexit__()
        response = await gateway.submit()
        problem = json.loads(await response.text())
    assert (response.status, problem["code"], problem["retry_safe"]) == (502, "upstream_unreachable", True)


async def test_anonymous_callers_are_not_served_beyond_this_machine_by_accident(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream:
        variables = environment(upstream.url, redis_url, listen="0.0.0.0:0")
        with pytest.raises(PolicyFilesError, match=r"callers\.yaml:\d+: found the caller 'anonymous'"):
            async with run_gateway(variables):
                pass
        async with run_gateway(variables | {"GATEWAY_ALLOW_PUBLIC_ANONYMOUS": "true"}) as gateway:
            assert URL(gateway.url).port


async def test_a_port_that_is_taken_is_one_sentence(redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with ScriptedUpstream() as upstream:
            with pytest.raises(StartError, match=f"GATEWAY_LISTEN: found {address} taken"):
                async with run_gateway(environment(upstream.url, redis_url, listen=address)):
                    pass


async def test_a_status_line_that_cannot_be_sent_on_costs_its_words_not_the_answer(redis_url: str) -> None:
    raw = b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 2\r\n\r\n{}"
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        response = await gateway.submit()
    assert (response.status, await response.text()) == (200, "{}")
