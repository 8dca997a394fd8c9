"""What a caller may take of a process, and that one caller's storm is nobody else's."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.e2e.conftest import Running, about, environment, run_gateway
from tests.running import eventually
from tests.scripted import Request, ScriptedUpstream, reply

CALLERS = """callers:
  storm: {{secret_sha256: "{}", limits: {{queue: 5, wait: 50ms}}}}
  calm: {{secret_sha256: "{}"}}
  paced: {{secret_sha256: "{}", limits: {{rate: 2/m, burst: 3, wait: 0s}}}}
  patient: {{secret_sha256: "{}", limits: {{in_flight: 1, wait: 60s}}}}
  narrow: {{secret_sha256: "{}", limits: {{in_flight: 1, wait: 0s}}}}
""".format(*(hashlib.sha256(name.encode()).hexdigest() for name in ("storm", "calm", "paced", "patient", "narrow")))
POLICIES = {
    "all": "match: {operations: ['*']}\ndedup: {mode: enforce, window: 1h}\n",
    "hasty": "match: {operations: ['*'], callers: [narrow]}\ntimeout: {connect: 5s, answer: 60s, caller: 50ms}\n"
    "dedup: {mode: enforce, window: 1h}\n",
}


class Held:
    """An upstream that answers nobody's patient of these until it is told to."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.upstream = ScriptedUpstream(answer=self)

    async def __call__(self, asked: Request, writer: asyncio.StreamWriter) -> None:
        if b"held" in asked.body:
            await self.release.wait()
        writer.write(reply(body=b'{"id": "t", "correlationId": "c", "status": {"value": "eligible"}}'))


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    one = Held()
    async with one.upstream:
        yield one
        one.release.set()


@pytest.fixture
async def gateway(redis_url: str, policies: Callable[..., str], held: Held) -> AsyncIterator[Running]:
    directory = policies(callers=CALLERS, **POLICIES)
    variables = environment(held.upstream.url, redis_url, policies=directory, max_in_flight="50")
    async with run_gateway(variables) as running:
        yield running
        held.release.set()


def ask(gateway: Running, who: str, about_whom: str) -> Awaitable[aiohttp.ClientResponse]:
    return gateway.submit(about(about_whom), x_api_key=who)


async def test_one_callers_storm_leaves_room_for_the_others(gateway: Running, held: Held) -> None:
    storm = [asyncio.ensure_future(ask(gateway, "storm", f"held-{number}")) for number in range(90)]
    await eventually(lambda: asyncio.sleep(0, len([one for one in storm if one.done()]) == 50))
    assert {(await one).status for one in storm if one.done()} == {503}
    calm = await asyncio.gather(*(ask(gateway, "calm", f"quick-{number}") for number in range(5)))
    assert [one.status for one in calm] == [200] * 5
    held.release.set()
    assert [(await one).status for one in storm].count(200) == 40  # four times what was left to the others


async def test_a_rate_is_kept_for_replays_as_well_and_says_when_to_come_again(gateway: Running, held: Held) -> None:
    answers = [await ask(gateway, "paced", "one") for _ in range(5)]
    assert [one.status for one in answers] == [200, 200, 200, 429, 429]
    assert (await answers[-1].json(content_type=None))["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 30
    assert answers[-1].headers["RateLimit-Policy"] == '"rate";q=1;w=30'
    assert answers[-1].headers["RateLimit"].startswith('"rate";r=0;t=')
    assert len(held.upstream.requests) == 1


async def test_a_call_that_goes_on_holds_its_callers_place(gateway: Running, held: Held) -> None:
    early = await ask(gateway, "narrow", "held")
    assert (await early.json(content_type=None))["code"] == "answer_pending"
    assert (await ask(gateway, "narrow", "another")).status == 429
    held.release.set()

    async def is_let_in() -> bool:
        return (await ask(gateway, "narrow", "another")).status == 200

    await eventually(is_let_in)
    assert (await ask(gateway, "narrow", "held")).status == 200


async def test_strangers_who_send_slowly_keep_no_caller_out(gateway: Running) -> None:
    parts = urlsplit(gateway.url)
    opened = [
        await asyncio.open_connection(parts.hostname, parts.port) for _ in range(80)
    ]  # more than there are places
    for _, writer in opened:
        writer.write(b"POST /apip/auth/v2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    await asyncio.sleep(0)
    assert [(await ask(gateway, "calm", f"quick-{number}")).status for number in range(3)] == [200] * 3
    for _, writer in opened:
        writer.transport.abort()


async def test_a_queue_keeps_no_other_caller_out_and_is_left_with_its_connection(gateway: Running, held: Held) -> None:
    parts = urlsplit(gateway.url)
    opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(70)]
    body = json.dumps(about("held")).encode()
    for _, writer in opened:
        writer.write(
            b"POST /rcm/eligibility/v1 HTTP/1.1\r\nHost: x\r\nx-api-key: patient\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
    await held.upstream.is_asked()
    await eventually(lambda: is_queued(gateway, 69))
    assert (await ask(gateway, "calm", "quick")).status == 200
    for _, writer in opened:
        writer.transport.abort()
    await eventually(lambda: is_queued(gateway, 0))
    held.release.set()


async def is_queued(gateway: Running, count: int) -> bool:
    return f"eligibility_gateway_requests_queued {count}.0" in await gateway.metrics()


async def test_whoever_loses_its_secret_while_it_waits_is_not_let_in(
    redis_url: str, policies: Callable[..., str], held: Held
) -> None:
    directory = Path(policies(callers=CALLERS, **POLICIES))
    variables = environment(held.upstream.url, redis_url, policies=str(directory), policies_poll_s="0.05")
    async with run_gateway(variables) as gateway:
        leading = asyncio.ensure_future(ask(gateway, "patient", "held-1"))
        await held.upstream.is_asked()
        waiting = asyncio.ensure_future(ask(gateway, "patient", "held-2"))
        await eventually(lambda: is_queued(gateway, 1))
        file = directory / "callers.yaml"
        file.write_text(file.read_text().replace(hashlib.sha256(b"patient").hexdigest(), "0" * 64))

        async def is_in_force() -> bool:
            return any(line["event"] == "policies are in force" for line in gateway.lines())

        await eventually(is_in_force)
        held.release.set()
        assert ((await leading).status, (await waiting).status) == (200, 401)
    assert len(held.upstream.requests) == 1


async def test_whoever_expects_and_leaves_is_no_defect_of_ours(gateway: Running) -> None:
    parts = urlsplit(gateway.url)
    for _ in range(50):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(
            b"POST /apip/auth/v2/token HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        writer.transport.abort()
    assert (await ask(gateway, "calm", "quick")).status == 200
    assert [line for line in gateway.lines() if line["event"] == "defect"] == []
