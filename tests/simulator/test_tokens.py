from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientSession

from gateway.operations import BASE_PATH, TOKEN_PATH

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
HEALTH = f"{BASE_PATH}/healthcheck"
GOOD = {"client_id": "simulator", "client_secret": "simulator-secret", "grant_type": "client_credentials"}


async def token(session: ClientSession, **changes: object) -> tuple[int, dict[str, Any]]:
    async with session.post(TOKEN_PATH, json=GOOD | changes) as response:
        return response.status, await response.json()


async def health(session: ClientSession, authorization: str) -> tuple[int, Any]:
    async with session.get(HEALTH, headers={"authorization": authorization}) as response:
        return response.status, await response.json()


async def test_a_token_is_issued_for_a_known_pair_and_its_life_shrinks_with_the_speed(connect: Connect) -> None:
    for speed, expires_in in ((1, 3600), (60, 60), (100_000, 1)):
        status, document = await token(await connect(speed=speed, token_life_s=3600))
        assert status == 200
        assert (document["token_type"], document["expires_in"]) == ("bearer", expires_in)


async def test_wrong_credentials_and_malformed_requests_are_told_apart(connect: Connect) -> None:
    session = await connect()
    assert (await token(session, client_secret="wrong"))[0] == 401
    assert (await token(session, client_id="nobody"))[1]["error"] == "invalid_client"
    assert (await token(session, client_secret=7))[0] == 400
    assert (await token(session, grant_type="password"))[1]["error"] == "unsupported_grant_type"
    async with session.post(TOKEN_PATH, data=b"client_id=simulator") as response:
        assert response.status == 400
    async with session.get("/_simulator/counters") as response:
        found = await response.json()
    assert (found["tokens_issued"], found["token_requests_refused"]) == (1, 5)


async def test_every_operation_needs_a_token_that_was_issued_here(connect: Connect) -> None:
    session = await connect()
    good = session.headers["authorization"]
    assert (await health(session, good))[0] == 200
    assert (await health(session, good.replace("Bearer", "bearer")))[0] == 200
    for wrong in ("Bearer made-up", "Bearer", good.replace("Bearer", "Basic")):
        status, document = await health(session, wrong)
        assert status == 401
        assert set(document) == {"error", "error_description", "traceId"}
    del session.headers["authorization"]
    async with session.post(BASE_PATH, json={}, headers={"x-optum-subtenant-id": "sub-1"}) as response:
        assert response.status == 401
        assert {name.lower() for name in response.headers if name.lower().startswith("x-optum")} == {
            "x-optum-subtenant-id",
        }


async def test_revoked_tokens_are_refused_and_a_new_one_is_accepted(connect: Connect) -> None:
    session = await connect()
    old = session.headers["authorization"]
    async with session.post("/_simulator/tokens/revoke") as response:
        assert await response.json() == {"revoked": 1}
    assert (await health(session, old))[0] == 401
    fresh = (await token(session))[1]["access_token"]
    assert (await health(session, f"Bearer {fresh}"))[0] == 200


async def test_a_token_expires(connect: Connect, until: Until) -> None:
    session = await connect(token_life_s=1)

    async def refused() -> bool:
        return (await health(session, session.headers["authorization"]))[0] == 401

    await until(refused)
