"""Callers that leave at any moment: whoever stays gets the answer to his own question, and nothing is left behind."""

import asyncio
import json
import random

import aiohttp

from tests.e2e.conftest import about, run_gateway
from tests.faults.conftest import Answering, environment, metric, settled
from tests.scripted import Request

QUESTIONS = 36
KNOWN = 12  # asked before, and replayed
REQUESTS = 720
LEAVES_WITHIN_S = 0.02


class Hesitant(Answering):
    """Answers after a moment of chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._chance.random() * LEAVES_WITHIN_S)
        await super()._answer(request, writer)


async def test_of_many_who_leave_nobody_takes_anothers_answer_along(redis_url: str) -> None:
    chance = random.Random(11)  # noqa: S311 - any will do
    hesitant = Hesitant(chance)
    left = 0

    async with (
        hesitant.upstream as upstream,
        run_gateway(environment(upstream.url, redis_url)) as one,
        run_gateway(environment(upstream.url, redis_url)) as two,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def ask(number: int) -> None:
            member, name = number % QUESTIONS, f"c-{number}"
            url = (one if chance.random() < 0.5 else two).url
            headers = {"x-optum-correlation-id": name}
            async with session.post(f"{url}/rcm/eligibility/v1", json=about(member), headers=headers) as response:
                document = json.loads(await response.read())
                assert response.status == 200
                assert response.headers["x-optum-correlation-id"] == name
                assert document["member"] == f"TESTMEMBER-{member}"
                assert document["correlationId"] == (name if "sourceId" in document else "upstream")

        async def leave(number: int, after_s: float) -> None:
            nonlocal left
            try:
                async with asyncio.timeout(after_s):
                    await ask(number)
            except TimeoutError:
                left += 1

        await asyncio.gather(*(ask(number) for number in range(KNOWN)))
        for start in range(0, REQUESTS, REQUESTS // 4):
            numbers = list(range(start, start + REQUESTS // 4))
            chance.shuffle(numbers)
            await asyncio.gather(
                *(
                    leave(number, chance.random() * LEAVES_WITHIN_S) if chance.random() < 0.6 else ask(number)
                    for number in numbers
                )
            )
        await settled(one, two)
        assert [await metric(gateway, "dedup_lost_leases_total") for gateway in (one, two)] == [0, 0]
        assert [await metric(gateway, "redis_errors_total") for gateway in (one, two)] == [0, 0]
        await asyncio.gather(*(ask(number) for number in range(QUESTIONS)))

    assert left > REQUESTS // 10
    assert set(hesitant.calls.values()) == {1}
    assert len(hesitant.calls) == QUESTIONS
