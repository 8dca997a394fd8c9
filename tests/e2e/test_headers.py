"""What the gateway adds to headers and takes from them, seen on the wire on both sides."""

import hashlib
import re
from collections.abc import Callable

from yarl import URL

from tests.e2e.conftest import Running, environment, run_gateway
from tests.e2e.test_pass_through import raw_exchange
from tests.scripted import Request, ScriptedUpstream, reply

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SECRET = "s3cret-of-scheduling"
SCHEDULING = f"""
callers:
  scheduling:
    secret_sha256: {hashlib.sha256(SECRET.encode()).hexdigest()}
    subtenant: sub-scheduling
    subtenant_choices: [sub-other]
"""
POLICY = """
match: {operations: ["*"]}
headers:
  set: {X-Team: eligibility}
  remove: [X-Internal]
"""


async def send(upstream: ScriptedUpstream, gateway: Running, *headers: str) -> tuple[Request, str]:
    """Send these header lines exactly, and return what arrived and what came back."""
    lines = "".join(f"{header}\r\n" for header in headers)
    request = f"POST /rcm/eligibility/v1 HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\n{lines}\r\n{{}}"
    seen = await raw_exchange(gateway.url, request.encode("latin-1"))
    return upstream.requests[-1], seen.decode("latin-1")


async def test_what_is_forged_does_not_survive_in_any_case(redis_url: str, policies: Callable[..., str]) -> None:
    directory = policies(callers=SCHEDULING, all=POLICY)
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        seen, _ = await send(
            upstream,
            gateway,
            f"authorization: Bearer {SECRET}",
            "X-Optum-Tenant-Id: forged",
            "x-TEAM: forged",
            "X-INTERNAL: secret",
            f"X-API-KEY: {SECRET}",
            "Kept: yes",
        )
    assert seen.values("x-optum-subtenant-id") == ["sub-scheduling"]
    assert seen.values("x-optum-tenant-id") == []
    assert seen.values("authorization") == ["Bearer scripted-token"]
    assert seen.values("x-api-key") == []
    assert seen.values("x-team") == ["eligibility"]
    assert seen.values("x-internal") == []
    assert seen.values("kept") == ["yes"]


async def test_a_caller_may_name_only_the_subtenants_it_was_given(redis_url: str, policies: Callable[..., str]) -> None:
    directory = policies(callers=SCHEDULING, all=POLICY)
    async with (
        ScriptedUpstream() as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory)) as gateway,
    ):
        for own in ("sub-other", "sub-scheduling"):
            seen, _ = await send(upstream, gateway, f"x-api-key: {SECRET}", f"X-OPTUM-Subtenant-Id: {own}")
            assert seen.values("x-optum-subtenant-id") == [own]
        asked = len(upstream.requests)
        for foreign in (("sub-foreign",), ("sub-other", "sub-other"), ("",), ("sub-scheduling, sub-other",)):
            named = (f"x-Optum-Subtenant-ID: {name}" for name in foreign)
            _, back = await send(upstream, gateway, f"x-api-key: {SECRET}", *named)
            assert back.startswith("HTTP/1.1 403 Forbidden\r\n")
            assert '"code":"foreign_subtenant"' in back
    assert len(upstream.requests) == asked


async def test_a_well_formed_correlation_id_is_kept_and_any_other_replaced(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        seen, back = await send(upstream, gateway, "X-Optum-Correlation-ID: visit-42.a")
        assert seen.values("x-optum-correlation-id") == ["visit-42.a"]
        assert "x-optum-correlation-id: visit-42.a\r\n" in back
        for odd in (("x-optum-correlation-id: a b",), ("x-optum-correlation-id: a", "X-OPTUM-Correlation-id: b"), ()):
            seen, back = await send(upstream, gateway, *odd)
            (made,) = seen.values("x-optum-correlation-id")
            assert UUID7.fullmatch(made)
            assert f"x-optum-correlation-id: {made}\r\n" in back


async def test_every_problem_carries_the_correlation_id(gateway: Running) -> None:
    async with gateway.session.get(
        f"{gateway.url}/elsewhere",
        headers={"x-optum-correlation-id": "lost-1"},
    ) as response:
        problem = await response.json(content_type="application/problem+json")
    assert response.status == 404
    assert response.headers["x-optum-correlation-id"] == problem["correlation_id"] == "lost-1"
    assert "Server" not in response.headers


async def test_hop_by_hop_headers_end_here_on_both_sides(redis_url: str) -> None:
    headers = (
        "Content-Type: text/plain",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "X-E: 2",
    )
    async with (
        ScriptedUpstream(raw=reply(headers=headers)) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        seen, back = await send(
            upstream,
            gateway,
            "Connection: keep-alive, X-Mine, Content-Type, X-Optum-Eligibility-Disable-Value-Add",
            "X-Mine: 1",
            "TE: trailers",
            "Proxy-Authorization: Basic x",
            "Content-Type: application/json",
            "x-optum-eligibility-disable-value-add: deduplication",
        )
    assert seen.values("x-mine") == seen.values("te") == seen.values("proxy-authorization") == []
    assert seen.values("content-type") == ["application/json"]
    assert seen.values("x-optum-eligibility-disable-value-add") == ["deduplication"]
    assert "X-Hop" not in back
    assert "Keep-Alive" not in back
    assert "X-E: 2\r\n" in back


async def test_names_and_order_of_headers_stay_as_they_were_sent(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        sent = ["ACCEPT: text/x", "X-b: 1", "user-agent: me", "X-b: 2", "Cookie: a=b", "X-Uni: \u00c3\u00a9"]
        seen, _ = await send(upstream, gateway, *sent)
    arrived = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in seen.headers]
    assert [line for line in arrived if line in sent] == sent


async def test_a_header_repeated_in_another_case_loses_no_value(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        seen, _ = await send(upstream, gateway, "X-b: 1", "x-B: 2", "X-B: 3")
    assert seen.values("x-b") == ["1", "2", "3"]


async def test_no_caller_inherits_what_the_upstream_told_another(redis_url: str) -> None:
    cookie = reply(headers=("Set-Cookie: session=of-the-first; Path=/",))
    async with ScriptedUpstream(raw=cookie) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for _ in range(2):
            async with gateway.session.get(
                URL(gateway.url + "/rcm/eligibility/v1/healthcheck"),
                headers={"Cookie": "mine=1"},
            ) as response:
                assert response.headers["Set-Cookie"] == "session=of-the-first; Path=/"
    assert [request.values("cookie") for request in upstream.requests] == [["mine=1"], ["mine=1"]]
