"""`audit verify` and `audit tag`, as people and machines use them."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.audit.chain import NO_TIP, linked
from gateway.cli.commands import app
from gateway.sealing import Mac, Sealing, parse_ring
from tests.e2e.conftest import BODY, KEYS, policies

__all__ = ["policies"]

OTHER_KEYS = "other:" + base64.b64encode(b"o" * 32).decode()


def run(*arguments: str, keys: str | None = KEYS) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], env={"GATEWAY_KEYS": keys})


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """A trail of four entries under the key of KEYS."""
    ((kid, key),) = Sealing(parse_ring(KEYS)).signing_keys("audit")
    tip, lines = NO_TIP, []
    for members in (f'"entry":"start","kid":"{kid}","after":""', '"entry":"request"', '"entry":"lost","lost":3'):
        line, tip = linked(Mac(key), tip, b'{"at":"2026-01-02T03:04:05Z",%b}' % members.encode())
        lines.append(line)
    (file := tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    return file


def test_a_trail_that_holds_is_told_in_a_table(trail: Path) -> None:
    ran = run("verify", str(trail))

    assert ran.exit_code == 0
    assert ran.output.startswith("1 file holds one trail, whole and in order\n")
    assert "3, as the trail itself says" in ran.output
    assert "before its process said so" in ran.output


def test_a_trail_that_holds_is_told_to_machines(trail: Path) -> None:
    found = json.loads(run("verify", str(trail), "--format", "json").stdout)

    assert (found["holds"], found["entries"], found["lost"], found["runs"]) == (True, 3, 3, 1)
    assert run("verify", str(trail), "--expect", found["last"]).exit_code == 0


def test_a_break_is_told_with_its_place(trail: Path) -> None:
    first, second, third = trail.read_bytes().splitlines(keepends=True)
    trail.write_bytes(first + second.replace(b"request", b"Request") + third)
    expected = f"{trail}:2: found entry 2 with another link, expected the entry that was written after entry 1"

    ran = run("verify", str(trail))
    assert (ran.exit_code, ran.stderr.strip()) == (1, expected)
    ran = run("verify", str(trail), "--format", "json")
    assert (ran.exit_code, json.loads(ran.stdout)) == (
        1,
        {
            "holds": False,
            "file": str(trail),
            "line": 2,
            "found": "entry 2 with another link",
            "expected": "the entry that was written after entry 1",
        },
    )


def test_a_tail_that_was_cut_off_is_found_by_what_is_expected(trail: Path) -> None:
    last = json.loads(run("verify", str(trail), "--format", "json").stdout)["last"]
    trail.write_bytes(b"".join(trail.read_bytes().splitlines(keepends=True)[:-1]))

    assert run("verify", str(trail)).exit_code == 0
    ran = run("verify", str(trail), "--expect", last)
    assert (ran.exit_code, "expected entry 3: what came after was cut off" in ran.stderr) == (1, True)


def test_an_empty_file_is_no_trail(trail: Path) -> None:
    trail.write_bytes(b"")

    assert (run("verify", str(trail)).exit_code, run("verify", str(trail)).stderr) == (
        1,
        "found no entry, expected an audit trail\n",
    )


def test_a_key_ring_without_the_key_cannot_verify(trail: Path) -> None:
    ran = run("verify", str(trail), keys=OTHER_KEYS)

    assert ran.exit_code == 1
    assert "found a key id that the key ring does not hold" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "keys", "says"),
    [
        (("verify", "FILE"), None, "GATEWAY_KEYS: found nothing, expected the key ring of the gateways"),
        (("verify", "FILE"), "nonsense", "GATEWAY_KEYS: found a value that is not shown, expected kid:base64"),
        (("verify", "/nowhere"), KEYS, "FILE: found /nowhere (No such file or directory), expected a file to read"),
        (("verify", "FILE", "--expect", "7"), KEYS, "--expect: found another text, expected SEQ:LINK"),
        (("verify", "FILE", "--mixed", "--expect", f"7:{'0' * 64}"), KEYS, "--expect: found beside --mixed"),
        (("tag",), KEYS, "found no choice of what to look for"),
        (("tag", "--id", "t-1"), None, "GATEWAY_KEYS: found nothing"),
    ],
)
def test_a_command_that_is_wrong_says_how(trail: Path, arguments: tuple[str, ...], keys: str | None, says: str) -> None:
    ran = run(*(str(trail) if one == "FILE" else one for one in arguments), keys=keys)

    assert (ran.exit_code, ran.stderr[: len(says)]) == (2, says)


def test_what_was_asked_is_found_by_each_way_to_read_it_and_under_each_key(
    tmp_path: Path, policies: Callable[..., str]
) -> None:
    (body := tmp_path / "body").write_text(json.dumps(BODY))
    directory = policies(
        c="callers: {a: {secret_sha256: '%s'}}" % ("0" * 64),
        p="match: {operations: [submit_eligibility]}\n",
        q="match: {operations: [submit_eligibility_x12]}\ndedup: {fields: {ignored: []}}\n",
    )
    tags = run("tag", "--body", str(body), "--policies", directory).stdout.split()
    both = run("tag", "--body", str(body), "--policies", directory, keys=f"{KEYS},{OTHER_KEYS}").stdout.split()

    assert sorted(one[:2] for one in tags) == ["b:", "q:", "q:"]
    assert (len(both), set(tags) < set(both)) == (6, True)
    body.write_text("no JSON")
    assert [one[:2] for one in run("tag", "--body", str(body), "--policies", directory).stdout.split()] == ["b:"]
    assert run("tag", "--id", "t-1").stdout.startswith("i:")
