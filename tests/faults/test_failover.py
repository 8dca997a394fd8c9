"""Sentinels that promote a replica under a gateway that serves."""

import asyncio
import signal

from tests.e2e.conftest import about, run_gateway
from tests.faults.conftest import Answering, environment, metric, settled
from tests.running import eventually
from tests.servers import bundled, sentinel, sentinel_url

MEMBERS = 5


async def test_a_machine_that_is_lost_costs_one_call_and_no_restart() -> None:
    held = Answering()
    with sentinel(bundled()) as (primary, replica, sentinels):
        url = sentinel_url(sentinels)
        async with (
            held.upstream as upstream,
            run_gateway(environment(upstream.url, url)) as one,
            run_gateway(environment(upstream.url, url)) as two,
        ):

            async def ask(number: int, member: object) -> str:
                reply = await (one, two)[number % 2].submit(about(member))
                assert reply.status == 200
                assert (await reply.json())["member"] == f"TESTMEMBER-{member}"
                return reply.headers["Cache-Status"]

            await asyncio.gather(*(ask(number, number % MEMBERS) for number in range(4 * MEMBERS)))
            assert set(held.calls.values()) == {1}

            held.release.clear()
            led = asyncio.create_task(ask(0, "under-way"))
            await upstream.is_asked(MEMBERS + 1)
            follows = asyncio.create_task(ask(1, "under-way"))

            async def waits() -> bool:
                return await metric(two, "dedup_flights") == 1

            await eventually(waits)
            primary.process.kill()
            sentinels[0].process.send_signal(signal.SIGSTOP)  # it stood on the same machine, and was the first asked
            held.release.set()
            assert (await led).startswith("eligibility-gateway; fwd=miss")
            await follows
            assert held.calls["TESTMEMBER-under-way"] <= 2

            number = 0

            async def is_shared_again() -> bool:
                nonlocal number
                number += 1
                first = await ask(0, f"again-{number}")
                return first.startswith("eligibility-gateway; fwd=miss; stored") and "hit" in await ask(
                    1, f"again-{number}"
                )

            await eventually(is_shared_again, 40)
            assert replica.client.info("replication")["role"] == "master"
            assert max(held.calls.values()) <= 2
            # What the replica had already is a replay.
            assert "hit" in await ask(0, 0)
            await settled(one, two)
