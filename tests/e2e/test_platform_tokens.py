"""Callers that show the token of a platform, as pods of a Kubernetes cluster do."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.callers.platform import AUDIENCE, ISSUER, NEXT, SUBJECT, Publisher, publishing, token_now
from tests.e2e.conftest import Running, about, environment, run_gateway
from tests.scripted import ScriptedUpstream

CALLERS = """
issuers:
  cluster: {issuer: "%s", audience: "%s", jwks: "%s"}
callers:
  workload: {subjects: ["cluster/%s"], operations: [submit_eligibility]}
  billing: {secret_sha256: "%s"}
"""


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with publishing(Publisher()) as one:
        yield one


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as one:
        yield one


@pytest.fixture
async def gateway(
    redis_url: str, policies: Callable[..., str], publisher: Publisher, upstream: ScriptedUpstream
) -> AsyncIterator[Running]:
    callers = CALLERS % (ISSUER, AUDIENCE, publisher.url, SUBJECT, "0" * 64)
    directory = policies(callers=callers, all="match: {operations: ['*']}\n")
    async with run_gateway(environment(upstream.url, redis_url, policies=directory)) as running:
        yield running


async def ask(gateway: Running, token: str) -> tuple[int, str]:
    response = await gateway.submit(about(token), authorization=f"Bearer {token}")
    problem: dict[str, Any] = await response.json(content_type=None) if response.status >= 400 else {}
    return response.status, str(problem.get("code", ""))


async def test_a_pod_asks_with_the_token_that_its_cluster_gave_it(gateway: Running, upstream: ScriptedUpstream) -> None:
    assert await ask(gateway, token_now()) == (200, "")
    record = gateway.records()[-1]
    assert (record["caller"], record["identified_by"]) == ("workload", "platform")
    assert "Bearer scripted-token" in upstream.requests[-1].values("authorization")
    async with gateway.session.get(
        f"{gateway.url}/rcm/eligibility/v1/healthcheck", headers={"authorization": f"Bearer {token_now()}"}
    ) as response:
        assert response.status == 403


async def test_a_token_that_is_not_good_is_refused_and_reaches_nobody(
    gateway: Running, upstream: ScriptedUpstream
) -> None:
    for wrong in (
        token_now(aud="another"),
        token_now(sub="system:serviceaccount:other:default"),
        token_now(exp=1),
        token_now(NEXT, "ES256"),
        token_now()[:-3],
    ):
        assert await ask(gateway, wrong) == (401, "unauthenticated")
    assert upstream.requests == []
    assert 'issuer_key_fetches_total{issuer="cluster",result="good"}' in await gateway.metrics()


async def test_without_any_key_nobody_can_say_and_nothing_is_sent(
    redis_url: str, policies: Callable[..., str], upstream: ScriptedUpstream
) -> None:
    callers = CALLERS % (ISSUER, AUDIENCE, "/nowhere/keys.json", SUBJECT, "0" * 64)
    directory = policies(callers=callers, all="match: {operations: ['*']}\n")
    async with run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway:
        assert await ask(gateway, token_now()) == (503, "issuer_unavailable")
        assert await ask(gateway, "of-nobody") == (401, "unauthenticated")
        told = [line for line in gateway.lines() if line["event"] == "an issuer's keys cannot be had"]
        assert [(line["issuer"], line["reason"]) for line in told] == [("cluster", "ENOENT")]
    assert upstream.requests == []
