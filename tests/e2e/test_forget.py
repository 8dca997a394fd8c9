"""`eligibility-gateway forget`: a process of its own removes what running gateways have stored, and says how many."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import BODY, Running, environment, run_gateway
from tests.scripted import ScriptedUpstream, reply
from tests.test_cli import run

FACT = reply(body=b'{"id": "t-1", "status": {"value": "eligible"}}')
POLICIES = {
    "callers": "callers: {anonymous: {subtenant_choices: [north, south]}}\n",
    "p": "match: {operations: ['*']}\ndedup: {mode: enforce, window: 1h, exclude_prior_month: false}\n",
}
WRITTEN_OTHERWISE = {name: BODY[name] for name in reversed(BODY)} | {"controlNumber": "999999999", "note": None}
OTHER = BODY | {"tradingPartnerServiceId": "OTHER"}


async def ask_all(gateway: Running) -> int:
    """Ask two questions on behalf of two subtenants and of none; return how many were answered by the upstream."""
    statuses = [
        (await gateway.submit(body, **on_behalf)).headers["Cache-Status"]
        for body in (BODY, OTHER)
        for on_behalf in ({"x_optum_subtenant_id": "north"}, {"x_optum_subtenant_id": "south"}, {})
    ]
    return sum("fwd=miss" in status for status in statuses)


@pytest.mark.parametrize(
    ("arguments", "forgotten"),
    [
        (["--body", "body.json"], 3),
        (["--body", "body.json", "--subtenant", "north"], 1),
        (["--subtenant", "south"], 2),
        (["--subtenant", "nobody"], 0),
        (["--all"], 6),
    ],
)
async def test_what_is_forgotten_is_asked_again(
    arguments: list[str], forgotten: int, redis_url: str, policies: Callable[..., str], tmp_path: Path
) -> None:
    directory = policies(**POLICIES)
    (tmp_path / "body.json").write_text(json.dumps(WRITTEN_OTHERWISE))
    async with ScriptedUpstream(raw=FACT) as upstream:
        variables = environment(upstream.url, redis_url, policies=directory)
        async with run_gateway(variables) as gateway:
            assert await ask_all(gateway) == 6
            assert await ask_all(gateway) == 0
            named = [str(tmp_path / one) if one.endswith(".json") else one for one in arguments]
            done = await asyncio.to_thread(run, "forget", *named, environment=variables)
            assert done.returncode == 0
            assert ("no policy file names 'nobody'" in done.stderr) is (forgotten == 0)
            assert ("6 questions are stored there, none of them this one" in done.stderr) is (forgotten == 0)
            assert done.stdout == f"forgot {forgotten} answer{'' if forgotten == 1 else 's'}\n"
            assert await ask_all(gateway) == forgotten


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "found no choice of what to forget, or two"),
        (["--all", "--subtenant", "a"], 2, "found no choice of what to forget, or two"),
        (["--body", "/nowhere.json"], 2, "--body: found /nowhere.json (No such file or directory)"),
        (["--body", "/dev/null"], 2, "--body: found a body that is never stored (not_json)"),
    ],
)
def test_a_wrong_command_is_one_sentence(arguments: list[str], code: int, sentence: str, redis_url: str) -> None:
    done = run("forget", *arguments, environment=environment("http://127.0.0.1:1", redis_url))
    assert done.returncode == code
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("embedded", 2, "GATEWAY_REDIS_URL: found 'embedded', expected the Redis of the gateways that run"),
        ("redis://127.0.0.1:1", 1, "GATEWAY_REDIS_URL: found no Redis that answers"),
    ],
)
def test_a_wrong_redis_is_one_sentence(url: str, code: int, sentence: str) -> None:
    done = run("forget", "--all", environment=environment("http://127.0.0.1:1", url))
    assert done.returncode == code
    assert done.stderr.startswith(sentence)
    assert "Traceback" not in done.stderr
