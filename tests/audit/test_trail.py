"""The trail on real files: what cannot be written is kept, told and made good, and nobody waits for it."""
# ruff: noqa: ASYNC240 - the files of a test are small, and its own

import asyncio
import errno
import fcntl
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.chain import linked, tip_of
from gateway.audit.entries import of_event
from gateway.audit.target import STDOUT, NoTrail, Target
from gateway.audit.trail import BOUND, End, Origin, Sources, Trail
from gateway.audit.verify import Broken, Report, Verifier
from gateway.sealing import Mac
from tests.running import eventually

KEY = b"k" * 32
MAC = Mac(KEY)
ORIGIN = Origin(replica="here", version="1", kid="kid")


class Told:
    """Who is told, and a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.written = 0
        self.lost: list[tuple[str, int]] = []
        self.trouble: list[str] = []
        self.again = 0
        self.time = 0.0

    def wrote(self, count: int) -> None:
        self.written += count

    def is_again(self) -> None:
        self.again += 1

    def sources(self) -> Sources:
        return Sources(
            now=lambda: self.time,
            wall_now=lambda: datetime.now(UTC),
            on_written=self.wrote,
            on_lost=lambda reason, count: self.lost.append((reason, count)),
            on_trouble=self.trouble.append,
            on_again=self.is_again,
        )


def begun(where: Path | str, told: Told, bound: int = BOUND) -> Trail:
    trail = Trail(Target(str(where)), MAC, ORIGIN, told.sources(), bound)
    trail.open()
    return trail


def entry(number: int) -> bytes:
    return of_event("request", datetime.now(UTC), number=number)


def report(*files: Path) -> Report:
    verifier = Verifier({"kid": MAC})
    for file in files:
        with file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                verifier.take(file.name, number, raw)
    return verifier.end()


def entries(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def numbers(*files: Path) -> list[int]:
    return [one["number"] for one in entries(*files) if one["entry"] == "request"]


async def holds(condition: Callable[[], object]) -> None:
    async def found() -> object:
        return condition()

    await eventually(found)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


# --- what is written -------------------------------------------------------------------------------------------------


async def test_what_is_said_is_written_in_order_and_for_nobody_else_to_read(file: Path, told: Told) -> None:
    trail = begun(file, told)
    for number in range(1000):
        trail.say(entry(number))
    end = await trail.close()

    assert numbers(file) == list(range(1000))
    assert file.stat().st_mode & 0o777 == 0o600
    assert (report(file).entries, report(file).is_stopped, told.written) == (1002, True, 1002)
    assert end == End(end.tip, 0)
    assert report(file).last == str(end.tip)


async def test_the_next_process_goes_on_where_the_one_before_ended(file: Path, told: Told) -> None:
    for number in range(3):
        trail = begun(file, told)
        trail.say(entry(number))
        await trail.close()

    assert (report(file).runs, report(file).runs_cut, report(file).entries) == (3, 0, 9)


async def test_in_a_directory_each_machine_has_a_file_of_its_own(tmp_path: Path, told: Told) -> None:
    await begun(tmp_path, told).close()

    (file,) = tmp_path.iterdir()
    assert file.name.endswith(".jsonl")
    assert report(file).entries == 2


async def test_a_file_is_written_by_one_process_at_a_time(file: Path, told: Told) -> None:
    trail = begun(file, told)
    with pytest.raises(NoTrail, match="another process writes it"):
        begun(file, Told())
    await trail.close()

    await begun(file, told).close()


@pytest.mark.parametrize("raw", [b"hello\n", b"{}\n" * 9])
def test_a_file_that_is_no_trail_is_left_alone(file: Path, told: Told, raw: bytes) -> None:
    file.write_bytes(raw)

    with pytest.raises(NoTrail, match="it ends in what is no entry of an audit trail"):
        begun(file, told)
    assert file.read_bytes() == raw


async def test_a_line_that_a_process_did_not_finish_is_told_by_the_next_one(file: Path, told: Told) -> None:
    await begun(file, told).close()
    whole = file.read_bytes()
    for torn in (b'{"se', b'{"seq":3,"at":"2026-01', linked(MAC, tip_of(report(file).last), entry(1))[0][:-5]):
        file.write_bytes(whole + torn)
        assert report(file).torn == 1
        await begun(file, told).close()
        assert (report(file).torn, report(file).runs, report(file).entries) == (1, 2, 4)


async def test_a_last_line_without_its_end_is_ended(file: Path, told: Told) -> None:
    await begun(file, told).close()
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    await begun(file, told).close()

    assert (report(file).torn, report(file).entries) == (0, 4)


# --- rotation --------------------------------------------------------------------------------------------------------


async def test_a_file_that_was_moved_away_is_followed_by_another_that_goes_on(file: Path, told: Told) -> None:
    trail = begun(file, told)
    moved = []
    for number in range(3):
        trail.say(entry(number))
        await holds(lambda: trail.waiting == 0)
        moved.append(file.rename(file.with_suffix(f".{number}")))
        trail.look()
        await holds(file.exists)
    trail.say(entry(3))
    await trail.close()

    assert numbers(*moved, file) == [0, 1, 2, 3]
    assert (report(*moved, file).runs, report(*moved, file).is_stopped) == (1, True)
    assert report(file).after == report(*moved).last  # each file can be verified alone


async def test_what_stands_in_its_place_is_not_gone_on_with_if_it_is_another_trail(file: Path, told: Told) -> None:
    other = file.with_suffix(".other")
    await begun(other, Told()).close()
    raw = other.read_bytes()
    trail = begun(file, told)
    await holds(lambda: trail.waiting == 0)
    moved = file.rename(file.with_suffix(".0"))
    other.rename(file)
    trail.look()
    await holds(lambda: told.trouble)

    assert (told.trouble, trail.is_available, file.read_bytes()) == (["NO_TRAIL"], False, raw)
    file.unlink()
    await holds(lambda: trail.is_available)
    await trail.close()
    assert report(moved, file).is_stopped


async def test_while_the_directory_is_gone_entries_are_kept_for_when_it_is_back(tmp_path: Path, told: Told) -> None:
    directory = tmp_path / "mounted"
    directory.mkdir()
    file = directory / "audit.jsonl"
    trail = begun(file, told)
    await holds(lambda: trail.waiting == 0)
    gone = directory.rename(tmp_path / "elsewhere")
    trail.look()
    await holds(lambda: told.trouble)
    trail.say(entry(1))
    directory.mkdir()
    await holds(lambda: trail.is_available and not trail.waiting)
    await trail.close()

    assert (told.trouble, told.again, told.lost) == (["ENOENT"], 1, [])
    assert numbers(file) == [1]
    assert report(gone / "audit.jsonl", file).runs == 1


# --- what cannot be written -------------------------------------------------------------------------------------------


async def test_a_full_disk_loses_nothing_that_there_is_room_for_and_no_line_is_torn(file: Path, told: Told) -> None:
    trail = begun(file, told)
    await holds(lambda: trail.waiting == 0)
    with at_most(file.stat().st_size + 1000):
        for number in range(100):
            trail.say(entry(number))
        await holds(lambda: told.trouble)
        assert (trail.is_available, trail.waiting > 50) == (False, True)
    await holds(lambda: trail.is_available and not trail.waiting)
    await trail.close()

    assert (told.trouble, told.again, told.lost) == (["EFBIG"], 1, [])
    assert numbers(file) == list(range(100))
    assert report(file).torn == 0


async def test_a_file_that_is_moved_away_from_a_full_disk_leaves_no_torn_line(file: Path, told: Told) -> None:
    trail = begun(file, told)
    await holds(lambda: trail.waiting == 0)
    with at_most(file.stat().st_size + 1000):
        for number in range(100):
            trail.say(entry(number))
        await holds(lambda: told.trouble)
        moved = file.rename(file.with_suffix(".0"))
    await holds(lambda: not trail.waiting)
    await trail.close()

    assert numbers(moved, file) == list(range(100))
    assert report(moved, file).torn == 0


async def test_what_there_is_no_room_for_is_told_where_it_would_have_stood(file: Path, told: Told) -> None:
    trail = begun(file, told, bound=20)
    await holds(lambda: trail.waiting == 0)
    with at_most(file.stat().st_size):
        for number in range(50):
            trail.say(entry(number), must_be_kept=number == 40)
        await holds(lambda: told.trouble)
        assert (trail.waiting, trail.is_available) == (21 + 1, False)  # and what tells of the lost ones before it
        assert told.lost == [("full", 1)] * 29
    await holds(lambda: not trail.waiting)
    trail.say(entry(50))
    await trail.close()

    said = [one.get("number", one.get("lost")) for one in entries(file) if one["entry"] in {"request", "lost"}]
    assert said == [*range(20), 20, 40, 9, 50]
    assert report(file).lost == 29


async def test_what_cannot_be_written_before_the_end_is_counted(told: Told) -> None:
    trail = begun("/dev/full", told)
    trail.say(entry(1))

    assert (await trail.close()).lost == 3  # with the heading and the last word
    assert (told.lost, told.trouble) == ([("ended", 3)], ["ENOSPC"])


async def test_a_pipe_that_nobody_empties_holds_up_nobody_and_is_noticed(tmp_path: Path, told: Told) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    size = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    trail = begun(pipe, told)
    began_at = time.perf_counter()
    for number in range(2000):
        trail.say(entry(number))
    spent_s = time.perf_counter() - began_at
    await holds(lambda: trail.waiting < 2001)
    before, told.time = trail.is_available, 60.0
    assert (before, trail.is_available) == (True, False)
    assert size == 4096
    assert spent_s < 5

    read = bytearray()
    os.set_blocking(reader, False)
    while trail.waiting:
        try:
            read += os.read(reader, 65_536)
        except BlockingIOError:
            await asyncio.sleep(0.001)  # the writer's turn
    closing = asyncio.create_task(trail.close())
    while not closing.done():
        try:
            read += os.read(reader, 65_536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    read += os.read(reader, 65_536)
    os.close(reader)
    (copy := tmp_path / "read").write_bytes(read)

    assert numbers(copy) == list(range(2000))
    assert report(copy).is_stopped


async def test_a_pipe_whose_reader_has_gone_is_trouble(tmp_path: Path, told: Told) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    trail = begun(pipe, told)
    await holds(lambda: trail.waiting == 0)
    os.close(reader)
    trail.say(entry(1))
    await holds(lambda: told.trouble)

    assert told.trouble == ["EPIPE"]
    assert (await trail.close()).lost == 2


@pytest.mark.parametrize(("where", "number"), [("/dev/full/audit", errno.ENOTDIR), ("/nowhere/at/all", errno.ENOENT)])
def test_where_nothing_can_be_written_it_does_not_begin(where: str, number: int, told: Told) -> None:
    with pytest.raises(OSError) as caught:
        begun(where, told)
    assert caught.value.errno == number


def test_what_is_said_after_the_end_is_lost_and_counted(file: Path, told: Told) -> None:
    async def ended() -> Trail:
        trail = begun(file, told)
        await trail.close()
        return trail

    asyncio.run(ended()).say(entry(1))
    assert told.lost == [("ended", 1)]


def test_stdout_is_named_by_a_dash() -> None:
    assert STDOUT == "-"
    assert Target(STDOUT).is_moved is False


def test_a_report_of_nothing_is_a_break(file: Path) -> None:
    file.touch()
    with pytest.raises(Broken):
        report(file)
