"""The upstream behind TLS: it is verified, always, and whoever looks at the log sees why it was not believed."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.embedded import EmbeddedValkey
from gateway.start import StartError
from tests.e2e.conftest import environment, run_gateway
from tests.e2e.processes import serve
from tests.running import eventually, total
from tests.scripted import ScriptedUpstream
from tests.tls.authority import THIS_MACHINE, Authority, Pair, self_signed


def showing(pair: Pair, directory: Path, client_ca: Authority | None = None) -> ScriptedUpstream:
    """An upstream with a certificate, which wants one of a CA if it is given one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(directory))
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.pem.decode())
    return ScriptedUpstream(tls=context)


def good(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE)


def of_another_host(authority: Authority) -> Pair:
    return authority.issue("elsewhere.test")


def expired(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE, days=(-2, -1))


def not_yet_valid(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE, days=(1, 2))


def of_itself(_: Authority) -> Pair:
    return self_signed(*THIS_MACHINE)


def of_another_ca(_: Authority) -> Pair:
    return Authority("another").issue(*THIS_MACHINE)


class Case(NamedTuple):
    make: Callable[[Authority], Pair]
    reason: str
    said: str


every_case = pytest.mark.parametrize(
    "case",
    [
        Case(of_another_host, "other_host", "its certificate is for another host, expected"),
        Case(expired, "expired", "its certificate has expired, expected"),
        Case(not_yet_valid, "not_yet_valid", "its certificate is not valid yet, expected"),
        Case(of_itself, "self_signed", "its certificate is signed by itself and not believed, expected"),
        Case(of_another_ca, "unknown_ca", "its certificate is signed by a CA that is not believed, expected"),
    ],
    ids=lambda case: case.reason,
)


async def test_an_upstream_of_a_private_ca_is_believed(authority: Authority, redis_url: str, tmp_path: Path) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    async with showing(good(authority), tmp_path / "upstream") as upstream:
        variables = environment(upstream.url, redis_url, upstream_ca=str(ca))
        async with run_gateway(variables) as gateway:
            assert (await gateway.submit()).status == 200
    assert len(upstream.requests) == 1


@every_case
async def test_an_upstream_that_is_not_believed_ends_a_start_with_one_sentence(
    case: Case, authority: Authority, redis_url: str, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    async with showing(case.make(authority), tmp_path / "upstream") as upstream:
        with pytest.raises(StartError, match=f"GATEWAY_UPSTREAM_URL: found {upstream.url}, and {case.said}"):
            async with run_gateway(environment(upstream.url, redis_url, upstream_ca=str(ca))):
                pass
    assert upstream.tokens == 0


async def test_without_a_ca_of_its_own_it_is_the_systems_that_are_believed(
    authority: Authority, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with showing(good(authority), tmp_path / "upstream") as upstream:
        done = await asyncio.to_thread(serve, environment(upstream.url, valkey.url))
    assert done.returncode == 2
    assert "its certificate is signed by a CA that is not believed, expected one that is, or the CA" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


@every_case
async def test_an_upstream_that_is_believed_no_more_is_sent_nothing_and_the_log_says_why(
    case: Case, authority: Authority, redis_url: str, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    async with (
        showing(good(authority), tmp_path / "upstream") as upstream,
        run_gateway(environment(upstream.url, redis_url, upstream_ca=str(ca))) as gateway,
    ):
        assert upstream.tls is not None
        await upstream.hang_up()
        upstream.tls.load_cert_chain(*case.make(authority).write(tmp_path / "upstream"))
        for _ in range(2):
            response = await gateway.submit()
            assert response.status == 502
            assert (await response.json())["code"] == "upstream_not_trusted"
        text = await gateway.metrics()
    assert upstream.requests == []
    assert total(text, 'problems_total{code="upstream_not_trusted"') == 2
    (line,) = [one for one in gateway.lines() if one["event"].startswith("the upstream is not trusted")]
    assert line["reason"] == case.reason
    assert case.said in line["notice"]


async def test_an_upstream_that_asks_for_a_certificate_is_shown_one(
    authority: Authority, redis_url: str, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    own = authority.issue("gateway.test").write(tmp_path / "own")
    files = {"upstream_ca": str(ca), "upstream_certificate": str(own.certificate), "upstream_key": str(own.key)}
    async with (
        showing(good(authority), tmp_path / "upstream", client_ca=authority) as upstream,
        run_gateway(environment(upstream.url, redis_url, **files)) as gateway,
    ):
        assert (await gateway.submit()).status == 200
        text = await gateway.metrics()
    assert total(text, 'certificate_expiry_timestamp_seconds{side="upstream"') > 0


@contextmanager
def refusing(pair: Pair, directory: Path, client_ca: Authority) -> Iterator[str]:
    """A server of TLS 1.2 that says why it breaks a handshake off, which asyncio's does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*pair.write(directory))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=client_ca.pem.decode())
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(ssl.SSLError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_an_upstream_that_asks_in_vain_for_a_certificate_ends_a_start(
    authority: Authority, redis_url: str, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    with (
        refusing(good(authority), tmp_path / "upstream", authority) as url,
        pytest.raises(StartError, match="it breaks TLS off, expected it to take our certificate"),
    ):
        async with run_gateway(environment(url, redis_url, upstream_ca=str(ca))):
            pass


async def test_a_ca_that_changes_is_believed_from_the_next_connection_on(
    authority: Authority, redis_url: str, tmp_path: Path
) -> None:
    ca, other = authority.write(tmp_path / "ca.pem"), Authority("the next")
    async with showing(good(authority), tmp_path / "upstream") as upstream:
        variables = environment(upstream.url, redis_url, upstream_ca=str(ca), policies_poll_s="0.05")
        async with run_gateway(variables) as gateway:
            assert upstream.tls is not None
            upstream.tls.load_cert_chain(*good(other).write(tmp_path / "upstream"))
            other.write(ca)

            async def is_in_force() -> bool:
                return any(line["event"] == "certificates are in force" for line in gateway.lines())

            await eventually(is_in_force)
            await upstream.hang_up()
            assert (await gateway.submit()).status == 200
