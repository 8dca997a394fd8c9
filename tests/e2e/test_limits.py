"""What a caller may take of a process, and that one caller's storm is nobody else's."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.e2e.conftest import Running, about, environment, run_gateway
from tests.running import eventually
from tests.scripted import Request, ScriptedUpstream, reply

CALLERS = """callers:
  storm: {{secret_sha256: "{}", limits: {{queue: 5, wait: 50ms}}}}
  calm: {{secret_sha256: "{}"}}
  paced: {{secret_sha256: "{}", limits: {{rate: 2/m, burst: 3, wait: 0s}}}}
  narrow: {{secret_sha256: "{}", limits: {{in_flight: 1, wait: 0s}}}}
""".format(*(hashlib.sha256(name.encode()).hexdigest() for name in ("storm", "calm", "paced", "narrow")))
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
