"""Policies that change while the process runs, as a ConfigMap, an editor or SIGHUP changes them."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.policy.files import read
from tests.e2e.conftest import BODY, about, environment
from tests.e2e.processes import Held, ask, serve, started, text
from tests.running import GatewayProcess, eventually, total

CALLERS = "callers: {anonymous: {}}\n"
CHECKS = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 24h}\n"
WRONG = "match: {operations: [nothing]}\n"
SECRET = "callers: {scheduling: {secret_sha256: '%s'}}\n" % ("0" * 64)
GOOD = {"callers.yaml": CALLERS, "checks.yaml": CHECKS}


class ConfigMap:
    """A directory as the kubelet keeps it: every file is a link through `..data`, which is swapped."""

    def __init__(self, directory: Path, files: dict[str, str]) -> None:
        self.directory = directory
        directory.mkdir()
        self._count = 0
        self.swap(files)

    def swap(self, files: dict[str, str]) -> None:
        """Let these files take the place of the others, at one moment."""
        earlier = self.directory / f"..{self._count}"
        self._count += 1
        later = self.directory / f"..{self._count}"
        later.mkdir()
        for name, content in files.items():
            (later / name).write_text(content)
        (self.directory / "..new").symlink_to(later.name)
        (self.directory / "..new").replace(self.directory / "..data")
        for name in files:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        for link in self.directory.iterdir():
            if link.suffix == ".yaml" and link.name not in files:
                link.unlink()
        if earlier.exists():
            for file in earlier.iterdir():
                file.unlink()
            earlier.rmdir()


@pytest.fixture
def mounted(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "mounted", GOOD)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the last good policies are kept."""
    directory = tmp_path / "last-good"
    directory.mkdir()
    return directory


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    one = Held()
    async with one.upstream:
        yield one


@asynccontextmanager
async def over(
    mounted: ConfigMap, held: Held, redis_url: str, **more: str
) -> AsyncIterator[tuple[GatewayProcess, aiohttp.ClientSession]]:
    """A gateway over these policies that looks at them often."""
    variables = environment(
        held.upstream.url, redis_url, policies=str(mounted.directory), **{"policies_poll_s": "0.05", **more}
    )
    async with started(variables) as process, aiohttp.ClientSession() as session:
        yield process, session


async def in_force(process: GatewayProcess) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(await asyncio.to_thread(process.wait_for, '"policies are in force"'))
    return line


async def policies_of(session: aiohttp.ClientSession, process: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await text(session, f"{process.admin_url}/policies"))
    return found


async def metrics_of(session: aiohttp.ClientSession, process: GatewayProcess) -> str:
    return await text(session, f"{process.admin_url}/metrics")


async def test_a_config_map_that_is_swapped_is_in_force_without_a_signal(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    async with over(mounted, held, redis_url) as (process, session):
        mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", "12h")})
        line = await in_force(process)
        shown = await policies_of(session, process)
        metrics = await metrics_of(session, process)

    assert shown["policies"]["checks"]["dedup"]["window"] == "12h"
    assert shown["digest"] == line["digest"] == read(mounted.directory).digest
    assert f'policies_info{{digest="{line["digest"][:12]}",origin="directory"}} 1.0' in metrics
    assert total(metrics, 'policies_reloads_total{result="adopted"}') == 2


async def test_a_request_in_flight_keeps_the_policies_that_it_began_with(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    async with over(mounted, held, redis_url) as (process, session):
        under_way = asyncio.create_task(ask(session, process.url, "before", about("before")))
        await held.upstream.is_asked()
        mounted.swap(GOOD | {"callers.yaml": SECRET})
        await in_force(process)
        refused, _ = await ask(session, process.url, "after", about("after"))
        held.release.set()
        answered, _ = await under_way

    assert (answered, refused) == (200, 401)
    assert held.calls == 1


async def test_one_question_before_and_after_a_reload_is_one_call(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    async with over(mounted, held, redis_url) as (process, session):
        before = asyncio.create_task(ask(session, process.url, "before", BODY))
        await held.upstream.is_asked()
        mounted.swap(GOOD | {"other.yaml": "match: {operations: [get_transaction]}\n"})
        await in_force(process)
        after = asyncio.create_task(ask(session, process.url, "after", BODY))

        async def follows() -> bool:
            return total(await metrics_of(session, process), "dedup_followers_waiting") == 1

        await eventually(follows)
        held.release.set()
        answers = [await before, await after]

    assert {document["id"] for _, document in answers} == {"t-1"}
    assert held.calls == 1


async def test_an_answer_that_a_shorter_window_leaves_out_is_asked_for_again(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    held.release.set()
    async with over(mounted, held, redis_url) as (process, session):
        await ask(session, process.url, "first", BODY)
        mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", "0s")})
        await in_force(process)
        _, document = await ask(session, process.url, "second", BODY)

    assert document["id"] == "t-2"


async def test_what_cannot_be_used_is_refused_and_said_once(mounted: ConfigMap, held: Held, redis_url: str) -> None:
    async with over(mounted, held, redis_url) as (process, session):
        before = (await policies_of(session, process))["digest"]
        mounted.swap(GOOD | {"wrong.yaml": WRONG})
        line = await asyncio.to_thread(process.wait_for, '"policies cannot be used"')
        shown = await policies_of(session, process)
        metrics = await metrics_of(session, process)
        mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", "1h")})
        await in_force(process)
        later = await metrics_of(session, process)
        said = [one for one in process.output() if '"policies cannot be used"' in one]

    assert f"{mounted.directory}/wrong.yaml:1: match.operations" in line
    assert (shown["digest"], shown["origin"]) == (before, "directory")
    assert [sentence in line for sentence in shown["refused"]] == [True]
    assert total(metrics, "policies_last_reload_successful") == 0
    assert total(metrics, 'policies_reloads_total{result="invalid"}') == 1
    assert said == [line]
    assert total(later, "policies_last_reload_successful") == 1


async def test_policies_that_would_let_in_anybody_are_refused(mounted: ConfigMap, held: Held, redis_url: str) -> None:
    mounted.swap(GOOD | {"callers.yaml": SECRET})
    async with over(mounted, held, redis_url, listen="0.0.0.0:0") as (process, session):
        mounted.swap(GOOD)
        line = await asyncio.to_thread(process.wait_for, '"policies cannot be used"')
        shown = await policies_of(session, process)

    assert '"reason":"exposed"' in line
    assert set(shown["callers"]) == {"scheduling"}


async def test_a_directory_that_is_gone_leaves_everything_as_it_is(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    held.release.set()
    async with over(mounted, held, redis_url) as (process, session):
        mounted.directory.rename(mounted.directory.with_name("elsewhere"))
        line = await asyncio.to_thread(process.wait_for, '"policies cannot be used"')
        status, _ = await ask(session, process.url, "still", BODY)

    assert '"reason":"unreadable"' in line
    assert status == 200


async def test_sighup_reads_at_once_and_always_says_what_came_of_it(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    async with over(mounted, held, redis_url, policies_poll_s="0") as (process, session):
        process.popen.send_signal(signal.SIGHUP)
        await asyncio.to_thread(process.wait_for, '"policies are unchanged"')
        mounted.swap(GOOD | {"wrong.yaml": WRONG})
        for _ in range(2):
            process.popen.send_signal(signal.SIGHUP)
            await asyncio.to_thread(process.wait_for, '"policies cannot be used"')
        mounted.swap(GOOD)
        process.popen.send_signal(signal.SIGHUP)
        await asyncio.to_thread(process.wait_for, '"policies are unchanged"')
        metrics = await metrics_of(session, process)

    assert total(metrics, "policies_last_reload_successful") == 1


async def test_after_a_restart_the_last_good_policies_are_in_force_until_there_are_good_ones(
    mounted: ConfigMap, held: Held, redis_url: str, place: Path
) -> None:
    async with over(mounted, held, redis_url, policies_last_good=str(place)) as (process, session):
        good = (await policies_of(session, process))["digest"]
    mounted.swap(GOOD | {"wrong.yaml": WRONG})
    async with over(mounted, held, redis_url, policies_last_good=str(place)) as (process, session):
        restored = await policies_of(session, process)
        metrics = await metrics_of(session, process)
        said = "".join(process.output() + process.seen)
        mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", "1h")})
        mended = await in_force(process)
        later = await metrics_of(session, process)

    assert (restored["digest"], restored["origin"]) == (good, "last_good")
    assert "wrong.yaml" in restored["refused"][0]
    assert f'policies_info{{digest="{good[:12]}",origin="last_good"}} 1.0' in metrics
    assert total(metrics, "policies_last_reload_successful") == 0
    assert "policies cannot be used" in said
    assert "the last good policies are in force" in said
    assert f'policies_info{{digest="{mended["digest"][:12]}",origin="directory"}} 1.0' in later
    assert oct((place / "policies.json").stat().st_mode & 0o777) == "0o600"


async def test_once_the_directory_is_mended_to_what_was_kept_it_is_the_directory_that_governs(
    mounted: ConfigMap, held: Held, redis_url: str, place: Path
) -> None:
    async with over(mounted, held, redis_url, policies_last_good=str(place)):
        pass
    mounted.swap(GOOD | {"wrong.yaml": WRONG})
    async with over(mounted, held, redis_url, policies_last_good=str(place)) as (process, session):
        mounted.swap(GOOD)
        await asyncio.to_thread(process.wait_for, '"policies are unchanged"')
        shown = await policies_of(session, process)
        metrics = await metrics_of(session, process)

    assert (shown["origin"], shown["refused"]) == ("directory", [])
    assert f'policies_info{{digest="{shown["digest"][:12]}",origin="directory"}} 1.0' in metrics
    assert total(metrics, "policies_last_reload_successful") == 1


async def test_whoever_was_taken_away_does_not_come_back_with_a_set_that_could_not_be_replaced(
    mounted: ConfigMap, held: Held, redis_url: str, place: Path
) -> None:
    async with over(mounted, held, redis_url, policies_last_good=str(place)) as (process, _):
        kept = (place / "policies.json").read_text()
        (place / "policies.json").unlink()
        (place / "policies.json").mkdir()  # nothing can be put in its place any more
        mounted.swap(GOOD | {"callers.yaml": SECRET})
        await asyncio.to_thread(process.wait_for, '"policies are not kept"')
        await in_force(process)

    assert '"anonymous"' not in kept.replace("\\", "")
    assert (place / "policies.json").is_dir()


async def test_half_of_what_is_copied_is_not_in_force_for_whoever_asks_with_sighup(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    async with over(mounted, held, redis_url, policies_poll_s="0") as (process, session):
        mounted.swap(GOOD | {"more.yaml": "match: {operations: [get_transaction]}\n"})
        process.popen.send_signal(signal.SIGHUP)
        for number in range(10):
            mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", f"{number + 1}h")})
            await asyncio.sleep(0.05)
        line = await in_force(process)
        shown = await policies_of(session, process)

    assert shown["policies"]["checks"]["dedup"]["window"] == "10h"
    assert line["policies"] == 1


async def test_whoever_writes_without_end_is_not_waited_for(mounted: ConfigMap, held: Held, redis_url: str) -> None:
    async with over(mounted, held, redis_url) as (process, session):
        mounted.swap(GOOD | {"callers.yaml": SECRET})
        over_at = asyncio.get_running_loop().time() + 60
        refused = 0
        while refused != 401 and asyncio.get_running_loop().time() < over_at:
            (mounted.directory / "..data" / "checks.yaml").write_text(
                f"{CHECKS}# {over_at}{refused}{asyncio.get_running_loop().time()}\n"
            )
            await asyncio.sleep(0.1)
            async with session.get(f"{process.url}/unknown") as response:
                refused = response.status

    assert refused == 401


@pytest.mark.parametrize("damage", ["tampered", "torn", "absent"])
async def test_a_last_good_set_that_is_not_whole_is_none(
    mounted: ConfigMap, held: Held, redis_url: str, place: Path, damage: str
) -> None:
    directory = str(mounted.directory)
    variables = environment(held.upstream.url, redis_url, policies=directory, policies_last_good=str(place))
    async with started(variables):
        pass
    file = place / "policies.json"
    whole = file.read_text()
    if damage == "absent":
        file.unlink()
    else:
        file.write_text(whole.replace("24h", "99h") if damage == "tampered" else whole[: len(whole) // 2])
    mounted.swap({"wrong.yaml": WRONG})

    done = await asyncio.to_thread(serve, variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{mounted.directory}/wrong.yaml:1: match.operations" in done.stderr


async def test_files_that_are_swapped_without_end_never_make_a_request_fail(
    mounted: ConfigMap, held: Held, redis_url: str
) -> None:
    held.release.set()
    async with over(mounted, held, redis_url) as (process, session):
        for number in range(40):
            mounted.swap(GOOD | {"checks.yaml": CHECKS.replace("24h", f"{number + 1}h")})
            process.popen.send_signal(signal.SIGHUP)
            statuses = await asyncio.gather(*(ask(session, process.url, f"{number}-{one}", BODY) for one in range(5)))
            assert {status for status, _ in statuses} == {200}
        await eventually(lambda: _shows(session, process, "40h"))

    assert held.calls == 1  # each window is longer than the one before


async def _shows(session: aiohttp.ClientSession, process: GatewayProcess, window: str) -> bool:
    found: str = (await policies_of(session, process))["policies"]["checks"]["dedup"]["window"]
    return found == window
