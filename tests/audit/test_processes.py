"""The trail of real gateways: whole whatever happens to them, and what it says is what happened."""
# ruff: noqa: ASYNC240 - the files of a test are small, and its own

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.policy.documents import PolicyFilesError, Refusal
from gateway.policy.files import load
from gateway.reload import refuse_unaudited
from gateway.settings import read_settings
from tests.e2e.conftest import BODY, KEYS, Running, about, environment, run_gateway
from tests.e2e.processes import Held, serve, started
from tests.running import ROOT, GatewayProcess, eventually, kept_environment, total
from tests.scripted import ScriptedUpstream, reply

ANSWER = reply(body=b'{"id": "t-1", "correlationId": "c-1", "status": {"value": "eligible"}}')
SECRET = "a-secret-of-two-hundred-and-fifty-six-bits"
CALLERS = f"callers: {{scheduling: {{secret_sha256: '{sha256(SECRET.encode()).hexdigest()}', subtenant: s-1}}}}\n"
ENFORCED = "match: {operations: ['*'], forward: ['GET /extra/*']}\ndedup: {mode: enforce, window: 24h}\n"
REJECT = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 24h}\naudit: {unavailable: reject}\n"
Write = Callable[..., str]


def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "audit", *arguments],
        env={**kept_environment(), "GATEWAY_KEYS": KEYS, **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verified(*files: Path, **more: str) -> dict[str, Any]:
    """What `verify` says of them, which must hold."""
    ran = command("verify", *map(str, files), "--format", "json", **more)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found.pop("holds") is True
    return found


def entries(*files: Path, event: str = "request") -> list[dict[str, Any]]:
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    return [line for line in lines if line["entry"] == event]


def tags_of(**options: str) -> set[str]:
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    ran = command("tag", *arguments)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


async def shown(gateway: Running, name: str) -> float:
    return total(await gateway.metrics(), name)


# --- what it says ----------------------------------------------------------------------------------------------------


async def test_every_request_has_one_entry_whatever_became_of_it(
    redis_url: str, policies: Write, tmp_path: Path
) -> None:
    directory = policies(p=ENFORCED, c=CALLERS)
    file = tmp_path / "audit"
    bearer = {"Authorization": f"Bearer {SECRET}"}
    grant = {"client_id": "scheduling", "client_secret": SECRET, "grant_type": "client_credentials"}
    async with (
        ScriptedUpstream(raw=ANSWER) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory, audit=str(file))) as gateway,
    ):
        ask = gateway.session.request
        for method, path, more in (
            ("POST", "/rcm/eligibility/v1", {"json": BODY, "headers": bearer}),
            ("POST", "/rcm/eligibility/v1", {"json": BODY | {"controlNumber": "987654321"}, "headers": bearer}),
            ("POST", "/rcm/eligibility/v1", {"json": BODY}),
            ("GET", "/rcm/eligibility/v1/transactions/t-1", {"headers": bearer}),
            ("GET", "/rcm/eligibility/v1/transactions?correlationId=c-1", {"headers": bearer}),
            ("POST", "/rcm/eligibility/v1/coverage-discovery", {"json": BODY, "headers": bearer}),
            ("GET", "/extra/t-1?x=y", {"headers": bearer}),
            ("GET", "/rcm/eligibility/v1/healthcheck", {"headers": bearer}),
            ("GET", "/nowhere", {"headers": bearer}),
            ("POST", "/apip/auth/v2/token", {"json": grant}),
            ("POST", "/apip/auth/v2/token", {"json": grant | {"client_secret": "another"}}),
        ):
            async with ask(method, gateway.url + path, **more):
                pass
        reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
        writer.write(b"no http\r\n\r\n")
        await reader.read()
        writer.close()

    found = entries(file)
    said = [(one["operation"], one["status"], one["code"], one["dedup"], one["tag"][:2]) for one in found]
    assert said == [
        ("submit_eligibility", 200, "", "lead", "q:"),
        ("submit_eligibility", 200, "", "replay", "q:"),
        ("unknown", 401, "unauthenticated", None, ""),
        ("get_transaction", 200, "", None, "i:"),
        ("list_transactions", 200, "", None, "s:"),
        ("submit_discovery", 200, "", None, "b:"),
        ("forwarded", 200, "", None, "p:"),
        ("healthcheck", 200, "", None, ""),
        ("unknown", 404, "unknown_path", None, ""),
        ("token", 200, "", None, ""),
        ("token", 401, "invalid_client", None, ""),
        ("unknown", 400, "not_http", None, ""),
    ]
    assert found[0]["tag"] == found[1]["tag"]  # the control number is no part of the question
    assert {one["caller"] for one in found} == {"scheduling", "unknown"}
    assert [one["subtenant"] for one in found[:3]] == ["s-1", "s-1", ""]
    assert all(one["is_complete"] for one in found)
    (begun,), (drained,), (stopped,) = (entries(file, event=event) for event in ("serving", "drained", "stop"))
    assert (len(begun["policies"]), drained["in_flight"], drained["flights"]) == (64, 0, 0)
    assert stopped["seq"] == verified(file)["entries"] == len(found) + 4

    (tmp_path / "body.json").write_text(json.dumps(BODY))
    assert found[0]["tag"] in tags_of(body=str(tmp_path / "body.json"), policies=directory)
    assert found[3]["tag"] in tags_of(id="t-1")


async def test_a_change_of_the_policies_is_told_by_what_was_in_force_before_and_after(
    redis_url: str, policies: Write, tmp_path: Path
) -> None:
    directory = policies(p=ENFORCED)
    file = tmp_path / "audit"
    variables = environment(
        "http://127.0.0.1:1", redis_url, policies=directory, audit=str(file), policies_poll_s="0.05"
    )
    policies(c="callers: {anonymous: {}}\n", p=ENFORCED + "token: {inject: false}\n")
    async with run_gateway(variables) as gateway:
        policies(p=ENFORCED + "token: {inject: false}\nmetrics: {payers: [SIM]}\n")

        async def is_told() -> bool:
            return any(line["event"] == "policies are in force" for line in gateway.lines())

        await eventually(is_told)

    (changed,), (begun,) = entries(file, event="policies"), entries(file, event="serving")
    assert changed["before"] == begun["policies"] != changed["after"]


async def test_an_answer_that_came_after_its_request_ended_has_an_entry_of_its_own(
    redis_url: str, policies: Write, tmp_path: Path
) -> None:
    held = Held()
    directory = policies(p=ENFORCED, c="callers: {anonymous: {}}\n")
    file = tmp_path / "audit"
    async with (
        held.upstream,
        run_gateway(environment(held.upstream.url, redis_url, policies=directory, audit=str(file))) as gateway,
    ):
        assert (await gateway.submit(prefer="wait=1")).status == 504
        held.release.set()
        assert (await gateway.submit()).status == 200

    first, second = entries(file)
    (call,) = entries(file, event="call")
    assert (first["code"], second["dedup"], call["outcome"]) == ("answer_pending", "replay", "eligible")
    assert call["correlation_id"] == first["correlation_id"] != second["correlation_id"]


async def test_a_caller_who_left_before_its_answer_came_has_an_entry_that_says_so(
    redis_url: str, policies: Write, tmp_path: Path
) -> None:
    held = Held()
    directory = policies(p=ENFORCED, c="callers: {anonymous: {}}\n")
    file = tmp_path / "audit"
    async with (
        held.upstream,
        run_gateway(environment(held.upstream.url, redis_url, policies=directory, audit=str(file))) as gateway,
    ):
        asking = asyncio.create_task(gateway.submit())
        await held.upstream.is_asked()
        asking.cancel()
        await asyncio.wait([asking])
        held.release.set()

        async def is_told() -> bool:
            return bool(gateway.records())

        await eventually(is_told)

    (left,) = entries(file)
    assert (left["status"], left["dedup"], left["upstream_calls"], left["is_complete"]) == (200, "lead", 1, False)
    assert left["left_s"] is not None


# --- what happens to it ----------------------------------------------------------------------------------------------


async def test_whoever_is_killed_in_the_middle_leaves_a_trail_that_holds_and_is_gone_on_with(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "audit"
    async with ScriptedUpstream(raw=ANSWER) as upstream:
        variables = environment(upstream.url, redis_url, audit=str(file))
        for _ in range(2):
            async with started(variables) as process:
                await until_killed(process, file)
        async with started(variables) as process, aiohttp.ClientSession() as session:
            await session.post(f"{process.url}/rcm/eligibility/v1", json=BODY)
            process.popen.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.popen.wait, 30) == 0
            said = json.loads([line for line in process.output() if "audit trail ended" in line][-1])

    found = verified(file)
    assert (found["runs"], found["runs_cut"], found["is_stopped"]) == (3, 2, True)
    assert (said["audit_last"], said["lost"]) == (found["last"], 0)
    assert found["entries"] == len(file.read_bytes().splitlines()) - found["torn"]
    expected = command("verify", str(file), "--expect", found["last"])
    assert expected.returncode == 0
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    assert verified(file)["is_stopped"] is False
    cut = command("verify", str(file), "--expect", found["last"])
    assert (cut.returncode, "what came after was cut off" in cut.stderr) == (1, True)


async def until_killed(process: GatewayProcess, file: Path) -> None:
    before = file.stat().st_size if file.exists() else 0

    async def has_grown() -> bool:
        return file.exists() and file.stat().st_size > before + 20_000

    async with aiohttp.ClientSession() as session:

        async def ask() -> None:
            number = 0
            while True:
                number += 1
                async with session.post(f"{process.url}/rcm/eligibility/v1", json=about(number)):
                    pass

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        await eventually(has_grown)
        process.popen.kill()
        await asyncio.to_thread(process.popen.wait, 30)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_two_replicas_write_two_files_and_none_the_other_ones(redis_url: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    async with ScriptedUpstream(raw=ANSWER) as upstream:
        variables = [environment(upstream.url, redis_url, audit=str(file)) for file in files]
        async with (
            run_gateway(variables[0]) as one,
            run_gateway(variables[1]) as two,
        ):
            await asyncio.gather(*(gateway.submit(about(n)) for n in range(50) for gateway in (one, two)))
            third = await asyncio.to_thread(serve, variables[0])

    assert third.returncode == 2
    assert third.stderr == (
        f"GATEWAY_AUDIT: found {files[0]} (another process writes it), expected a file that this process alone appends "
        "to, a directory for one, a named pipe that somebody reads, or '-'\n"
    )
    assert [verified(file)["entries"] for file in files] == [54, 54]


async def test_a_file_that_was_moved_away_is_gone_on_with_in_another_after_a_signal(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "audit"

    async def is_there() -> bool:
        return file.exists()

    async with (
        ScriptedUpstream(raw=ANSWER) as upstream,
        started(environment(upstream.url, redis_url, audit=str(file))) as process,
    ):
        moved = file.rename(tmp_path / "audit.0")
        process.popen.send_signal(signal.SIGHUP)
        await eventually(is_there)
        process.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.popen.wait, 30)

    assert (verified(moved, file)["runs"], verified(file)["after"]) == (1, verified(moved)["last"])
    assert command("verify", str(file), str(moved)).returncode == 1


async def test_on_stdout_it_stands_among_the_lines_of_the_log(redis_url: str, tmp_path: Path) -> None:
    async with ScriptedUpstream(raw=ANSWER) as upstream:
        variables = environment(upstream.url, redis_url, audit="-", log_requests_per_s="100000")
        async with started(variables) as process, aiohttp.ClientSession() as session:

            async def ask(number: int) -> None:
                async with session.post(f"{process.url}/rcm/eligibility/v1", json=about(number)):
                    pass

            await asyncio.gather(*map(ask, range(300)))
            assert await asyncio.to_thread(process.end) == 0
            output = process.output()

    (file := tmp_path / "stdout").write_text("".join(output))
    found = verified_mixed(file)
    assert (found["runs"], found["is_stopped"]) == (1, True)
    assert len([one for one in map(json.loads, output) if one.get("entry") == "request"]) == 300
    logged = [one for one in map(json.loads, output) if one.get("event") == "request"]
    assert 0 < len(logged) <= 300  # of the log whatever its reader did not take by the end is lost


def verified_mixed(file: Path) -> dict[str, Any]:
    ran = command("verify", "--mixed", str(file), "--format", "json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


async def test_a_frozen_reader_holds_up_nobody(redis_url: str, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    copy = tmp_path / "copy"
    with copy.open("wb") as stream:
        reader = await asyncio.to_thread(subprocess.Popen, ["cat", str(pipe)], stdout=stream)
        async with (
            ScriptedUpstream(raw=ANSWER) as upstream,
            run_gateway(environment(upstream.url, redis_url, audit=str(pipe))) as gateway,
        ):
            reader.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(60):
                await asyncio.gather(*(gateway.submit(about(number)) for number in range(400)))
            assert await shown(gateway, "audit_entries_waiting") > 0
            reader.send_signal(signal.SIGCONT)

            async def is_written() -> bool:
                return not await shown(gateway, "audit_entries_waiting")

            await eventually(is_written)
            assert await shown(gateway, "audit_available") == 1
        assert await asyncio.to_thread(reader.wait, 30) == 0

    assert (verified(copy)["entries"], verified(copy)["is_stopped"]) == (404, True)


# --- without it ------------------------------------------------------------------------------------------------------


async def test_where_a_policy_rejects_what_cannot_be_audited_nothing_goes_upstream_and_nothing_is_replayed(
    redis_url: str, policies: Write, tmp_path: Path
) -> None:
    directory = policies(p=REJECT, c="callers: {anonymous: {}}\n")
    file = tmp_path / "audit"
    (full := tmp_path / "full").symlink_to("/dev/full")
    async with ScriptedUpstream(raw=ANSWER) as upstream:
        variables = environment(upstream.url, redis_url, policies=directory)
        async with run_gateway(variables | {"GATEWAY_AUDIT": str(file)}) as gateway:
            assert (await gateway.submit()).headers["Cache-Status"].startswith("eligibility-gateway; fwd=miss; stored")
        async with run_gateway(variables | {"GATEWAY_AUDIT": str(full)}) as gateway:

            async def is_unavailable() -> bool:
                return await shown(gateway, "audit_available") == 0

            await eventually(is_unavailable)
            for body in (BODY, about("new")):
                reply = await gateway.submit(body)
                problem = await reply.json()
                assert (reply.status, problem["code"], problem["retry_safe"]) == (503, "audit_unavailable", True)
                assert reply.headers["Retry-After"] == "5"
            assert any(line["event"] == "audit trail cannot be written" for line in gateway.lines())

    assert len(upstream.requests) == 1


async def test_where_a_policy_lets_pass_what_cannot_be_audited_it_passes_and_is_counted(
    redis_url: str, policies: Write
) -> None:
    directory = policies(p=ENFORCED, c="callers: {anonymous: {}}\n")
    async with ScriptedUpstream(raw=ANSWER) as upstream:
        variables = environment(upstream.url, redis_url, policies=directory, audit="/dev/full")
        async with run_gateway(variables) as gateway:
            assert (await gateway.submit()).status == 200
            text = await gateway.metrics()
            assert total(text, "audit_entries_lost_total") == 0  # it waits
            assert total(text, "audit_entries_waiting") == 3
        await asyncio.sleep(0)  # the log writes once a tick
        (ended,) = [line for line in gateway.lines() if line["event"] == "audit trail ended"]
    assert (ended["level"], ended["lost"]) == ("warning", 5)


@pytest.mark.parametrize("audit", [None, "there"])
async def test_a_policy_that_rejects_needs_a_trail(policies: Write, redis_url: str, audit: str | None) -> None:
    directory = Path(policies(p=REJECT, c="callers: {anonymous: {}}\n"))
    more = {"audit": audit} if audit else {}
    settings = read_settings(environment("http://127.0.0.1:1", redis_url, **more))
    if audit:
        refuse_unaudited(load(directory), settings)
        return
    with pytest.raises(PolicyFilesError) as caught:
        refuse_unaudited(load(directory), settings)
    assert caught.value.refusal is Refusal.UNAUDITED
    assert str(caught.value) == (
        f"{directory}/p.yaml:3: audit.unavailable: found 'reject' without an audit trail, expected 'proceed', or "
        "GATEWAY_AUDIT that says where it is written"
    )


def test_a_trail_needs_keys_by_which_it_can_be_verified_later() -> None:
    variables = environment("http://127.0.0.1:1", "embedded", audit="there")
    del variables["GATEWAY_KEYS"]
    ran = serve(variables)

    assert (ran.returncode, ran.stderr) == (
        2,
        "GATEWAY_KEYS: found nothing beside GATEWAY_AUDIT, expected a key ring, by which the trail can be verified "
        "later: kid:base64[,kid:base64]\n",
    )
