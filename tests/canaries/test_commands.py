"""What a start that fails, and the other commands, print: secrets stand in the wrong places, and are not repeated."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.embedded import EmbeddedValkey
from tests.canaries.driving import TOKENS, question
from tests.canaries.forms import found_in
from tests.canaries.planted import ALL, BORN, CALLER_SECRET, CLIENT_SECRET, FAMILY, MEMBER, REDIS_PASSWORD, SSN
from tests.canaries.run import variables, write_policies
from tests.dedup.test_x12 import interchange
from tests.running import ROOT, kept_environment
from tests.scripted import ScriptedUpstream

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    write_policies(directory := tmp_path / "policies")
    return directory


def run(*arguments: str, given: Mapping[str, str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env={**kept_environment(), **given},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )


async def all_of(*commands: tuple[str, ...], given: Mapping[str, str]) -> list["subprocess.CompletedProcess[bytes]"]:
    return await asyncio.gather(*(asyncio.to_thread(run, *arguments, given=given) for arguments in commands))


WRONG_SETTINGS = [
    {"GATEWAY_REDIS_URL": f"redis://gateway:{REDIS_PASSWORD}@[::1/0"},
    {"GATEWAY_REDIS_URL": f"redis://gateway:{REDIS_PASSWORD}\u2100@localhost"},
    {"GATEWAY_REDIS_URL": f"redis+sentinel://gateway:{REDIS_PASSWORD}@host:{REDIS_PASSWORD}/main"},
    {"GATEWAY_REDIS_URL": f"redis://localhost:6379/{REDIS_PASSWORD}"},
    {"GATEWAY_REDIS_URL": f"{REDIS_PASSWORD}://localhost"},
    {"GATEWAY_KEYS": CLIENT_SECRET, "GATEWAY_UPSTREAM_URL": f"http://user:{CLIENT_SECRET}@host"},
    {"GATEWAY_UPSTREAM_URL": f"https://host/?key={CLIENT_SECRET}"},
    {"GATEWAY_UPSTREAM_CLIENT_SECRET": "", "GATEWAY_UPSTREAM_CLIENT_SECRET_FILE": CLIENT_SECRET},
]


@pytest.mark.parametrize("change", WRONG_SETTINGS, ids=range(len(WRONG_SETTINGS)))
async def test_a_wrong_setting_is_not_repeated(change: dict[str, str], policies: Path) -> None:
    given = variables(NOWHERE, "redis://127.0.0.1:1", policies) | change
    commands = [("serve",), ("forget", "--all")] if "\u2100" in str(change) else [("serve",)]
    for done in await all_of(*commands, given=given):
        assert done.returncode == 2
        assert done.stderr
        assert found_in(done.stdout + done.stderr, ALL) == []
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["refused", "no http"])
async def test_a_start_without_a_token_repeats_nothing(kind: str, policies: Path, redis_url: str) -> None:
    async with ScriptedUpstream(token_reply=TOKENS[kind]) as upstream:
        given = variables(upstream.url, redis_url, policies) | {"GATEWAY_LISTEN": "203.0.113.1:1"}
        (done,) = await all_of(("serve",), given=given)
    assert done.returncode == 2
    assert found_in(done.stdout + done.stderr, ALL) == []


async def test_a_redis_that_refuses_its_password_is_told_without_it(policies: Path, own_valkey: EmbeddedValkey) -> None:
    url = f"unix://gateway:{REDIS_PASSWORD}@{own_valkey.url.removeprefix('unix://')}"
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.acl_setuser("gateway", enabled=True, passwords=["+another"], commands=["+@all"])
        done, forgotten = await all_of(("serve",), ("forget", "--all"), given=variables(NOWHERE, url, policies))
    assert (done.returncode, forgotten.returncode) == (2, 1)
    assert b"GATEWAY_REDIS_URL: found" in done.stderr
    assert found_in(done.stderr + done.stdout + forgotten.stderr + forgotten.stdout, ALL) == []


WRONG_POLICIES = [
    f"callers: {{someone: {{secret_sha256: {CALLER_SECRET}}}}}\n",
    f"callers: {{someone: {CALLER_SECRET}}}\n",
    f"callers: {{someone: {{secret_sha256: [{CALLER_SECRET}, {{a: {CALLER_SECRET}}}]}}}}\n",
    f"callers: {CALLER_SECRET}\n",
    f"match: {{operations: ['*']}}\nheaders: {{set: {{Authorization: 'Bearer {CALLER_SECRET}'}}}}\n",
    f"match: {{operations: ['*']}}\nheaders: {{set: {{x-key: [{CALLER_SECRET}]}}}}\n",
    f"match: {{operations: ['*']}}\nheaders: {{set: {{x-key: \"{CALLER_SECRET}\\n\"}}}}\n",
    f"match: {{operations: ['*']}}\nheaders: {{set: {CALLER_SECRET}}}\n",
    f"match: {{operations: ['*']}}\ntoken: {CALLER_SECRET}\n",
    f"{CALLER_SECRET}\n",
    f'callers: {{someone: {{secret_sha256: "{CALLER_SECRET}\n',
    f"match: &{CALLER_SECRET} *{CALLER_SECRET}x\n",
    f"match: !{CALLER_SECRET} x\n",
]


async def test_a_secret_in_the_wrong_place_of_a_policy_file_is_not_repeated(policies: Path) -> None:
    for number, text in enumerate(WRONG_POLICIES):
        (policies / f"wrong-{number}.yaml").write_text(text)
    given = variables(NOWHERE, "redis://127.0.0.1:1", policies)
    (done,) = await all_of(("check", "--policies", str(policies)), given=given)
    assert done.returncode == 2
    for number in range(len(WRONG_POLICIES)):
        assert f"wrong-{number}.yaml:".encode() in done.stderr
    assert found_in(done.stdout + done.stderr, ALL) == []
    assert b"Traceback" not in done.stderr


async def test_commands_about_a_patient_do_not_name_the_patient(policies: Path, tmp_path: Path, redis_url: str) -> None:
    files = {
        "a": question("a"),
        "b": question("b").replace(SSN.encode(), b"987-65-4320").replace(BORN.encode(), b"19010101"),
        "x12": json.dumps({"x12": interchange(f"NM1*IL*1*{FAMILY}*A", f"{MEMBER}*1")}).encode(),
        "other x12": json.dumps({"x12": interchange("NM1*IL*1*SAMPLE*A", f"{FAMILY}*1", "REF*SY*1")}).encode(),
        "broken": f'{{"subscriber": {{"memberId": "{MEMBER}", "memberId": "{FAMILY}"}}}}'.encode(),
    }
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    a, b, x12, other_x12, broken = (str(tmp_path / name) for name in files)
    governed = ("--policies", str(policies), "--caller", "asking")
    done = await all_of(
        ("explain", *governed),
        ("explain", *governed, "--format", "json"),
        ("explain", *governed, "--compare", a, b),
        ("explain", *governed, "--compare", a, broken),
        ("explain", *governed, "--compare", x12, other_x12),
        ("forget", "--body", a),
        ("forget", "--body", broken),
        ("audit", "tag", "--body", a, "--policies", str(policies)),
        ("audit", "tag", "--id", MEMBER),
        ("audit", "verify", a, "--expect", MEMBER),
        ("audit", "verify", a),
        ("audit", "verify", a, "--format", "json"),
        given=variables(NOWHERE, redis_url, policies),
    )
    assert [one.returncode for one in done] == [0, 0, 1, 2, 1, 0, 2, 0, 0, 2, 1, 1]
    assert b"subscriber.dateOfBirth" in done[2].stdout
    assert b"x12.NM1[" in done[4].stdout
    assert b"x12.?[" in done[4].stdout
    for one in done:
        assert found_in(one.stdout + one.stderr, ALL) == []
