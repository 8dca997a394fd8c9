"""The token: one for all, renewed ahead, never shown, and only the one that failed is given up."""

import asyncio
import json
from itertools import count
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from gateway.embedded import EmbeddedValkey
from gateway.simulator import Options, Simulator
from gateway.start import StartError
from tests.e2e.conftest import KEYS, Running, about, environment, run_gateway, stored_under
from tests.running import GatewayProcess, eventually, simulator_process
from tests.scripted import TOKEN_REPLY, ScriptedUpstream, reply


async def counters(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(f"{url}/_simulator/counters") as response:
        found: dict[str, Any] = await response.json()
        return found


async def fault(gateway: Running, simulator: Simulator, **fields: object) -> None:
    async with gateway.session.post(f"{simulator.url}/_simulator/faults", json=[fields]) as response:
        assert response.status == 200, await response.text()


async def test_fifty_first_requests_over_two_processes_need_one_token(valkey: EmbeddedValkey, redis: Redis) -> None:
    await redis.flushall()
    with simulator_process("--speed", "60") as url:
        variables = environment(url, valkey.url)
        with GatewayProcess(variables) as first, GatewayProcess(variables) as second:
            async with aiohttp.ClientSession() as session:
                await session.post(f"{url}/_simulator/reset")
                await redis.flushall()  # as cold as a fleet can be: the processes have theirs in memory only

                async def ask(base: str, number: int) -> int:
                    async with session.post(f"{base}/rcm/eligibility/v1", json=about(number)) as response:
                        await response.read()
                        return response.status

                statuses = await asyncio.gather(*(ask((first, second)[i % 2].url, i) for i in range(50)))
                assert statuses == [200] * 50
                seen = await counters(session, url)
    assert seen["submissions_processed"] == 50
    assert seen["tokens_issued"] <= 1


async def test_fifty_cold_requests_over_two_replicas_fetch_one_token(redis: Redis, redis_url: str) -> None:
    """Neither replica has ever had a token: the issuer was failing when they started."""
    async with Simulator(Options(speed=60.0)) as simulator, aiohttp.ClientSession() as session:
        await session.post(
            f"{simulator.url}/_simulator/faults",
            json=[{"kind": "status", "status": 503, "operation": "token", "times": -1}],
        )
        variables = environment(simulator.url, redis_url)
        async with run_gateway(variables) as first, run_gateway(variables) as second:
            await session.delete(f"{simulator.url}/_simulator/faults")
            await session.post(f"{simulator.url}/_simulator/reset")

            async def is_over() -> bool:
                return (await first.submit()).status == 200

            await eventually(is_over)  # the shared backoff of the failures has ended
            assert (await counters(session, simulator.url))["tokens_issued"] == 1
            responses = await asyncio.gather(*((first, second)[i % 2].submit() for i in range(50)))
            assert {response.status for response in responses} == {200}
            assert (await counters(session, simulator.url))["tokens_issued"] == 1
    assert len(await redis.keys("eg:token:*")) == 1


async def test_nothing_readable_is_stored_and_every_key_ends(gateway: Running, redis: Redis) -> None:
    assert (await gateway.submit()).status == 200
    keys = await redis.keys("*")
    assert keys
    for key in keys:
        assert await redis.pttl(key) > 0
        stored = repr(await stored_under(redis, key))
        assert "simulator" not in stored
        assert "access" not in stored


async def test_a_401_voids_the_token_and_one_retry_succeeds(gateway: Running, simulator: Simulator) -> None:
    await gateway.session.post(f"{simulator.url}/_simulator/tokens/revoke")
    response = await gateway.submit()
    assert response.status == 200
    assert gateway.records()[-1]["upstream_calls"] == 2


async def test_many_401s_at_once_fetch_one_new_token(gateway: Running, simulator: Simulator) -> None:
    before = (await counters(gateway.session, simulator.url))["tokens_issued"]
    await gateway.session.post(f"{simulator.url}/_simulator/tokens/revoke")
    responses = await asyncio.gather(*(gateway.submit() for _ in range(30)))
    assert {response.status for response in responses} == {200}
    assert (await counters(gateway.session, simulator.url))["tokens_issued"] == before + 1


async def test_a_second_401_is_the_upstreams_answer_and_buys_no_more_tokens(
    gateway: Running,
    simulator: Simulator,
) -> None:
    await fault(gateway, simulator, kind="status", status=401, times=-1)
    before = (await counters(gateway.session, simulator.url))["tokens_issued"]
    for _ in range(5):
        response = await gateway.submit()
        assert response.status == 401
        assert "error_description" in await response.text()
    assert (await counters(gateway.session, simulator.url))["tokens_issued"] == before + 1


async def test_the_old_token_serves_while_the_issuer_is_down_and_the_new_one_comes_behind_the_scenes(
    redis_url: str,
) -> None:
    # 600 simulated seconds of life are 10 s here: 5 s usable, renewed at 4.25 s at the latest.
    async with (
        Simulator(Options(speed=60.0, token_life_s=600.0)) as simulator,
        run_gateway(environment(simulator.url, redis_url)) as gateway,
    ):
        await fault(gateway, simulator, kind="status", status=503, operation="token", times=1)

        numbers = count()

        async def was_renewed() -> bool:
            assert (await gateway.submit(about(next(numbers)))).status == 200
            seen = await counters(gateway.session, simulator.url)
            return bool(seen["tokens_issued"] >= 2)

        await eventually(was_renewed, 30)
        assert 'token_fetches_total{result="unavailable"} 1.0' in await gateway.metrics()


@pytest.mark.parametrize("expires_in", [None, 0, -1, "3600", "soon", 1e12, True, [], {"a": 1}])
async def test_an_odd_life_of_a_token_is_survived(expires_in: object, redis_url: str) -> None:
    document = json.loads(TOKEN_REPLY) | {"expires_in": expires_in}
    raw = reply(body=json.dumps(document).encode())
    async with (
        ScriptedUpstream(token_reply=raw) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        assert (await gateway.submit()).status == 200
        assert (await gateway.submit()).status == 200
    assert upstream.tokens == 1


@pytest.mark.parametrize(
    "raw",
    [
        reply(body=b"not json"),
        reply(body=b"[]"),
        reply(body=b'{"access_token": ""}'),
        reply(body=b'{"access_token": "a\\r\\nX-Evil: 1"}'),
        reply(body=b'{"access_token": 7}'),
        reply(body=b"x" * 100_000),
        reply("500 Internal Server Error"),
        reply("302 Found", headers=("Location: http://127.0.0.1:1/",)),
    ],
)
async def test_a_token_endpoint_that_talks_nonsense_is_a_503_that_says_when_to_retry(
    raw: bytes, redis_url: str
) -> None:
    async with (
        ScriptedUpstream(token_reply=raw) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        response = await gateway.submit()
        problem = json.loads(await response.text())
    assert (response.status, problem["code"]) == (503, "token_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert upstream.requests == []
    assert upstream.tokens == 1, "an issuer in trouble is not asked once a request"


async def test_refused_credentials_back_off_for_the_whole_fleet(redis_url: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url)) as first,
    ):
        upstream.token_reply = reply("401 Unauthorized", b'{"error":"invalid_client"}')
        upstream.raw = reply("401 Unauthorized", b"{}")
        assert (await first.submit()).status == 503
        response = await first.submit()
        assert (response.status, json.loads(await response.text())["code"]) == (503, "credentials_refused")
        assert 1 <= int(response.headers["Retry-After"]) <= 5
        asked = upstream.tokens
        with pytest.raises(StartError, match="refuses"):
            async with run_gateway(environment(upstream.url, redis_url)):
                pass
        assert upstream.tokens == asked


async def test_without_redis_a_replica_still_gets_its_token() -> None:
    with EmbeddedValkey() as short_lived:
        async with (
            Simulator(Options(speed=60.0)) as simulator,
            run_gateway(environment(simulator.url, short_lived.url)) as gateway,
        ):
            short_lived.stop()
            await gateway.session.post(f"{simulator.url}/_simulator/tokens/revoke")
            responses = await asyncio.gather(*(gateway.submit() for _ in range(20)))
            assert {response.status for response in responses} == {200}
            assert "eligibility_gateway_redis_errors_total" in await gateway.metrics()
            assert (await counters(gateway.session, simulator.url))["tokens_issued"] == 2


async def test_no_caller_and_no_log_ever_sees_the_token(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        response = await gateway.submit(authorization="Bearer of-the-caller")
        seen = str(response.headers) + await response.text() + await gateway.metrics()
        async with gateway.session.get(f"{gateway.admin_url}/policies") as shown:
            seen += await shown.text()
        seen += gateway.output.getvalue().decode()
    assert upstream.requests[0].values("authorization") == ["Bearer scripted-token"]
    for secret in ("scripted-token", "of-the-caller", "simulator-secret", KEYS):
        assert secret not in seen
