import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientResponse, ClientSession

from gateway.operations import BASE_PATH, TOKEN_PATH

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Body = Callable[..., dict[str, Any]]
X12 = Callable[..., str]
FAULTS = "/_simulator/faults"
HEALTH = f"{BASE_PATH}/healthcheck"
GOOD = {"client_id": "simulator", "client_secret": "simulator-secret", "grant_type": "client_credentials"}


async def script(session: ClientSession, *faults: dict[str, Any]) -> None:
    async with session.post(FAULTS, json=list(faults)) as response:
        assert response.status == 200, await response.text()


async def counters(session: ClientSession) -> dict[str, Any]:
    async with session.get("/_simulator/counters") as response:
        return dict(await response.json())


async def read_into(parts: list[bytes], response: ClientResponse) -> None:
    async for part in response.content.iter_any():
        parts.append(part)  # noqa: PERF401 - what came before the break is what counts


async def status_of(session: ClientSession, body: dict[str, Any]) -> int:
    async with session.post(BASE_PATH, json=body) as response:
        return response.status


@pytest.mark.parametrize("status", [401, 403, 422, 429, 500, 503, 504])
async def test_a_status_comes_in_the_shape_that_the_upstream_gives_it(
    connect: Connect,
    body_for: Body,
    status: int,
) -> None:
    session = await connect()
    await script(session, {"kind": "status", "status": status, "operation": "submit_eligibility"})
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")) as response:
        assert response.status == status
        document = await response.json()
    if status in {401, 429, 504}:
        assert set(document) == {"error", "error_description", "traceId"}
    else:
        assert isinstance(document, list)
    assert await status_of(session, body_for("SIM-INSTANT")) == 200
    found = await counters(session)
    assert (found["faults_fired"], found["submissions_processed"]) == ({"status": 1}, 1)


async def test_a_status_may_bring_its_own_body_and_headers(connect: Connect) -> None:
    session = await connect()
    await script(
        session,
        {"kind": "status", "status": 503, "body": {"odd": [1]}, "headers": {"retry-after": "7"}},
        {"kind": "status", "status": 500, "body": "<html>", "headers": {"content-type": "text/html"}},
    )
    async with session.get(HEALTH) as response:
        assert (response.headers["retry-after"], await response.json()) == ("7", {"odd": [1]})
    async with session.get(HEALTH) as response:
        assert (response.content_type, await response.text()) == ("text/html", "<html>")


async def test_a_fault_fires_as_often_as_it_says_for_the_payer_it_names(
    connect: Connect,
    body_for: Body,
    x12_for: X12,
) -> None:
    session = await connect()
    await script(session, {"kind": "status", "status": 500, "times": 2, "payer": "SIM-INSTANT"})
    assert await status_of(session, body_for("SIM-NOTFOUND")) == 200
    assert await status_of(session, body_for("SIM-INSTANT")) == 500
    async with session.get(FAULTS) as response:
        (left,) = await response.json()
    assert left == {"kind": "status", "status": 500, "times": 1, "payer": "SIM-INSTANT", "operation": "*"}
    async with session.post(f"{BASE_PATH}/real-time/x12", json={"x12": x12_for("SIM-INSTANT")}) as response:
        assert response.status == 500
    assert await status_of(session, body_for("SIM-INSTANT")) == 200


async def test_a_fault_without_end_lasts_until_it_is_cleared_and_never_meets_the_token_endpoint(
    connect: Connect,
) -> None:
    session = await connect()
    await script(session, {"kind": "status", "status": 500, "times": -1})
    for _ in range(3):
        async with session.get(HEALTH) as response:
            assert response.status == 500
    async with session.post(TOKEN_PATH, json=GOOD) as response:
        assert response.status == 200
    async with session.delete(FAULTS) as response:
        assert response.status == 204
    async with session.get(HEALTH) as response:
        assert response.status == 200


async def test_reset_before_is_received_but_never_processed(connect: Connect, body_for: Body) -> None:
    session = await connect()
    await script(session, {"kind": "reset_before"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(session, body_for("SIM-INSTANT"))
    found = await counters(session)
    assert found["received"]["submit_eligibility"] == 1
    assert found["answered"] == {"token": 1}
    assert (found["submissions_processed"], found["disconnects"]) == (0, 0)


async def test_reset_after_stores_the_transaction_and_answers_nothing(connect: Connect, body_for: Body) -> None:
    session = await connect()
    await script(session, {"kind": "reset_after"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(session, body_for("SIM-FAST"))
    found = await counters(session)
    assert (found["submissions_processed"], found["answered"]) == (1, {"token": 1})


@pytest.mark.parametrize("kind", ["reset_mid", "torn_body"])
@pytest.mark.parametrize("after_bytes", [None, 0, 17, 10_000_000])
async def test_an_answer_ends_in_the_middle(
    connect: Connect,
    body_for: Body,
    kind: str,
    after_bytes: int | None,
) -> None:
    session = await connect()
    await script(session, {"kind": kind} | ({} if after_bytes is None else {"after_bytes": after_bytes}))
    parts: list[bytes] = []
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")) as response:
        assert response.status == 200
        promised = int(response.headers["content-length"])
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(parts, response)
    expected = {None: promised // 2, 10_000_000: promised - 1}.get(after_bytes, after_bytes)
    assert sum(map(len, parts)) == expected
    assert (await counters(session))["submissions_processed"] == 1


@pytest.mark.parametrize(("kind", "reset"), [("reset_mid", True), ("torn_body", False), ("reset_before", True)])
async def test_a_reset_is_a_reset_on_the_wire_and_a_close_is_a_close(
    connect: Connect,
    kind: str,
    reset: bool,  # noqa: FBT001
) -> None:
    session = await connect()
    await script(session, {"kind": kind})
    url = session._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"GET {HEALTH} HTTP/1.1\r\nhost: x\r\nauthorization: {session.headers['authorization']}\r\n\r\n".encode(),
    )
    if reset:
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
    else:
        assert b"content-length: 15\r\n" in await reader.read(-1)
    writer.close()


async def test_a_slow_drip_brings_the_whole_answer(connect: Connect, body_for: Body) -> None:
    session = await connect()
    await script(session, {"kind": "slow_drip", "seconds": 30})
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")) as response:
        document = json.loads(await response.read())
    async with session.get(f"{BASE_PATH}/transactions/{document['id']}") as response:
        assert await response.json() == document


async def test_a_hanging_request_is_answered_late_or_left(connect: Connect, body_for: Body, until: Until) -> None:
    session = await connect()
    await script(session, {"kind": "hang", "seconds": 30}, {"kind": "hang", "seconds": 1e9})
    assert await status_of(session, body_for("SIM-INSTANT")) == 200
    caller = asyncio.create_task(status_of(session, body_for("SIM-INSTANT")))

    async def hangs() -> bool:
        return bool((await counters(session))["faults_fired"] == {"hang": 2})

    async def left() -> bool:
        found = await counters(session)
        return bool(found["disconnects"] == 1 and found["in_flight"] == 0)

    await until(hangs)
    caller.cancel()
    await until(left)
    assert (await counters(session))["submissions_processed"] == 1


async def test_an_expired_token_is_refused_from_then_on(connect: Connect) -> None:
    session = await connect()
    await script(session, {"kind": "expired_token", "operation": "healthcheck"})
    for _ in range(2):
        async with session.get(HEALTH) as response:
            assert response.status == 401


async def test_the_token_endpoint_breaks_in_its_own_ways(connect: Connect) -> None:
    session = await connect()
    await script(
        session,
        {"kind": "status", "status": 503, "operation": "token"},
        {"kind": "garbage", "operation": "token"},
        {"kind": "garbage", "operation": "token", "body": {"access_token": None}},
        {"kind": "expires_in", "operation": "token"},
        {"kind": "expires_in", "operation": "token", "body": None},
        {"kind": "expires_in", "operation": "token", "body": "soon"},
        {"kind": "hang", "operation": "token", "seconds": 1},
    )
    found: list[Any] = []
    for _ in range(7):
        async with session.post(TOKEN_PATH, json=GOOD) as response:
            found.append((response.status, await response.read()))
    assert found[0][0] == 503
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(found[1][1])
    assert json.loads(found[2][1]) == {"access_token": None}
    documents = [json.loads(body) for _, body in found[3:]]
    assert [document.get("expires_in", "missing") for document in documents] == ["missing", None, "soon", 1000]
    async with session.get(HEALTH, headers={"authorization": f"Bearer {documents[2]['access_token']}"}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"kind": "status", "status": 500, "secnds": 3}, "faults[0].secnds: unknown field"),
        ({"kind": "earthquake"}, "faults[0].kind: Input should be"),
        ({"kind": "status"}, "needs a status"),
        ({"kind": "status", "status": 99}, "faults[0].status"),
        ({"kind": "status", "status": "500"}, "faults[0].status"),
        ({"kind": "hang", "times": 0}, "times must be -1 or at least 1"),
        ({"kind": "hang", "times": -2}, "faults[0].times"),
        ({"kind": "hang", "operation": "everything"}, "faults[0].operation"),
        ({"kind": "hang", "status": 500}, "has no use for 'status'"),
        ({"kind": "garbage"}, "needs operation 'token'"),
        ({"kind": "hang", "operation": "token", "payer": "X"}, "has neither payers"),
        ({"kind": "status", "status": 500, "headers": {"a": "b\r\nc"}}, "faults[0].headers"),
        ({"kind": "status", "status": 500, "headers": {"a b": "c"}}, "faults[0].headers"),
        ({}, "faults[0].kind: Field required"),
        ("hang", "faults[0]"),
    ],
)
async def test_a_script_that_is_wrong_is_refused_with_the_place(connect: Connect, fault: object, sentence: str) -> None:
    session = await connect()
    async with session.post(FAULTS, json=[fault]) as response:
        assert response.status == 422
        assert sentence in " ".join(await response.json())
    async with session.post(FAULTS, data=b"not json") as response:
        assert response.status == 422
    async with session.get(FAULTS) as response:
        assert await response.json() == []
