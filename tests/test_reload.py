"""A file system that does not answer: nobody waits for it, and it is said."""

import asyncio
import io
import json
import threading
from pathlib import Path

import pytest

from gateway.policy.documents import PolicyFilesError, Refusal
from gateway.reload import Policies
from gateway.settings import read_settings
from gateway.telemetry.log import open_log
from gateway.telemetry.metrics import Metrics
from tests.e2e.conftest import environment
from tests.telemetry.test_metrics import new_metrics, value


def policies(directory: Path, metrics: Metrics, output: io.BytesIO) -> Policies:
    (directory / "callers.yaml").write_text("callers: {anonymous: {}}\n")
    (directory / "checks.yaml").write_text("match: {operations: ['*']}\n")
    variables = environment(
        "http://127.0.0.1:1", "redis://127.0.0.1:1", policies=str(directory), policies_poll_s="0.01"
    )
    return Policies(read_settings(variables), metrics, open_log("info", output), lambda: "one", limit_s=0.2)


async def test_what_hangs_is_given_up_and_nothing_else_is_begun_until_it_has_ended(tmp_path: Path) -> None:
    one = policies(tmp_path, new_metrics(), io.BytesIO())
    release, begun = threading.Event(), []

    def hang() -> None:
        begun.append(threading.current_thread())
        release.wait(30)

    for _ in range(3):
        with pytest.raises(PolicyFilesError, match=r"found no answer within 0.2 s, expected files") as caught:
            await one._in_time(hang)
        assert caught.value.refusal is Refusal.UNREADABLE
    assert len(begun) == 1
    assert begun[0].daemon  # the end of the process does not wait for it
    release.set()
    await asyncio.to_thread(begun[0].join)
    assert await one._in_time(lambda: 7) == 7


async def test_a_directory_that_hangs_is_said_once_and_read_again_when_it_answers(tmp_path: Path) -> None:
    metrics, output = new_metrics(), io.BytesIO()
    one = policies(tmp_path, metrics, output)
    await one.open()
    in_time, is_hanging = one._in_time, asyncio.Event()
    release = threading.Event()

    async def slow(work: object) -> object:
        return await in_time((lambda: release.wait(30)) if is_hanging.is_set() else work)  # type: ignore[arg-type]

    one._in_time = slow  # type: ignore[method-assign, assignment]
    watching = asyncio.create_task(one.watch(lambda _: None))
    is_hanging.set()

    async def until(successful: float) -> None:
        async with asyncio.timeout(20):
            while value(metrics, "policies_last_reload_successful") != successful:  # noqa: ASYNC110 - of a task
                await asyncio.sleep(0.01)

    await until(0)
    assert "found no answer" in one.describe()["refused"][0]  # type: ignore[index]
    is_hanging.clear()
    release.set()
    await until(1)
    watching.cancel()
    await asyncio.sleep(0)

    said = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [line["event"] for line in said] == ["policies cannot be used", "policies are unchanged"]
    assert one.describe()["refused"] == []
