"""Clients that were written for the upstream: they fetch a token here, with credentials of the gateway, and go on."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from authlib.integrations.requests_client import OAuth2Session

from gateway.simulator import Options, Simulator
from tests.e2e.conftest import BODY, Running, environment, run_gateway

SECRET, OTHER = "of-scheduling-0123456789", "of-billing-0123456789"
CALLERS = """callers:
  scheduling: {secret_sha256: "%s"}
  billing: {secret_sha256: "%s", operations: [healthcheck]}
"""
CHECKS = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 1h}\n"
SUBMIT = "/rcm/eligibility/v1"
TOKEN = "/apip/auth/v2/token"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
def directory(policies: Callable[..., str]) -> str:
    return policies(callers=CALLERS % (digest(SECRET), digest(OTHER)), checks=CHECKS)


@pytest.fixture
async def gateway(redis_url: str, directory: str) -> AsyncIterator[Running]:
    async with (
        Simulator(Options(speed=60.0)) as simulator,
        run_gateway(environment(simulator.url, redis_url, policies=directory, policies_poll_s="0.05")) as running,
    ):
        yield running


def as_client(url: str, method: str, secret: str = SECRET) -> dict[str, Any]:
    """What a service does with a client that nobody here wrote: token, submit, list, get."""
    with OAuth2Session("scheduling", secret, token_endpoint_auth_method=method) as session:
        token = session.fetch_token(f"{url}{TOKEN}", grant_type="client_credentials")
        submitted = session.post(f"{url}{SUBMIT}", json=BODY)
        listed = session.get(f"{url}{SUBMIT}/transactions", params={"limit": 5})
        read = session.get(f"{url}{SUBMIT}/transactions/{submitted.json()['id']}")
    return {
        "token": dict(token),
        "statuses": [one.status_code for one in (submitted, listed, read)],
        "read": read.json(),
    }


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_of_the_upstream_works_unchanged(gateway: Running, method: str) -> None:
    found = await asyncio.to_thread(as_client, gateway.url, method)

    assert found["statuses"] == [200, 200, 200]
    assert found["read"]["status"]["value"] == "eligible"
    assert found["token"]["token_type"] == "bearer"
    assert found["token"]["expires_in"] == 3600
    assert [record["caller"] for record in gateway.records()] == ["scheduling"] * 4
    assert gateway.records()[0]["operation"] == "token"


async def ask(gateway: Running, document: object, **headers: str) -> tuple[int, dict[str, Any], Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.session.post(f"{gateway.url}{TOKEN}", json=document, headers=named) as response:
        return response.status, json.loads(await response.read()), response.headers


def asking(caller: str = "scheduling", secret: str = SECRET) -> dict[str, str]:
    return {"grant_type": "client_credentials", "client_id": caller, "client_secret": secret}


async def token_of(gateway: Running, *who: str) -> str:
    status, document, _ = await ask(gateway, asking(*who))
    assert status == 200
    return str(document["access_token"])


async def test_it_answers_as_the_upstreams_own_does(gateway: Running) -> None:
    status, document, headers = await ask(gateway, asking())
    assert (status, set(document)) == (200, {"access_token", "token_type", "expires_in"})
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    assert "Server" not in headers

    for wrong in (asking(secret="wrong"), asking("nobody"), asking("billing"), asking(secret=digest(SECRET))):
        status, document, headers = await ask(gateway, wrong)
        assert (status, document["error"]) == (401, "invalid_client")
        assert set(document) == {"error", "error_description"}
        assert headers["Cache-Control"] == "no-store"
    assert (await ask(gateway, asking() | {"grant_type": "password"}))[1]["error"] == "unsupported_grant_type"
    assert (await ask(gateway, []))[:2][1]["error"] == "invalid_request"


async def test_whoever_came_with_basic_is_told_so(gateway: Running) -> None:
    wrong = base64.b64encode(b"scheduling:wrong").decode()
    status, document, headers = await ask(gateway, {"grant_type": "client_credentials"}, authorization=f"Basic {wrong}")

    assert (status, document["error"]) == (401, "invalid_client")
    assert headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_token_is_good_on_every_replica_and_for_its_caller_alone(
    gateway: Running, directory: str, redis_url: str
) -> None:
    token = await token_of(gateway, "billing", OTHER)
    async with (
        Simulator(Options(speed=60.0)) as simulator,
        run_gateway(environment(simulator.url, redis_url, policies=directory)) as another,
    ):
        async with another.session.get(
            f"{another.url}{SUBMIT}/healthcheck", headers={"Authorization": f"Bearer {token}"}
        ) as response:
            assert response.status == 200
        refused = await another.submit(authorization=f"Bearer {token}")
        assert (refused.status, (await refused.json())["code"]) == (403, "no_policy")


async def test_a_token_never_goes_upstream(gateway: Running) -> None:
    token = await token_of(gateway)
    assert (await gateway.submit(authorization=f"Bearer {token}")).status == 200  # the simulator knows its own alone


async def test_a_caller_that_is_taken_away_takes_its_tokens_along(
    gateway: Running, policies: Callable[..., str]
) -> None:
    token = await token_of(gateway)
    assert (await gateway.submit(authorization=f"Bearer {token}")).status == 200
    policies(callers=CALLERS % (digest("another-secret"), digest(OTHER)))

    async with asyncio.timeout(20):
        while (refused := await gateway.submit(authorization=f"Bearer {token}")).status == 200:  # from what is kept
            pass
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await ask(gateway, asking()))[0] == 401


async def test_no_secret_and_no_token_is_logged(gateway: Running) -> None:
    token = await token_of(gateway)
    await gateway.submit(authorization=f"Bearer {token}")
    await ask(gateway, asking(secret="wrong-secret"))
    said = gateway.output.getvalue().decode()

    for secret in (SECRET, token, token.rpartition(".")[2], "wrong-secret"):
        assert secret not in said
    assert [record["code"] for record in gateway.records()] == ["", "", "invalid_client"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_a_post_is_for_a_token(gateway: Running, method: str) -> None:
    async with gateway.session.request(method, f"{gateway.url}{TOKEN}") as response:
        assert response.status == 401
