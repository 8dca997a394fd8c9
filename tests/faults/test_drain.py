"""A process that is stopped while Redis does not answer, with an answer that it has not taken yet."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import about, run_gateway
from tests.faults.conftest import Answering, environment
from tests.running import GatewayProcess


@dataclass(slots=True)
class Owing:
    """A process that has answered, and has yet to store the answer: Redis is frozen."""

    process: GatewayProcess
    variables: dict[str, str]
    answering: Answering

    async def is_draining(self) -> None:
        self.process.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait_for, '"draining"')

    async def code(self) -> int:
        return await asyncio.to_thread(self.process.popen.wait, 40)


@pytest.fixture
async def owing(own_valkey: EmbeddedValkey) -> AsyncIterator[Owing]:
    held = Answering(is_held=True)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(held.upstream)
        variables = environment(upstream.url, own_valkey.url)
        process = stack.enter_context(await asyncio.to_thread(GatewayProcess, variables))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        asked = asyncio.create_task(session.post(f"{process.url}/rcm/eligibility/v1", json=about(1)))
        await upstream.is_asked()
        os.kill(own_valkey.pid, signal.SIGSTOP)
        stack.callback(os.kill, own_valkey.pid, signal.SIGCONT)
        held.release.set()
        async with await asked as response:
            assert (response.status, (await response.json())["member"]) == (200, "TESTMEMBER-1")
            assert response.headers["Cache-Status"] == "eligibility-gateway; fwd=miss"
        yield Owing(process, variables, held)


async def test_an_answer_that_is_owed_is_stored_before_the_process_ends(
    owing: Owing, own_valkey: EmbeddedValkey
) -> None:
    await owing.is_draining()
    assert owing.process.popen.poll() is None
    os.kill(own_valkey.pid, signal.SIGCONT)
    assert await owing.code() == 0
    async with run_gateway(owing.variables) as successor:
        assert (await successor.submit(about(1))).headers["Cache-Status"].startswith("eligibility-gateway; hit;")
    assert owing.answering.calls == {"TESTMEMBER-1": 1}


async def test_a_second_signal_does_not_wait_for_a_redis_that_does_not_answer(owing: Owing) -> None:
    await owing.is_draining()
    owing.process.popen.send_signal(signal.SIGTERM)
    assert await owing.code() == 1  # every caller has its answer, but whoever asks again has not
    assert any('"stopped"' in line for line in owing.process.output())


@pytest.mark.long
async def test_an_answer_that_redis_never_takes_is_told_by_the_exit_code(owing: Owing) -> None:
    await owing.is_draining()
    assert await owing.code() == 1
    (last,) = [json.loads(line) for line in owing.process.output() if '"stopped"' in line]
    assert (last["answers"], last["in_flight"], last["drained"], last["level"]) == (1, 0, False, "warning")
