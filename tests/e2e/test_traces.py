"""Traces as a collector gets them, over a real socket."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import BODY, environment, run_gateway
from tests.running import ROOT, eventually
from tests.scripted import Request, ScriptedUpstream, once, reply

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
ELIGIBLE = reply(body=b'{"id": "t-1", "correlationId": "c", "status": {"value": "eligible"}}')
SERVER, CLIENT = 2, 3


@dataclass(slots=True)
class Collector:
    """Takes what is exported, and keeps it as it came."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    status: int = 200

    def spans(self, kind: int) -> list[Any]:
        found = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [scope for one in found for resource in one.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans if span.kind == kind]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    taking = Collector()

    async def take(request: web.Request) -> web.Response:
        taking.bodies.append(await request.read())
        return web.Response(status=taking.status)

    application = web.Application()
    application.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taking.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield taking
    await runner.cleanup()


def attributes(span: Any) -> dict[str, Any]:  # noqa: ANN401 - protobuf's own
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


async def test_a_request_is_a_server_span_and_its_call_a_client_span_that_the_upstream_is_told(
    collector: Collector, redis_url: str
) -> None:
    async with ScriptedUpstream(raw=ELIGIBLE) as upstream:
        async with run_gateway(environment(upstream.url, redis_url, otlp_endpoint=collector.url)) as gateway:
            await gateway.submit(traceparent=PARENT, tracestate="a=1")
            metrics = await gateway.session.get(
                f"{gateway.admin_url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
            )
            text = await metrics.text()
        ((server,), (client,)) = collector.spans(SERVER), collector.spans(CLIENT)

    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
    assert (client.trace_id.hex(), client.parent_span_id) == (TRACE, server.span_id)
    (asked,) = upstream.requests
    assert asked.values("traceparent") == [f"00-{TRACE}-{client.span_id.hex()}-01"]
    assert asked.values("tracestate") == ["a=1"]
    assert server.name == "POST /rcm/eligibility/v1"
    assert client.start_time_unix_nano >= server.start_time_unix_nano - 1_000_000
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    told = attributes(server)
    assert (told["http.response.status_code"], told["eligibility_gateway.decision"]) == (200, "lead")
    assert attributes(client)["eligibility_gateway.outcome"] == "eligible"
    assert f'# {{trace_id="{TRACE}"}}' in text
    assert gateway.records()[0]["trace"] == TRACE


async def test_a_request_without_a_trace_begins_one_and_a_replay_makes_no_call(
    collector: Collector, redis_url: str
) -> None:
    async with (
        ScriptedUpstream(raw=ELIGIBLE) as upstream,
        run_gateway(environment(upstream.url, redis_url, otlp_endpoint=collector.url)) as gateway,
    ):
        await gateway.submit()
        await gateway.submit()
    servers = collector.spans(SERVER)

    assert len({span.trace_id for span in servers}) == 2
    assert [span.parent_span_id for span in servers] == [b"", b""]
    assert [attributes(span)["eligibility_gateway.decision"] for span in servers] == ["lead", "replay"]
    assert len(collector.spans(CLIENT)) == 1


@pytest.mark.parametrize(("headers", "ratio"), [({"traceparent": PARENT[:-1] + "0"}, "1.0"), ({}, "0.0")])
async def test_what_is_not_sampled_is_not_exported_and_said_so_on(
    headers: dict[str, str], ratio: str, collector: Collector, redis_url: str
) -> None:
    variables = environment("", redis_url, otlp_endpoint=collector.url, trace_sample_ratio=ratio)
    async with ScriptedUpstream(raw=ELIGIBLE) as upstream:
        async with run_gateway(variables | {"GATEWAY_UPSTREAM_URL": upstream.url}) as gateway:
            await gateway.submit(**headers)
        (passed,) = upstream.requests[0].values("traceparent")

    assert passed.endswith("-00")
    assert collector.bodies == []


async def test_without_tracing_what_came_passes_as_it_came(redis_url: str) -> None:
    async with ScriptedUpstream(raw=ELIGIBLE) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit(traceparent=PARENT, tracestate="a=1")
        await gateway.submit(BODY | {"subscriber": {"memberId": "OTHER", "dateOfBirth": "19700101"}})

    first, second = upstream.requests
    assert (first.values("traceparent"), first.values("tracestate")) == ([PARENT], ["a=1"])
    assert second.values("traceparent") == []
    assert gateway.records()[0]["trace"] == TRACE


async def test_a_call_that_outlives_its_request_is_told_when_it_ends(collector: Collector, redis_url: str) -> None:
    release = asyncio.Event()

    async with (
        ScriptedUpstream(answer=once(release, ELIGIBLE)) as upstream,
        run_gateway(environment(upstream.url, redis_url, otlp_endpoint=collector.url)) as gateway,
    ):
        await gateway.submit(prefer="wait=1", traceparent=PARENT)
        release.set()
        await eventually(lambda: asyncio.sleep(0, bool(gateway.calls())))
    ((server,), (client,)) = collector.spans(SERVER), collector.spans(CLIENT)

    assert client.parent_span_id == server.span_id
    assert client.end_time_unix_nano > server.end_time_unix_nano
    assert attributes(server)["error.type"] == "answer_pending"
    assert server.status.code == 2


async def test_looking_for_a_cut_submission_is_part_of_its_trace(
    collector: Collector, redis_url: str, policies: Callable[..., str]
) -> None:
    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        is_list = request.line.startswith(b"GET")
        writer.write(reply(body=b"[]") if is_list else reply("504 Gateway Timeout", b'{"error": "x", "traceId": "y"}'))

    text = "match: {operations: ['*']}\nrecover: {within: 1s, attempts: 1, pause: 50ms}\n"
    directory = policies(callers="callers: {anonymous: {}}\n", all=text)
    async with (
        ScriptedUpstream(answer=cut) as upstream,
        run_gateway(
            environment(upstream.url, redis_url, otlp_endpoint=collector.url, policies=directory), speed=10_000.0
        ) as gateway,
    ):
        await gateway.submit(traceparent=PARENT)
    ((server,), clients) = collector.spans(SERVER), collector.spans(CLIENT)

    assert [span.name.rpartition("/")[2] for span in clients] == ["v1", "transactions"]
    assert {span.parent_span_id for span in clients} == {server.span_id}
    assert attributes(server)["eligibility_gateway.recovery"] == "not_found"


@pytest.mark.parametrize("broken", [True, False])
async def test_a_collector_that_is_down_or_refuses_harms_nobody(
    broken: bool,  # noqa: FBT001 - a table
    collector: Collector,
    redis_url: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    collector.status = 500
    url = "http://127.0.0.1:9" if broken else collector.url
    async with (
        ScriptedUpstream(raw=ELIGIBLE) as upstream,
        run_gateway(environment(upstream.url, redis_url, otlp_endpoint=url)) as gateway,
    ):
        statuses = [(await gateway.submit()).status for _ in range(5)]

    assert statuses == [200] * 5
    assert len(gateway.records()) == 5
    assert capfd.readouterr() == ("", "")


async def test_no_span_says_more_than_the_log(
    collector: Collector, redis_url: str, policies: Callable[..., str]
) -> None:
    secret = "Quetzalcoatl"  # in every place from which it must not get out
    files = {"callers": "callers: {anonymous: {}}\n", "all": "match: {operations: ['*'], forward: ['GET /beta/*']}\n"}
    variables = environment("", redis_url, otlp_endpoint=collector.url, policies=policies(**files))
    raw = reply(f"500 {secret}", body=f'["{secret}"]'.encode(), headers=(f"X-Name: {secret}",))
    async with (
        ScriptedUpstream(raw=raw) as upstream,
        run_gateway(variables | {"GATEWAY_UPSTREAM_URL": upstream.url}) as gateway,
    ):
        await gateway.submit(BODY | {"subscriber": {"memberId": secret}}, x_name=secret, tracestate=f"a={secret}")
        async with gateway.session.get(f"{gateway.url}/beta/{secret}?name={secret}") as response:
            await response.read()
        async with gateway.session.get(f"{gateway.url}/gamma/{secret}") as response:
            await response.read()

    assert len(collector.spans(SERVER)) == 3
    assert len(collector.spans(CLIENT)) == 2
    assert secret.lower().encode() not in b"".join(collector.bodies).lower()


def test_without_the_extra_it_says_what_is_missing_and_does_not_start(redis_url: str) -> None:
    without = "import sys; sys.modules['opentelemetry.exporter'] = None; from gateway.cli import main; main()"
    variables = environment("http://127.0.0.1:9", redis_url, otlp_endpoint="http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", without, "serve"],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert "GATEWAY_OTLP_ENDPOINT: found no OpenTelemetry installed, expected the extra" in done.stderr
    assert "Traceback" not in done.stderr
