"""Sentinels and clusters with TLS: each server is verified, the one that another names as well."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from gateway.connect import connect
from gateway.store import Script, Store, StoreUnavailable
from tests.running import eventually
from tests.servers import REDIS_SERVER, Server, _free_port, _is_whole, standalone, until
from tests.tls.authority import THIS_MACHINE, Authority, Files

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason="Debian's redis-server is not installed; ours has no TLS")
ANSWER = Script.of("return redis.call('SET', KEYS[1], ARGV[1])")


def options(shown: Files, ca: Path, port: int) -> tuple[str, ...]:
    files = ("--tls-cert-file", str(shown.certificate), "--tls-key-file", str(shown.key), "--tls-ca-cert-file", str(ca))
    return ("--tls-port", str(port), *files, "--tls-auth-clients", "no", "--tls-replication", "yes")


@contextmanager
def cluster(shown: Files, ca: Path) -> Iterator[str]:
    """Three primaries, which name each other to clients by their ports with TLS."""
    with ExitStack() as stack:
        ports = [_free_port() for _ in range(3)]
        more = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000", "--tls-cluster", "yes")
        stated = [(*more, *options(shown, ca, port)) for port in ports]
        nodes = [stack.enter_context(standalone(REDIS_SERVER or "", *one)) for one in stated]
        for index, node in enumerate(nodes):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 16384 * index // 3, 16384 * (index + 1) // 3 - 1)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for node in nodes:
            until(partial(_is_whole, node.client))
        yield f"rediss+cluster://127.0.0.1:{ports[0]}?ssl_ca_certs="


@contextmanager
def sentinel(shown: Files, ca: Path) -> Iterator[str]:
    """A primary and a Sentinel that asks it, and names it, with TLS."""
    with ExitStack() as stack:
        primary, own = _free_port(), _free_port()
        stack.enter_context(standalone(REDIS_SERVER or "", *options(shown, ca, primary)))
        config = f"sentinel monitor main 127.0.0.1 {primary} 1\n"
        one = Server(REDIS_SERVER or "", "--sentinel", *options(shown, ca, own), config=config)
        stack.callback(one.stop)
        yield f"rediss+sentinel://127.0.0.1:{own}/main?ssl_ca_certs="


@pytest.mark.parametrize("servers", [cluster, sentinel])
async def test_what_is_verified_is_used_and_what_is_not_is_not(
    servers: object, authority: Authority, tmp_path: Path
) -> None:
    shown = authority.issue(*THIS_MACHINE).write(tmp_path / "shown")
    ca, other = authority.write(tmp_path / "ca.pem"), Authority().write(tmp_path / "other.pem")
    failed: list[str] = []
    with servers(shown, ca) as url:  # type: ignore[operator] # both are
        store = Store(connect(f"{url}{ca}"), on_error=failed.append, answer_s=10)

        async def answers() -> bool:  # a busy machine takes longer than a connection may
            with suppress(StoreUnavailable):
                await store.ping()
                return True
            return False

        await eventually(answers)
        failed.clear()
        for key in (b"a", b"b", b"c", b"d"):
            assert await store.run(ANSWER, key, "1") == b"OK"
        await store.close()
        assert failed == []
        stranger = Store(connect(f"{url}{other}"), on_error=failed.append, answer_s=10)
        with pytest.raises(StoreUnavailable):
            await stranger.ping()
        await stranger.close()
