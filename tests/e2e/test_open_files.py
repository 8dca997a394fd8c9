"""What a process does that may open few files: a request that follows needs one, a request that leads two."""

import asyncio
from collections import Counter

import aiohttp

from tests.e2e.conftest import BODY, about, environment
from tests.e2e.processes import Asked, Held, ask, waiting
from tests.running import GatewayProcess, eventually

SPARE = 256  # what the process keeps for itself
SOCKETS = 40


async def test_followers_need_one_file_each_and_leaders_two(redis_url: str) -> None:
    held = Held()
    async with held.upstream as upstream, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        variables = environment(upstream.url, redis_url)
        with await asyncio.to_thread(GatewayProcess, variables, open_files=SPARE + SOCKETS) as gateway:
            followers = [
                asyncio.create_task(ask(session, gateway.url, f"f-{number}", BODY)) for number in range(SOCKETS - 10)
            ]
            await waiting(session, [gateway], SOCKETS - 10)
            leaders: list[asyncio.Task[Asked]] = []
            for number in range(9):
                leader = asyncio.create_task(ask(session, gateway.url, f"l-{number}", about(number)))
                leaders.append(leader)

                async def has_its_place_or_none() -> bool:
                    return held.calls + sum(one.done() for one in leaders) == len(leaders) + 1

                await eventually(has_its_place_or_none)
            held.release.set()
            statuses = Counter([(await one)[0] for one in leaders])
            assert (statuses[200], statuses[503]) == (held.calls - 1, len(leaders) - held.calls + 1)
            assert statuses[200] == 4, "the followers' call took one of the ten that were left, and each leader two"
            assert {(await one)[0] for one in followers} == {200}
            assert (await ask(session, gateway.url, "later", about(99)))[0] == 200


async def test_callers_that_say_nothing_make_room_for_those_who_ask(redis_url: str) -> None:
    held = Held()
    held.release.set()
    async with held.upstream as upstream, aiohttp.ClientSession() as session:
        variables = environment(upstream.url, redis_url)
        with await asyncio.to_thread(GatewayProcess, variables, open_files=SPARE + SOCKETS) as gateway:
            host, port = gateway.url.removeprefix("http://").split(":")
            silent = [await asyncio.open_connection(host, int(port)) for _ in range(SOCKETS + 10)]
            for _, writer in silent[::2]:
                writer.write(b"POST /rcm/eligibility/v1 HTTP/1.1\r\nHost: half\r\n")
            assert [(await ask(session, gateway.url, f"c-{number}", about(number)))[0] for number in range(5)] == [
                200
            ] * 5
            for _, writer in silent:
                writer.close()
