import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web

from gateway.operations import BASE_PATH
from gateway.simulator.callbacks import Courier
from gateway.simulator.clock import Clock
from gateway.simulator.options import Options

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Body = Callable[..., dict[str, Any]]
X12 = Callable[..., str]
DISCOVERY = f"{BASE_PATH}/coverage-discovery"
LINK = re.compile(r'<(/coverage-discovery/[0-9a-f-]{36})>; title="(coverage discovery - [^"]+)"; rel="related"')


@dataclass
class Receiver:
    """A customer's receiver: says what it is told to, and remembers what came."""

    url: str = ""
    verdicts: list[int] = field(default_factory=list)
    callbacks: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    token_requests: list[tuple[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.callbacks.append((headers, await request.json()))
        return web.Response(status=self.verdicts.pop(0) if self.verdicts else 204)

    async def issue(self, request: web.Request) -> web.Response:
        self.token_requests.append((request.headers["authorization"], (await request.read()).decode()))
        token = f"receiver-{len(self.token_requests)}"
        return web.json_response({"access_token": token, "token_type": "bearer", "expires_in": 3600})


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/callbacks", found.take)
    app.router.add_post("/token", found.issue)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site.port}"
    yield found
    await runner.cleanup()


async def get(session: ClientSession, path: str) -> Any:  # noqa: ANN401 - JSON
    async with session.get(path) as response:
        assert response.status == 200
        return await response.json()


async def counters(session: ClientSession) -> dict[str, Any]:
    return dict(await get(session, "/_simulator/counters"))


async def linked(session: ClientSession, body: dict[str, Any]) -> list[tuple[str, str]]:
    async with session.post(BASE_PATH, json=body) as response:
        assert response.status == 200
        return LINK.findall(response.headers.get("link", ""))


async def test_real_time_answers_name_the_tasks_that_they_started(connect: Connect, body_for: Body) -> None:
    session = await connect()
    counts = {"SIM-INELIGIBLE": 1, "SIM-UNKNOWN": 1, "SIM-HMO": 2, "SIM-MIXED": 1, "SIM-NOPATH": 0, "SIM-FAST": 0}
    for payer, count in counts.items():
        links = await linked(session, body_for(payer))
        assert len(links) == count, payer
        for path, _ in links:
            assert (await get(session, BASE_PATH + path))["id"] == path.rpartition("/")[2]


async def test_a_task_is_pending_first(connect: Connect, body_for: Body) -> None:
    session = await connect(speed=1)
    async with session.post(DISCOVERY, json={"canonicalEligibilityRequest": body_for("SIM-INELIGIBLE")}) as response:
        location = response.headers["location"]
    task = await get(session, BASE_PATH + location)
    assert task["status"] == "pending"
    assert [path["name"] for path in task["discoveryPaths"]["pending"]] == ["Commercial", "Medicaid"]
    assert [path["name"] for path in task["discoveryPaths"]["skipped"]] == ["RTCOB"]
    assert "endDateTime" not in task


@pytest.mark.parametrize(("payer", "end"), [("SIM-INELIGIBLE", "success"), ("SIM-UNKNOWN", "failure")])
async def test_a_task_succeeds_or_fails_as_its_payer_says(
    connect: Connect,
    body_for: Body,
    until: Until,
    payer: str,
    end: str,
) -> None:
    session = await connect(speed=6000, enterprise_gateway_cut_s=None)
    ((path, _),) = await linked(session, body_for(payer))

    async def ended() -> bool:
        return bool((await get(session, BASE_PATH + path))["status"] != "pending")

    await until(ended)
    task = await get(session, BASE_PATH + path)
    assert task["status"] == end
    assert task["discoveryPaths"]["pending"] == []
    assert task["endDateTime"] > task["startDateTime"]
    assert task == await get(session, BASE_PATH + path)


async def test_submitting_answers_202_with_a_location_or_207_or_422(connect: Connect, body_for: Body) -> None:
    session = await connect()
    async with session.post(DISCOVERY, json={"canonicalEligibilityRequest": body_for("SIM-FAST")}) as response:
        assert response.status == 202
        document = await response.json()
        assert response.headers["location"] == f"/coverage-discovery/{document['id']}"
    async with session.post(DISCOVERY, json={"canonicalEligibilityRequest": body_for("SIM-MIXED")}) as response:
        assert response.status == 207
        items = await response.json()
    assert [item["status"] for item in items] == [202, 422]
    assert items[0]["href"] == f"/coverage-discovery/{items[0]['body']['id']}"
    async with session.post(DISCOVERY, json={"canonicalEligibilityRequest": body_for("SIM-NOPATH")}) as response:
        assert response.status == 422


async def test_a_dry_run_starts_nothing(connect: Connect, body_for: Body, x12_for: X12) -> None:
    session = await connect()
    for payer, status in (("SIM-FAST", 200), ("SIM-HMO", 207), ("SIM-MIXED", 207), ("SIM-NOPATH", 422)):
        body = {"canonicalEligibilityRequest": body_for(payer), "dryRun": True}
        async with session.post(DISCOVERY, json=body) as response:
            assert response.status == status, payer
    x12 = {"x12-270": x12_for("SIM-FAST"), "x12-271": x12_for("SIM-FAST"), "dryRun": True}
    async with session.post(f"{DISCOVERY}/x12", json=x12) as response:
        assert response.status == 200
        assert [path["name"] for path in (await response.json())["pending"]] == ["Commercial", "Medicaid", "RTCOB"]
    assert await get(session, DISCOVERY) == []


async def test_the_x12_form_needs_both_messages(connect: Connect, x12_for: X12) -> None:
    session = await connect()
    both = {"x12-270": x12_for("SIM-FAST"), "x12-271": x12_for("SIM-FAST")}
    async with session.post(f"{DISCOVERY}/x12", json=both) as response:
        assert response.status == 202
    for missing in both:
        body = {name: value for name, value in both.items() if name != missing}
        async with session.post(f"{DISCOVERY}/x12", json=body) as response:
            assert response.status == 422
            assert missing in " ".join(await response.json())


async def test_a_submission_that_is_wrong_is_refused(connect: Connect, body_for: Body) -> None:
    session = await connect()
    good = {"canonicalEligibilityRequest": body_for("SIM-FAST")}
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"canonicalEligibilityRequest": {}},
        good | {"callbackUrl": "file:///etc/passwd"},
        good | {"callbackUrl": 7},
        good | {"dryRun": "yes"},
        good | {"canonicalEligibilityResponse": []},
    )
    for body in wrong:
        async with session.post(DISCOVERY, json=body) as response:
            assert response.status == 422, body


async def test_tasks_are_listed_by_status_and_correlation_id(connect: Connect, body_for: Body) -> None:
    session = await connect(speed=1)
    body = {"canonicalEligibilityRequest": body_for("SIM-FAST")}
    ids = []
    for number in range(3):
        headers = {"x-optum-correlation-id": f"corr-{number}"}
        async with session.post(DISCOVERY, json=body, headers=headers) as response:
            ids.append((await response.json())["id"])
    assert [task["id"] for task in await get(session, DISCOVERY)] == ids[::-1]
    assert [task["id"] for task in await get(session, f"{DISCOVERY}?correlationId=corr-1")] == [ids[1]]
    assert [task["id"] for task in await get(session, f"{DISCOVERY}?status=pending&sort=startDateTime")] == ids
    assert await get(session, f"{DISCOVERY}?status=success") == []
    async with session.get(f"{DISCOVERY}?limit=2") as response:
        assert response.headers["link"] == '</coverage-discovery?limit=2&offset=2>; rel="next"'
    async with session.get(f"{DISCOVERY}/{'0' * 36}") as response:
        assert response.status == 404


async def test_an_ended_task_is_called_back_with_a_token_of_the_receiver(
    connect: Connect,
    body_for: Body,
    receiver: Receiver,
    until: Until,
) -> None:
    session = await connect(
        callback_url=f"{receiver.url}/callbacks",
        callback_token_url=f"{receiver.url}/token",
        callback_client_id="us",
        callback_client_secret="our-secret",
    )
    headers = {"x-optum-correlation-id": "corr-callback"}
    async with session.post(BASE_PATH, json=body_for("SIM-INELIGIBLE"), headers=headers) as response:
        ((path, _),) = LINK.findall(response.headers["link"])
        tenant = response.headers["x-optum-tenant-id"]

    async def delivered() -> bool:
        return bool((await counters(session))["callbacks_delivered"] == 1)

    await until(delivered)
    ((headers, document),) = receiver.callbacks
    assert headers["authorization"] == "Bearer receiver-1"
    assert headers["x-optum-tenant-id"] == tenant
    assert headers["x-optum-correlation-id"] == "corr-callback"
    assert document == await get(session, BASE_PATH + path)
    basic = "Basic " + base64.b64encode(b"us:our-secret").decode()
    assert receiver.token_requests == [(basic, "grant_type=client_credentials")]


async def test_a_failed_callback_is_tried_again_and_401_fetches_a_new_token(
    connect: Connect,
    body_for: Body,
    receiver: Receiver,
    until: Until,
) -> None:
    receiver.verdicts[:] = [401, 503, 200]
    session = await connect(callback_token_url=f"{receiver.url}/token")
    body = {"canonicalEligibilityRequest": body_for("SIM-FAST"), "callbackUrl": f"{receiver.url}/callbacks"}
    async with session.post(DISCOVERY, json=body) as response:
        assert response.status == 202

    async def delivered() -> bool:
        return bool((await counters(session))["callbacks_delivered"] == 1)

    await until(delivered)
    tokens = [headers["authorization"] for headers, _ in receiver.callbacks]
    assert tokens == ["Bearer receiver-1", "Bearer receiver-2", "Bearer receiver-2", "Bearer receiver-2"]
    found = await counters(session)
    assert (found["callbacks_attempted"], found["callbacks_unauthorized"]) == (4, 1)


async def test_tries_are_bounded(connect: Connect, body_for: Body, receiver: Receiver, until: Until) -> None:
    receiver.verdicts[:] = [500] * 10
    session = await connect(callback_url=f"{receiver.url}/callbacks", callback_tries=3)
    await linked(session, body_for("SIM-INELIGIBLE"))

    async def given_up() -> bool:
        return bool((await counters(session))["callbacks_given_up"] == 1)

    await until(given_up)
    assert len(receiver.callbacks) == 3
    assert "authorization" not in receiver.callbacks[0][0]


async def test_a_callback_never_leaves_loopback_unless_the_host_is_named(
    connect: Connect,
    body_for: Body,
    until: Until,
) -> None:
    session = await connect()
    body = {"canonicalEligibilityRequest": body_for("SIM-FAST"), "callbackUrl": "http://receiver.invalid/callbacks"}
    async with session.post(DISCOVERY, json=body) as response:
        assert response.status == 202

    async def refused() -> bool:
        return bool((await counters(session))["callbacks_not_allowed"] == 1)

    await until(refused)
    assert (await counters(session))["callbacks_attempted"] == 0


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:1/x", True),
        ("https://[::1]/x", True),
        ("http://localhost/x", True),
        ("http://receiver.test/x", True),
        ("http://RECEIVER.test/x", True),
        ("http://localhost.elsewhere.test/x", False),
        ("http://127.0.0.1@elsewhere.test/x", False),
        ("http://elsewhere.test#@127.0.0.1/", False),
        ("http://10.0.0.1/x", False),
        ("http://169.254.169.254/latest", False),
        ("ftp://127.0.0.1/x", False),
        ("file:///x", False),
        ("http://", False),
        ("/x", False),
        ("http://127.0.0.1:port/", False),
    ],
)
async def test_only_loopback_and_named_hosts_are_allowed(url: str, allowed: bool) -> None:  # noqa: FBT001
    courier = Courier(Options(callback_hosts=("receiver.test",)), Clock(1.0))
    assert courier.allows(url) is allowed
