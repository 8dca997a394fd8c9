"""What is no question that could share its answer passes as it came; and what makes another question."""

import asyncio
import gzip
import json

import pytest

from tests.dedup.test_x12 import ADA, interchange
from tests.e2e.conftest import BODY, environment, run_gateway
from tests.e2e.test_dedup import FACT
from tests.scripted import Request, ScriptedUpstream, reply

UNREADABLE = [
    (b'{"a": 1, "a": 2}', "duplicate_key"),
    (b'{"a": NaN}', "not_finite"),
    (b'{"a": ' + b"9" * 5000 + b"}", "number_too_long"),
    (b'{"a":' * 200 + b"1" + b"}" * 200, "too_deep"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
    (b'{"a":"' + b"b" * 65_536 + b'"}', "too_long"),
    (b'{"a":"e' + "\u0315\u0300".encode() * 16 + b'"}', "not_stream_safe"),
    (b'{"a": "\xff\xfe"}', "not_utf8"),
    (b"[1]", "not_an_object"),
    (b"", "not_json"),
    (b"\x00\x01", "not_json"),
    (gzip.compress(b"{}"), "not_utf8"),
]


@pytest.mark.parametrize(("body", "reason"), UNREADABLE, ids=range(len(UNREADABLE)))
async def test_what_cannot_be_read_in_one_way_passes_byte_for_byte(body: bytes, reason: str, redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for _ in range(2):
            async with gateway.session.post(
                f"{gateway.url}/rcm/eligibility/v1", data=body, headers={"Content-Type": "application/json"}
            ) as response:
                assert response.status == 200
                assert response.headers["Cache-Status"] == f"eligibility-gateway; fwd=bypass; detail={reason}"

    assert [request.body for request in upstream.requests] == [body, body]


@pytest.mark.parametrize("coding", ["gzip", "identity", "", "x-own"])
async def test_what_says_that_it_is_encoded_is_never_taken_for_the_same_bytes_unencoded(
    coding: str, redis_url: str
) -> None:
    body = json.dumps(BODY).encode()
    async with (
        ScriptedUpstream(raw=reply(body=json.dumps(FACT).encode())) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        await gateway.submit()
        async with gateway.session.post(
            f"{gateway.url}/rcm/eligibility/v1",
            data=body,
            headers={"Content-Type": "application/json", "Content-Encoding": coding},
            skip_auto_headers=["Accept-Encoding"],
        ) as response:
            assert response.headers["Cache-Status"] == "eligibility-gateway; fwd=bypass; detail=content_encoding"
    assert [request.values("content-encoding") for request in upstream.requests] == [[], [coding]]
    assert upstream.requests[1].body == body


WHOLE = interchange(ADA)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WHOLE, ""),
        (WHOLE[:200], "not_x12"),
        (WHOLE.replace("~", "\n"), ""),
        (WHOLE.replace("*", "A"), "not_x12"),
        (WHOLE + WHOLE, "not_x12"),
        (WHOLE.replace("IEA", "\t~IEA"), "not_x12"),
        ("", "not_x12"),
    ],
)
async def test_torn_x12_passes_and_whole_x12_is_a_question(text: str, reason: str, redis_url: str) -> None:
    path = "/rcm/eligibility/v1/real-time/x12"
    raw = reply(body=json.dumps(FACT).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for _ in range(2):
            async with gateway.session.post(f"{gateway.url}{path}", json={"x12": text}) as response:
                status = response.headers["Cache-Status"]
    if reason:
        assert status == f"eligibility-gateway; fwd=bypass; detail={reason}"
    else:
        assert status.startswith("eligibility-gateway; hit;")
    assert len(upstream.requests) == (2 if reason else 1)


@pytest.mark.parametrize("value", ["deduplication", "DeDuplication", " deduplication ,", "a,deduplication"])
async def test_the_upstreams_own_bypass_is_honoured_forwarded_and_renews_the_window(value: str, redis_url: str) -> None:
    number = iter(range(1, 9))

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=json.dumps(FACT | {"id": f"t-{next(number)}"}).encode()))

    name = "x_optum_eligibility_disable_value_add"
    others = {name: "a"} if value.startswith("a") else {}
    async with (
        ScriptedUpstream(answer=answer) as upstream,
        run_gateway(environment(upstream.url, redis_url)) as gateway,
    ):
        assert (await (await gateway.submit(**others)).json())["id"] == "t-1"
        fresh = await gateway.submit(**{name: value})
        assert (await fresh.json())["id"] == "t-2"
        assert fresh.headers["Cache-Status"].startswith("eligibility-gateway; fwd=bypass; stored; ttl=")
        assert fresh.headers["Cache-Status"].endswith("; detail=requested")
        later = await gateway.submit(**others)

    assert later.headers["Cache-Status"].startswith("eligibility-gateway; hit;")
    assert (await later.json())["sourceId"] == "t-2"
    assert upstream.requests[1].values(name.replace("_", "-")) == [value.strip()]


async def test_headers_that_change_the_answer_make_another_question(redis_url: str) -> None:
    raw = reply(body=json.dumps(FACT).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for scenario in ("A", "a", "A"):
            await gateway.submit(x_optum_rcmelig_mock_scenarios=scenario)
        await gateway.submit(x_team="two", x_optum_trace_id="mine")
        await gateway.submit(x_team="three")
        async with gateway.session.post(f"{gateway.url}/rcm/eligibility/v1?mode=2", json=BODY) as response:
            assert response.status == 200

    assert len(upstream.requests) == 4


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Content-Type": "text/plain"}, "content_type"),
        ({"Accept": "text/xml"}, "accept"),
        ({"range": "bytes=0-4"}, "conditional"),
        ({"If-None-Match": "x"}, "conditional"),
    ],
)
async def test_whoever_speaks_another_language_asks_alone(headers: dict[str, str], reason: str, redis_url: str) -> None:
    raw = reply(body=json.dumps(FACT).encode())
    async with ScriptedUpstream(raw=raw) as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit()
        async with gateway.session.post(
            f"{gateway.url}/rcm/eligibility/v1",
            data=json.dumps(BODY),
            headers={"Content-Type": "application/json"} | headers,
        ) as response:
            assert response.headers["Cache-Status"] == f"eligibility-gateway; fwd=bypass; detail={reason}"

    assert len(upstream.requests) == 2
