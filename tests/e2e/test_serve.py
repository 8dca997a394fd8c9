"""The process: how it starts, how it refuses to, and how it ends."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest

from gateway.embedded import EmbeddedValkey
from gateway.telemetry.log import FIELDS
from tests.e2e.conftest import BODY, environment
from tests.e2e.processes import serve
from tests.running import GatewayProcess, Process, eventually, simulator_process, total, url_of
from tests.scripted import ScriptedUpstream, reply


async def post(session: aiohttp.ClientSession, gateway: GatewayProcess, body: object) -> aiohttp.ClientResponse:
    async with session.post(f"{gateway.url}/rcm/eligibility/v1", json=body) as response:
        await response.read()
        return response


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"GATEWAY_UPSTREAM_CLIENT_SECRET": None}, ["GATEWAY_UPSTREAM_CLIENT_SECRET: found nothing"]),
        (
            {"GATEWAY_SPEED": "1", "GATEWAY_LISTEN": "x"},
            ["GATEWAY_SPEED: found an unknown", "GATEWAY_LISTEN: found 'x'"],
        ),
        ({"GATEWAY_REDIS_URL": "redis://127.0.0.1:1"}, ["GATEWAY_REDIS_URL: found no Redis that answers"]),
        (
            {"GATEWAY_REDIS_URL": "http://x"},
            ["GATEWAY_REDIS_URL: found a value that is not shown, expected 'embedded', or"],
        ),
        ({"GATEWAY_KEYS": None}, ["GATEWAY_KEYS: found nothing"]),
        ({"GATEWAY_KEYS": "a:AAAA"}, ["GATEWAY_KEYS: found a value that is not shown, expected kid:base64"]),
        ({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:1"}, ["GATEWAY_UPSTREAM_URL: found no token endpoint"]),
        ({"GATEWAY_POLICIES": "/nowhere"}, ["/nowhere: found no directory"]),
    ],
)
def test_what_cannot_start_says_why_and_exits_with_2(
    change: dict[str, str | None],
    said: list[str],
    valkey: EmbeddedValkey,
) -> None:
    changed = environment("http://127.0.0.1:1", valkey.url) | change
    done = serve({name: value for name, value in changed.items() if value is not None})
    assert done.returncode == 2
    for sentence in said:
        assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == len(said)
    assert "Traceback" not in done.stderr + done.stdout
    assert "simulator-secret" not in done.stderr


def test_a_malformed_policy_is_one_line_a_problem(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("match: {operations: [submit]}\nspeed: 1\n")
    done = serve(environment("http://127.0.0.1:1", valkey.url, policies=str(tmp_path)))
    assert done.returncode == 2
    assert f"{tmp_path}/a.yaml:1: match.operations.0: found 'submit', expected" in done.stderr
    assert f"{tmp_path}/a.yaml:2: speed: found an unknown field" in done.stderr
    assert "Traceback" not in done.stderr


def test_refused_credentials_are_one_sentence_and_exit_code_2(valkey: EmbeddedValkey) -> None:
    with simulator_process() as url:
        done = serve(environment(url, valkey.url, upstream_client_secret="wrong-secret"))
    assert done.returncode == 2
    assert "found credentials that the token endpoint of GATEWAY_UPSTREAM_URL refuses" in done.stderr
    assert "wrong-secret" not in done.stderr


async def test_sigterm_lets_what_is_in_flight_end_and_says_so(valkey: EmbeddedValkey) -> None:
    # 40-80 simulated seconds are one or two here.
    with simulator_process("--speed", "40") as url, GatewayProcess(environment(url, valkey.url)) as gateway:
        async with aiohttp.ClientSession() as session:
            body = BODY | {"tradingPartnerServiceId": "SIM-SLOW"}

            async def in_flight() -> bool:
                async with session.get(f"{gateway.admin_url}/metrics") as response:
                    return total(await response.text(), "requests_in_flight") == 1

            answer = asyncio.create_task(post(session, gateway, body))
            await eventually(in_flight)
            gateway.popen.send_signal(signal.SIGTERM)
            gateway.wait_for('"draining"')
            async with session.get(f"{gateway.admin_url}/readyz") as response:
                assert response.status == 503
            async with session.get(f"{gateway.admin_url}/livez") as response:
                assert response.status == 200
            response = await answer
            assert response.status == 200
            assert response.headers["Connection"] == "close"
        assert gateway.popen.wait(30) == 0
        gateway.end()
    assert '"drained":true' in "".join(gateway.output())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 2)])
async def test_a_signal_while_it_waits_for_redis_is_heeded(number: signal.Signals, code: int) -> None:
    is_waiting = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_waiting.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as silent, ScriptedUpstream() as upstream:
        redis_url = url_of(silent).replace("http", "redis")
        with Process("serve", environment=environment(upstream.url, redis_url)) as process:
            async with asyncio.timeout(30):
                await is_waiting.wait()
            process.popen.send_signal(number)
            ended = await asyncio.to_thread(process.popen.wait, 30)

    assert ended == code  # 2: SIGHUP is no reason to end, but a Redis that does not answer is


async def test_a_token_endpoint_that_is_not_there_is_a_wrong_address(valkey: EmbeddedValkey) -> None:
    async with ScriptedUpstream(token_reply=reply("404 Not Found")) as upstream:
        done = await asyncio.to_thread(serve, environment(upstream.url, valkey.url))
    assert done.returncode == 2
    assert f"found no token endpoint at {upstream.url}/apip/auth/v2/token (it answers 404)" in done.stderr


async def test_a_second_signal_ends_at_once_and_the_exit_code_tells(valkey: EmbeddedValkey) -> None:
    with simulator_process("--speed", "1") as url, GatewayProcess(environment(url, valkey.url)) as gateway:
        async with aiohttp.ClientSession() as session:
            body = BODY | {"tradingPartnerServiceId": "SIM-SLOW"}
            answer = asyncio.create_task(post(session, gateway, body))

            async def in_flight() -> bool:
                async with session.get(f"{gateway.admin_url}/metrics") as response:
                    return total(await response.text(), "requests_in_flight") == 1

            await eventually(in_flight)
            gateway.popen.send_signal(signal.SIGTERM)
            gateway.wait_for('"draining"')
            assert gateway.end(signal.SIGTERM) == 1
            assert (await answer).status == 503  # and whoever waited is told


async def test_the_bundled_valkey_dies_with_a_gateway_that_is_killed() -> None:
    async with ScriptedUpstream() as upstream:
        variables = environment(upstream.url, "embedded")
        del variables["GATEWAY_KEYS"]
        gateway = await asyncio.to_thread(GatewayProcess, variables)
        with gateway:
            (child,) = children(gateway.popen.pid)
            assert is_alive(child)
            gateway.end(signal.SIGKILL)

            async def is_gone() -> bool:
                return not is_alive(child)

            await eventually(is_gone)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


async def test_every_line_of_the_log_is_json_with_allowed_fields(valkey: EmbeddedValkey) -> None:
    with simulator_process("--speed", "60") as url, GatewayProcess(environment(url, valkey.url)) as gateway:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{gateway.url}/rcm/eligibility/v1?memberId=CANARY", json=BODY) as response:
                assert response.status == 200
            async with session.get(f"{gateway.url}/rcm/eligibility/v1/transactions/CANARY") as response:
                assert response.status == 404
        gateway.end()
        lines = [json.loads(line) for line in gateway.output()]
    assert len(gateway.records()) == 2
    for line in lines:
        assert set(line) <= FIELDS
    assert "CANARY" not in json.dumps(lines)
    assert "TESTMEMBER1" not in json.dumps(lines)
