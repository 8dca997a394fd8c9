"""What the pods run starts by what they are told, as processes: a gateway, and the trial's Valkey."""

import asyncio
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
from redis import Redis

from gateway.embedded import EmbeddedValkey, _server_path, die_with_parent
from tests.chart.engine import minimal, only, render
from tests.e2e.conftest import BODY, KEYS
from tests.running import ROOT, GatewayProcess, kept_environment, simulator_process

SECRET = "of-a-caller-whom-nobody-knows-0123456789abcdef"


def mount(directory: Path, files: dict[str, str]) -> None:
    """What the kubelet makes of a volume: links to links, which it swaps when something changes."""
    (version := directory / "..2026_01_02_03_04_05.678").mkdir(parents=True)
    (directory / "..data").symlink_to(version.name)
    for name, text in files.items():
        (version / name).write_text(text)
        (directory / name).symlink_to(f"..data/{name}")


def mounted(values: dict[str, Any], secret: dict[str, str], place: Path) -> dict[str, str]:
    """The environment of the gateway's container, image and all, with its volumes below `place`."""
    objects = render(values)
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    paths = {one["mountPath"]: place / one["name"] for one in container["volumeMounts"]}
    mount(place / "policies", only(objects, "ConfigMap", volumes["policies"]["configMap"]["name"])["data"])
    mount(place / "secrets", {item["path"]: secret[item["key"]] for item in volumes["secrets"]["secret"]["items"]})
    (place / "last-good").mkdir()

    image = dict(re.findall(r"\b(GATEWAY_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    told = image | {entry["name"]: entry["value"] for entry in container["env"]}
    for path, here in paths.items():
        told = {name: re.sub(rf"^{path}(?=/|$)", str(here), value) for name, value in told.items()}
    return told


async def asked_by_the_test(values: dict[str, Any], admin_url: str) -> int | None:
    """The exit code of what `helm test` runs, with an address in the place of the Service's name."""
    (container,) = only(render(values), "Pod")["spec"]["containers"]
    arguments = [one.replace("http://spring-eligibility-gateway-admin:9090", admin_url) for one in container["args"]]
    assert f"{admin_url}/readyz" in arguments
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments), cwd=ROOT, env=kept_environment()
    )
    return await process.wait()


async def test_a_gateway_starts_by_what_a_pod_is_told_answers_who_may_call_and_ends(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    secret = {
        "upstream-client-id": "simulator\n",
        "upstream-client-secret": "simulator-secret\n",
        "keys": f"{KEYS}\n",
        "redis-url": f"{valkey.url}\n",
    }
    with simulator_process("--speed", "60") as upstream:
        values = minimal(
            upstream={"url": upstream},
            policies={"callers.yaml": f"callers: {{scheduling: {{secret_sha256: '{digest}'}}}}\n"},
            settings={"max_body_bytes": 2_097_152, "redis_timeout_s": 5},
        )
        # Ports of the system's choice, and still beyond this machine: so does the image listen.
        told = mounted(values, secret, tmp_path) | {
            "GATEWAY_LISTEN": "0.0.0.0:0",
            "GATEWAY_ADMIN_LISTEN": "0.0.0.0:0",
        }
        with GatewayProcess(told) as gateway:
            async with aiohttp.ClientSession() as session:
                assert await asked_by_the_test(values, gateway.admin_url) == 0
                async with session.post(f"{gateway.url}/rcm/eligibility/v1", json=BODY) as refused:
                    assert refused.status == 401
                bearer = {"Authorization": f"Bearer {SECRET}"}
                async with session.post(f"{gateway.url}/rcm/eligibility/v1", json=BODY, headers=bearer) as answered:
                    assert answered.status == 200
            assert gateway.end() == 0


def test_the_trials_valkey_starts_by_its_arguments_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    deployment = only(
        render(minimal(valkey={"enabled": True}, settings={"allow_plaintext": True})),
        "Deployment",
        "spring-eligibility-gateway-valkey",
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command, *arguments = container["args"]
    assert command == "valkey-server"
    place = ["--port", "0", "--unixsocket", str(tmp_path / "socket")]
    with subprocess.Popen(
        [_server_path(), *arguments, *place],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - as in embedded.py
    ) as server:
        try:
            assert server.stdout is not None
            assert any("Ready to accept connections" in line for line in server.stdout)
            with Redis(unix_socket_path=str(tmp_path / "socket"), decode_responses=True) as redis:
                told = redis.config_get("maxmemory*") | redis.config_get("save") | redis.config_get("appendonly")
        finally:
            server.terminate()
    assert (told["maxmemory"], told["maxmemory-policy"]) == (str(128 * 1024 * 1024), "noeviction")
    assert (told["save"], told["appendonly"]) == ("", "no")
