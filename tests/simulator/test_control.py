import asyncio
import base64
import hashlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.operations import BASE_PATH
from gateway.simulator import Options

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Body = Callable[..., dict[str, Any]]


async def get(session: ClientSession, path: str) -> Any:  # noqa: ANN401 - JSON
    async with session.get(path) as response:
        return await response.json()


async def test_requests_are_shown_byte_for_byte(connect: Connect) -> None:
    session = await connect()
    url = session._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = b'{ "tradingPartnerServiceId" :\t"\xff" }'
    target = f"{BASE_PATH}?a=%7e&b=+x%20"
    writer.write(
        f"POST {target} HTTP/1.1\r\nHOST: x\r\nX-Odd:  padded \r\nx-odd: twice\r\ncontent-encoding: gzip\r\n"
        f"Content-Length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        + body,
    )
    await reader.read(-1)
    writer.close()
    (seen,) = await get(session, "/_simulator/requests?limit=1")
    assert (seen["operation"], seen["method"], seen["target"]) == ("submit_eligibility", "POST", target)
    assert ["X-Odd", "padded"] in seen["headers"]
    assert ["x-odd", "twice"] in seen["headers"]
    assert base64.b64decode(seen["body"]) == body
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


async def test_the_request_log_is_bounded_and_in_order(connect: Connect) -> None:
    session = await connect(stored_requests=3)
    for number in range(5):
        await get(session, f"{BASE_PATH}/healthcheck?n={number}")
    seen = await get(session, "/_simulator/requests")
    assert [request["target"][-1] for request in seen] == ["2", "3", "4"]
    assert [request["target"][-1] for request in await get(session, "/_simulator/requests?limit=2")] == ["3", "4"]
    assert await get(session, "/_simulator/requests?limit=0") == []
    async with session.get("/_simulator/requests?limit=-1") as response:
        assert response.status == 422


async def test_counters_tell_operations_apart(connect: Connect, body_for: Body) -> None:
    session = await connect()
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")):
        pass
    async with session.post(BASE_PATH, json={}):
        pass
    await get(session, f"{BASE_PATH}/healthcheck")
    await get(session, "/nowhere")
    found = await get(session, "/_simulator/counters")
    assert found["received"] == {"token": 1, "submit_eligibility": 2, "healthcheck": 1, "unknown": 1}
    assert found["answered"] == found["received"]
    assert found["answered_by_status"] == {"200": 3, "422": 1, "404": 1}
    assert (found["submissions_processed"], found["in_flight"], found["in_flight_max"]) == (1, 0, 1)


async def test_a_reset_forgets_everything_but_tokens(connect: Connect, body_for: Body) -> None:
    session = await connect()
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")):
        pass
    async with session.post("/_simulator/faults", json=[{"kind": "hang"}]):
        pass
    async with session.post("/_simulator/reset") as response:
        assert response.status == 204
    assert (await get(session, "/_simulator/counters"))["received"] == {}
    assert await get(session, "/_simulator/faults") == []
    assert await get(session, "/_simulator/requests") == []
    assert await get(session, f"{BASE_PATH}/transactions") == []


async def test_a_transaction_from_before_a_reset_does_not_show_up_after_it(
    connect: Connect,
    body_for: Body,
    until: Until,
) -> None:
    session = await connect(speed=60)

    async def submit() -> int:
        async with session.post(BASE_PATH, json=body_for("SIM-SLOW")) as response:
            return response.status

    async def started() -> bool:
        return bool((await get(session, "/_simulator/counters"))["submissions_started"] == 1)

    held = asyncio.create_task(submit())
    await until(started)
    async with session.post("/_simulator/reset"):
        pass
    assert await held == 200
    assert await get(session, f"{BASE_PATH}/transactions") == []
    assert (await get(session, "/_simulator/counters"))["submissions_processed"] == 0


async def test_its_own_paths_are_told_apart(connect: Connect) -> None:
    session = await connect()
    async with session.get("/_simulator/reset") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
    async with session.get("/_simulator/nothing") as response:
        assert response.status == 404
    async with session.get("/_simulatorx") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed": 0},
        {"speed": float("nan")},
        {"token_life_s": 0},
        {"callback_tries": 0},
        {"stored_records": 0},
        {"credentials": ()},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


def test_options_never_show_a_secret() -> None:
    assert "secret" not in repr(Options(credentials=(("a", "top-secret"),), callback_client_secret="also-secret"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_where_it_listens_and_ends_in_peace(number: signal.Signals, until: Until) -> None:
    program = "from gateway.simulator import Options, run; run(Options(speed=60))"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("simulator listening on http://127.0.0.1:")
    async with ClientSession(base_url=line.split()[-1]) as session:
        # A caller is still being held when the signal comes.
        async with session.post("/_simulator/faults", json=[{"kind": "hang", "times": -1}]):
            pass
        held = asyncio.create_task(session.get(f"{BASE_PATH}/healthcheck").__aenter__())

        async def is_held() -> bool:
            return bool((await get(session, "/_simulator/counters"))["in_flight"] == 1)

        await until(is_held)
        process.send_signal(number)
        out, err = await process.communicate()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
    assert (process.returncode, out, err) == (0, b"", b"")
