"""promtool's own verdict, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import environment, run_gateway
from tests.scripted import ScriptedUpstream
from tests.slo.pack import FILES, UNIT_TESTS

PROMTOOL = shutil.which("promtool")
OF_DAYS = {"days", "latency", "slo"}
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], input=given, capture_output=True, text=True, check=False)


def test_the_rules_are_good() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=[pytest.mark.long] if file.stem in OF_DAYS else []) for file in UNIT_TESTS],
)
def test_the_rules_do_what_their_unit_tests_say(file: Path) -> None:
    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_scrape_is_as_prometheus_wants_it(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit()
        text = await gateway.metrics()

    done = promtool("check", "metrics", given=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
