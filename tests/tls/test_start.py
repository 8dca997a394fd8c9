"""What a start refuses: each is one sentence, exit code 2, and nothing that is secret."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import environment
from tests.e2e.processes import serve
from tests.running import ROOT, GatewayProcess, kept_environment
from tests.scripted import ScriptedUpstream
from tests.tls.authority import Authority, Files, Pair
from tests.tls.test_reload import BROKEN


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a start ends."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    (sentence,) = done.stderr.splitlines()
    return sentence


@pytest.mark.parametrize(("make", "said"), BROKEN)
def test_a_pair_that_cannot_be_used(
    make: Callable[[Authority], Pair], said: str, authority: Authority, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    files = make(authority).write(tmp_path / "broken")
    paths = {"tls_certificate": str(files.certificate), "tls_key": str(files.key)}
    sentence = refusal(serve(environment("http://127.0.0.1:1", valkey.url, **paths)))
    assert sentence.startswith("GATEWAY_TLS_")
    assert said in sentence
    assert ", expected " in sentence


def test_files_that_are_not_there(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    sentence = refusal(serve(environment("http://127.0.0.1:1", valkey.url, tls_certificate=gone, tls_key=gone)))
    assert sentence == (
        f"GATEWAY_TLS_CERTIFICATE: found {gone} (No such file or directory), expected a PEM file to read"
    )


def test_a_ca_file_without_a_ca(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    done = serve(environment("https://127.0.0.1:1", valkey.url, upstream_ca=str(tmp_path / "ca.pem")))
    assert refusal(done).startswith(f"GATEWAY_UPSTREAM_CA: found {tmp_path}/ca.pem, which holds no certificate in PEM")


def test_anonymous_on_a_listener_beyond_this_machine_also_with_tls(valkey: EmbeddedValkey, shown: Files) -> None:
    paths = {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key), "listen": "0.0.0.0:0"}
    assert "the caller 'anonymous' with a listener beyond this machine" in refusal(
        serve(environment("http://127.0.0.1:1", valkey.url, **paths))
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"GATEWAY_REDIS_URL": "redis://:s3cret@redis.test"}, "GATEWAY_REDIS_URL: found redis:// to another machine"),
        (
            {"GATEWAY_REDIS_URL": "redis+cluster://redis.test"},
            "GATEWAY_REDIS_URL: found redis+cluster:// to another machine, expected rediss+cluster://",
        ),
        ({"GATEWAY_REDIS_URL": "rediss://redis.test?ssl_cert_reqs=none"}, "GATEWAY_REDIS_URL: found ssl_cert_reqs"),
        (
            {"GATEWAY_REDIS_URL": "rediss://redis.test?ssl_check_hostname=no"},
            "GATEWAY_REDIS_URL: found ssl_check_hostname",
        ),
        ({"GATEWAY_UPSTREAM_URL": "http://upstream.test"}, "GATEWAY_UPSTREAM_URL: found http:// to another machine"),
    ],
)
def test_what_could_be_read_on_the_way(changed: dict[str, str], said: str, valkey: EmbeddedValkey) -> None:
    sentence = refusal(serve(environment("http://127.0.0.1:1", valkey.url) | changed))
    assert sentence.startswith(said)
    assert "s3cret" not in sentence


KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("ring", "said"),
    [
        (f"a:{KEY[:40]}", "the key of entry 1"),
        (f"a:{KEY},a:{OTHER}", "two entries have the same kid"),
        (f"a:{KEY},b:{KEY}", "two entries have the same key"),
    ],
)
def test_keys_that_are_short_or_there_twice(ring: str, said: str, valkey: EmbeddedValkey) -> None:
    sentence = refusal(serve(environment("http://127.0.0.1:1", valkey.url, keys=ring)))
    assert said in sentence
    assert KEY[:20] not in sentence


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ((), {"PYTHONASYNCIODEBUG": "1"}, "found Python's or asyncio's debug mode, expected neither"),
        (("-X", "dev"), {}, "found Python's or asyncio's debug mode, expected neither"),
        ((), {"AIOHTTP_NO_EXTENSIONS": "1"}, "found aiohttp's HTTP parser in Python, expected its extension"),
    ],
)
def test_what_is_for_developers(
    arguments: tuple[str, ...], variables: dict[str, str], said: str, valkey: EmbeddedValkey
) -> None:
    done = subprocess.run(
        [sys.executable, *arguments, "-m", "gateway", "serve"],
        env={**kept_environment(), **environment("http://127.0.0.1:1", valkey.url), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says it in /proc")
async def test_nothing_of_a_process_is_written_to_a_core_dump(
    upstream: ScriptedUpstream, valkey: EmbeddedValkey
) -> None:
    with await asyncio.to_thread(GatewayProcess, environment(upstream.url, valkey.url)) as gateway:
        limits = await asyncio.to_thread(Path(f"/proc/{gateway.popen.pid}/limits").read_text)
    (limit,) = [line for line in limits.splitlines() if line.startswith("Max core file")]
    assert limit.split()[4:6] == ["0", "0"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has prctl")
def test_no_other_process_of_the_same_user_may_read_its_memory() -> None:
    program = (
        "import ctypes; from gateway.start import keep_memory_private; keep_memory_private(); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True) == "0\n"


def test_a_certificate_as_a_setting_may_come_from_a_file_that_holds_its_path(
    valkey: EmbeddedValkey, shown: Files, tmp_path: Path
) -> None:
    variables = environment("http://127.0.0.1:1", valkey.url, tls_key=str(shown.key))
    (tmp_path / "path").write_text(f"{tmp_path}/nowhere\n")
    sentence = refusal(serve(variables | {"GATEWAY_TLS_CERTIFICATE_FILE": str(tmp_path / "path")}))
    assert sentence.startswith(f"GATEWAY_TLS_CERTIFICATE: found {tmp_path}/nowhere (No such file")
    sentence = refusal(serve(variables | {"GATEWAY_TLS_CERTIFICATE_FILE": str(shown.certificate)}))
    assert sentence.startswith("GATEWAY_TLS_CERTIFICATE: found a value that is not shown, expected the path of a PEM")
