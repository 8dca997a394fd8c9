"""Who asks comes before what is asked: whoever is nobody learns nothing of the paths there are."""

import hashlib
from pathlib import Path
from typing import cast

import pytest
from multidict import CIMultiDict

from gateway.audit.step import AuditStep
from gateway.callers.client import IssuerKeys, KeySources
from gateway.callers.step import CallersStep, Sources
from gateway.callers.tokens import Tokens
from gateway.callers.turns import Turns
from gateway.dedup.step import DedupStep
from gateway.errors import NoPolicy, Unauthenticated, UnknownPath, WrongMethod
from gateway.exchange import Exchange, Forward, Inbound, Outbound, Reply
from gateway.headers.step import HeadersStep
from gateway.http.upstream import Upstream
from gateway.operations import BASE_PATH
from gateway.pipeline import Pipeline, Steps
from gateway.policy.files import load
from gateway.problem import GatewayError
from gateway.recovery.step import RecoverStep
from gateway.token.step import TokenStep

KNOWN = {"x-api-key": "alpha"}


async def unreached(_forward: Forward, _exchange: Exchange, _outbound: Outbound, /) -> Reply:
    raise AssertionError("no step takes part in a request that is refused")


STEPS = Steps(
    callers=CallersStep(
        Tokens([("kid", bytes(32))]),
        IssuerKeys(KeySources(now=lambda: 0.0, on_fetched=lambda _, __: None)),
        Turns(10, now=lambda: 0.0, measured=lambda: 0.0),
        Sources(wall_now=lambda: 0.0, new_id=str),
    ),
    audit=cast("AuditStep", unreached),
    dedup=cast("DedupStep", unreached),
    recover=cast("RecoverStep", unreached),
    headers=HeadersStep(),
    token=cast("TokenStep", unreached),
    upstream=cast("Upstream", unreached),
)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    digest = hashlib.sha256(b"alpha").hexdigest()
    (tmp_path / "callers.yaml").write_text(
        f"callers: {{billing: {{secret_sha256: '{digest}', operations: [healthcheck, forwarded]}}}}\n",
        encoding="utf-8",
    )
    (tmp_path / "p.yaml").write_text(
        "match: {operations: ['*'], forward: ['GET /elsewhere']}\n",
        encoding="utf-8",
    )
    return Pipeline(load(tmp_path), STEPS)


def asked(method: str, target: str, headers: dict[str, str]) -> Exchange:
    inbound = Inbound(method=method, raw_target=target, headers=CIMultiDict(headers), raw_headers=(), body=b"")
    return Exchange(inbound=inbound, correlation_id="id", started_at=0.0)


@pytest.mark.parametrize(
    ("method", "target", "refusal"),
    [
        ("GET", "/nowhere", UnknownPath),
        ("GET", f"{BASE_PATH}/nowhere", UnknownPath),
        ("DELETE", BASE_PATH, WrongMethod),
        ("POST", BASE_PATH, NoPolicy),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "beta"}, {"Authorization": "Bearer beta", **KNOWN}])
async def test_whoever_is_nobody_is_told_so_whatever_the_path(
    pipeline: Pipeline,
    method: str,
    target: str,
    refusal: type[GatewayError],
    headers: dict[str, str],
) -> None:
    stranger = asked(method, target, headers)
    with pytest.raises(Unauthenticated) as told:
        await pipeline.admit(stranger)
    assert (stranger.caller, stranger.operation_name) == (None, "unknown")
    assert told.value.problem.headers["WWW-Authenticate"] == "Bearer"

    with pytest.raises(refusal):
        await pipeline.admit(asked(method, target, KNOWN))


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", "/nowhere", "unknown"),
        ("DELETE", BASE_PATH, "unknown"),
        ("POST", BASE_PATH, "submit_eligibility"),
        ("GET", f"{BASE_PATH}/transactions", "list_transactions"),
    ],
)
async def test_of_a_refusal_it_is_known_whom_it_met(
    pipeline: Pipeline,
    method: str,
    target: str,
    operation: str,
) -> None:
    exchange = asked(method, target, KNOWN)
    with pytest.raises(GatewayError):
        await pipeline.admit(exchange)

    assert (exchange.asking.name, exchange.operation_name) == ("billing", operation)


async def test_a_caller_that_lists_forwarded_paths_gets_through_to_the_steps(pipeline: Pipeline) -> None:
    exchange = asked("GET", "/elsewhere", KNOWN)
    await pipeline.admit(exchange)
    with pytest.raises(AssertionError, match="no step takes part"):
        await pipeline.answer(exchange)

    assert (exchange.operation_name, exchange.governing.name) == ("forwarded", "p")
