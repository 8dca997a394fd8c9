"""The health check, run as a container runs it: a process of its own, against real servers."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from gateway.embedded import EmbeddedValkey
from gateway.settings import parse_address
from tests.e2e.conftest import BODY, environment
from tests.running import ROOT, GatewayProcess, eventually, kept_environment, simulator_process, total

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def check(
    *arguments: str, given: Mapping[str, str] | None = None, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-m", "gateway", "healthcheck", *arguments],
        env={**kept_environment(), **(given or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def checked(*arguments: str, given: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(check, *arguments, given=given)


@asynccontextmanager
async def answering(reply: bytes | None, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives everybody one reply, or none at all; its port, and the request lines that came."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        if reply is None:
            await reader.read()  # until who asks has gone
        else:
            writer.write(reply)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, host, 0) as server:
        yield server.sockets[0].getsockname()[1], asked


async def test_whoever_answers_in_drops_is_not_waited_for() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read()  # until who asks has gone
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        done = await checked("--url", f"http://127.0.0.1:{port}/readyz")

    assert (done.returncode, done.stdout) == (1, "")
    assert "found no answer within 3 s" in done.stderr


# --- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["127.0.0.1:{port}", "0.0.0.0:{port}", "localhost:{port}"])
async def test_a_gateway_that_is_ready_is_found_by_its_address_alone(named: str) -> None:
    async with answering(READY) as (port, asked):
        done = await checked(given={"GATEWAY_ADMIN_LISTEN": named.format(port=port)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert asked == [b"GET /readyz HTTP/1.1\r\n"]


@pytest.mark.parametrize("named", ["[::1]:{port}", "[::]:{port}", ":::{port}"])
async def test_all_addresses_of_the_new_kind_mean_this_machine_as_well(named: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with answering(READY, "::1") as (port, _):
        assert (await checked(given={"GATEWAY_ADMIN_LISTEN": named.format(port=port)})).returncode == 0


async def test_the_address_may_stand_in_a_file(tmp_path: Path) -> None:
    async with answering(READY) as (port, _):
        (tmp_path / "address").write_text(f"127.0.0.1:{port}\n")
        assert (await checked(given={"GATEWAY_ADMIN_LISTEN_FILE": str(tmp_path / "address")})).returncode == 0


async def test_any_page_can_be_asked() -> None:
    async with answering(READY) as (port, asked):
        done = await checked("--url", f"http://127.0.0.1:{port}/livez?why=1", given={"GATEWAY_ADMIN_LISTEN": "wrong"})
    assert (done.returncode, done.stderr) == (0, "")
    assert asked == [b"GET /livez?why=1 HTTP/1.1\r\n"]


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (DRAINING, "the status 503"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "the status 204"),
        (b"220 mail.example ESMTP\r\n", "what is no HTTP"),
        (b"", "what is no HTTP"),
        (None, "no answer within 3 s"),
    ],
)
async def test_what_is_not_ready_is_one_sentence_and_exit_code_1(reply: bytes | None, found: str) -> None:
    async with answering(reply) as (port, _):
        done = await checked(given={"GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{port}"})
    expected = f"http://127.0.0.1:{port}/readyz: found {found}, expected a gateway that is ready (200)\n"
    assert (done.returncode, done.stdout) == (1, "")
    # An empty answer is a connection that was reset where the kernel is quicker than the reader.
    assert done.stderr == expected or (reply == b"" and "found nobody who answers (" in done.stderr)


async def test_neither_a_redirect_nor_a_proxy_is_followed() -> None:
    async with answering(READY) as (elsewhere, asked_elsewhere):
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        async with answering(moved.encode()) as (port, _):
            proxies = {"http_proxy": f"http://127.0.0.1:{elsewhere}", "HTTP_PROXY": f"http://127.0.0.1:{elsewhere}"}
            done = await checked(given={"GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{port}", **proxies})
    assert done.returncode == 1
    assert "found the status 302" in done.stderr
    assert asked_elsewhere == []


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid", "a..b"])
def test_where_nobody_answers_is_one_sentence_and_exit_code_1(host: str) -> None:
    done = check(given={"GATEWAY_ADMIN_LISTEN": f"{host}:1"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"http://{host}:1/readyz: found nobody who answers (")
    assert len(done.stderr.splitlines()) == 1


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        ((), {"GATEWAY_ADMIN_LISTEN": "nonsense"}, "GATEWAY_ADMIN_LISTEN: found no address, expected HOST:PORT"),
        ((), {"GATEWAY_ADMIN_LISTEN": "127.0.0.1:0"}, "GATEWAY_ADMIN_LISTEN: found port 0"),
        ((), {"GATEWAY_ADMIN_LISTEN_FILE": "/nowhere"}, "GATEWAY_ADMIN_LISTEN_FILE: found no file that can be read"),
        (
            (),
            {"GATEWAY_ADMIN_LISTEN": "127.0.0.1:1", "GATEWAY_ADMIN_LISTEN_FILE": "/nowhere"},
            "GATEWAY_ADMIN_LISTEN: found beside GATEWAY_ADMIN_LISTEN_FILE, expected one of them",
        ),
        *(
            (("--url", url), {}, "--url: found another address, expected http://HOST[:PORT]/PATH")
            for url in (
                *("127.0.0.1:9090", "https://127.0.0.1/", "http://", "http://:80/", "http://127.0.0.1:x/", ""),
                *("http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1/", "http://u:secret@127.0.0.1/"),
                *("http://127.0.0.1/a b", "http://127.0.0.1/\u00e4", "http://127.0.0.1/\r\nX: 1"),
            )
        ),
    ],
)
def test_a_wrong_address_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], given: Mapping[str, str], said: str
) -> None:
    done = check(*arguments, given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    "value", ["127.0.0.1:1", "[::1]:1", "x", ":1", "h:", "h:-1", "h:65535", "h:65536", "h:\u0661", "", "[]:1", "a:b:1"]
)
def test_an_address_is_read_as_the_settings_read_it(value: str) -> None:
    try:
        parse_address(value)
    except ValueError:
        is_address = False
    else:
        is_address = True
    assert (check(given={"GATEWAY_ADMIN_LISTEN": value}).returncode == 2) is not is_address


# --- what it needs --------------------------------------------------------------------------------------------------


def test_it_imports_little_for_it_is_run_every_few_seconds() -> None:
    done = check(given={"GATEWAY_ADMIN_LISTEN": "127.0.0.1:1"}, python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "gateway.healthcheck" in imported
    assert {name for name in imported if name.startswith("gateway.")} == {"gateway.healthcheck"}
    assert imported & {"asyncio", "aiohttp", "pydantic", "redis", "rich", "typer", "cryptography"} == set()


def test_no_other_setting_is_looked_at() -> None:
    done = check(given={"GATEWAY_ADMIN_LISTEN": "127.0.0.1:1", "GATEWAY_KEYS": "wrong", "GATEWAY_UNKNOWN": "1"})
    assert done.returncode == 1


async def test_a_gateway_is_ready_until_it_is_told_to_end(valkey: EmbeddedValkey) -> None:
    with simulator_process("--speed", "40") as url, GatewayProcess(environment(url, valkey.url)) as gateway:
        given = {"GATEWAY_ADMIN_LISTEN": gateway.admin_url.removeprefix("http://")}
        async with aiohttp.ClientSession() as session:
            body = BODY | {"tradingPartnerServiceId": "SIM-SLOW"}

            async def submitted() -> int:
                async with session.post(f"{gateway.url}/rcm/eligibility/v1", json=body) as response:
                    return response.status

            async def in_flight() -> bool:
                async with session.get(f"{gateway.admin_url}/metrics") as response:
                    return total(await response.text(), "requests_in_flight") == 1

            assert (await checked(given=given)).returncode == 0
            answer = asyncio.create_task(submitted())
            await eventually(in_flight)
            gateway.popen.send_signal(signal.SIGTERM)
            gateway.wait_for('"draining"')
            done = await checked(given=given)
            assert (done.returncode, "found the status 503" in done.stderr) == (1, True)
            assert await answer == 200
        assert gateway.popen.wait(30) == 0
