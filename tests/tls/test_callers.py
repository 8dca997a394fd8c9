"""Callers with TLS: which handshakes are made, which are not, and that nothing is heard of the latter but a number."""

import asyncio
import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from multidict import CIMultiDict

from gateway.exchange import Exchange, Reply
from gateway.http.ingress import Ingress, Limits, Observers
from gateway.http.sockets import Sockets
from gateway.http.tls import Tls, TlsSite
from gateway.in_flight import InFlight
from gateway.listening import address_of
from gateway.tls import HandshakeFailure, PemFile, TlsFiles, server_context
from tests.e2e.conftest import BODY, Running, environment, run_gateway
from tests.running import eventually, total
from tests.scripted import ScriptedUpstream
from tests.tls.authority import Authority, Files, Pair
from tests.tls.clients import Caller, ask_once, believing

SPIFFE = "spiffe://clinic.test/ns/front/sa/scheduling"


class Listener:
    """A traffic port with TLS, what was asked of it, and what failed before that."""

    def __init__(self, sockets: Sockets) -> None:
        self.sockets = sockets
        self.names: list[tuple[str, ...]] = []
        self.failures: list[HandshakeFailure] = []
        self.url = ""

    async def admit(self, exchange: Exchange, /) -> None:
        self.names.append(exchange.inbound.certificate_names)

    async def answer(self, _: Exchange, /) -> Reply:
        return Reply(status=200, reason="OK", headers=CIMultiDict(), body=b"{}")

    async def failed(self, *expected: HandshakeFailure) -> None:
        """Return when these handshakes have failed, and every socket but the others' is counted no more."""

        async def have() -> bool:
            return sorted(self.failures) == sorted(expected)

        await eventually(have)

    async def is_empty(self) -> None:
        async def has_nobody() -> bool:
            return self.sockets.callers == 0

        await eventually(has_nobody)


Listen = Callable[..., AbstractAsyncContextManager[Listener]]


@pytest.fixture
def listen(authority: Authority, shown: Files, tmp_path: Path) -> Listen:
    ca = authority.write(tmp_path / "ca.pem")

    @asynccontextmanager
    async def run(wanted: Any = "off", *, sockets: int = 100, handshake_s: float = 20.0) -> AsyncIterator[Listener]:  # noqa: ANN401
        files = TlsFiles(PemFile("C", shown.certificate), PemFile("K", shown.key), PemFile("CA", ca))
        context = server_context(files, wanted, now=_now())
        listener = Listener(Sockets(sockets))
        ingress = Ingress(
            listener,
            Limits(body_bytes=1000, body_s=5.0, head_s=5.0, idle_s=5.0),
            listener.sockets,
            InFlight(),
            Observers(
                now=asyncio.get_running_loop().time,
                new_id=lambda: "id",
                on_record=lambda _: None,
                on_defect=lambda _: None,
            ),
        )
        runner = web.ServerRunner(ingress.server(), shutdown_timeout=0.1)
        await runner.setup()
        tls = Tls(
            context=lambda: context,
            sockets=listener.sockets,
            on_failed=listener.failures.append,
            handshake_s=handshake_s,
        )
        site = TlsSite(runner, "127.0.0.1", 0, backlog=100, tls=tls)
        await site.start()
        listener.url = f"https://{address_of(site)}"
        try:
            yield listener
        finally:
            await runner.cleanup()
            await site.end()
            await listener.is_empty()

    return run


def _now() -> float:
    return time.time()


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


async def closed(plain: socket.socket) -> bool:
    """Whether the other side closes the connection without a word in plain text."""
    try:
        return not (await asyncio.to_thread(plain.recv, 100)).startswith(b"HTTP")
    except ConnectionResetError:
        return True
    finally:
        plain.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_caller_with_tls_is_served(version: ssl.TLSVersion, listen: Listen, authority: Authority) -> None:
    context = believing(authority)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with listen() as listener:
        with await asyncio.to_thread(Caller, listener.url, context) as caller:
            for _ in range(2):
                assert (await asyncio.to_thread(caller.ask)).startswith(b"HTTP/1.1 200")
            assert caller.socket.version() == version.name.replace("_", ".")
            assert caller.socket.selected_alpn_protocol() == "http/1.1"
            assert caller.socket.compression() is None
            assert listener.sockets.callers == 1
    assert listener.names == [(), ()]
    assert listener.failures == []


async def test_what_came_with_the_end_of_the_handshake_is_not_lost(listen: Listen, authority: Authority) -> None:
    async with listen() as listener:
        context = believing(authority)
        await asyncio.gather(*(asyncio.to_thread(ask_once, listener.url, context) for _ in range(100)))
    assert len(listener.names) == 100
    assert listener.failures == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_older_versions_are_refused(version: ssl.TLSVersion, listen: Listen) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    async with listen() as listener:
        with pytest.raises(OSError):
            await asyncio.to_thread(Caller, listener.url, context)
        await listener.failed(HandshakeFailure.VERSION)


async def test_a_cipher_without_forward_secrecy_is_refused(listen: Listen, authority: Authority) -> None:
    context = believing(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-GCM-SHA384:ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=1")
    async with listen() as listener:
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(Caller, listener.url, context)
        await listener.failed(HandshakeFailure.VERSION)


async def test_plain_http_is_closed_without_a_word(listen: Listen) -> None:
    async with listen() as listener:
        plain = await asyncio.to_thread(connected, listener.url)
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await closed(plain)
        await listener.failed(HandshakeFailure.PLAIN_HTTP)
    assert listener.names == []


async def test_a_caller_who_believes_another_ca_breaks_off(listen: Listen) -> None:
    async with listen() as listener:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(Caller, listener.url, believing(Authority()))
        await listener.failed(HandshakeFailure.REFUSED_BY_CALLER)


async def test_a_handshake_that_is_never_ended_is_closed_when_its_time_is_up(listen: Listen) -> None:
    async with listen(handshake_s=0.2) as listener:
        plain = await asyncio.to_thread(connected, listener.url)
        assert await closed(plain)
        await listener.failed(HandshakeFailure.TIMEOUT)
        await listener.is_empty()


async def test_whoever_leaves_in_the_middle_of_it_is_counted_no_more(listen: Listen) -> None:
    async with listen() as listener:
        (await asyncio.to_thread(connected, listener.url)).close()
        await listener.failed(HandshakeFailure.LEFT)
        await listener.is_empty()


async def test_a_handshake_makes_room_for_those_who_ask(listen: Listen, authority: Authority) -> None:
    async with listen(sockets=3) as listener:
        silent = [await asyncio.to_thread(connected, listener.url) for _ in range(3)]

        async def are_counted() -> bool:
            return listener.sockets.callers == 3

        await eventually(are_counted)
        assert await asyncio.to_thread(ask_once, listener.url, believing(authority))
        await listener.failed(HandshakeFailure.NO_ROOM)
        assert await closed(silent[0])  # the one that has been idle for longest
        for one in silent[1:]:
            one.close()
        await listener.failed(HandshakeFailure.NO_ROOM, HandshakeFailure.LEFT, HandshakeFailure.LEFT)


# --- client certificates ---------------------------------------------------------------------------------------------


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> Files:
    return authority.issue("scheduling.clinic.test", SPIFFE, "10.0.0.7").write(tmp_path / "own")


NAMES = ("dns:scheduling.clinic.test", f"uri:{SPIFFE}")


@pytest.mark.parametrize("wanted", ["optional", "required"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_names_of_a_verified_certificate_come_with_each_request(
    wanted: str, version: ssl.TLSVersion, listen: Listen, authority: Authority, own: Files
) -> None:
    context = believing(authority, own)
    context.minimum_version = context.maximum_version = version
    async with listen(wanted) as listener:
        with await asyncio.to_thread(Caller, listener.url, context) as first:
            await asyncio.to_thread(first.ask)
            await asyncio.to_thread(first.ask)
            session = first.socket.session
        with await asyncio.to_thread(Caller, listener.url, context, session) as again:
            await asyncio.to_thread(again.ask)
            assert not again.socket.session_reused or version is ssl.TLSVersion.TLSv1_2  # which keeps its end
    assert listener.names == [NAMES] * 3


async def test_a_certificate_that_was_not_asked_for_has_no_names(
    listen: Listen, authority: Authority, own: Files
) -> None:
    async with listen("off") as listener:
        await asyncio.to_thread(ask_once, listener.url, believing(authority, own))
    assert listener.names == [()]


async def test_where_a_certificate_is_optional_whoever_has_none_is_served(listen: Listen, authority: Authority) -> None:
    async with listen("optional") as listener:
        await asyncio.to_thread(ask_once, listener.url, believing(authority))
    assert listener.names == [()]


def of_another_ca(_: Authority) -> Pair:
    return Authority().issue("scheduling.clinic.test")


def of_a_ca_of_the_same_name(authority: Authority) -> Pair:
    return Authority(authority.name).issue("scheduling.clinic.test")


def expired(authority: Authority) -> Pair:
    return authority.issue("scheduling.clinic.test", days=(-2, -1))


@pytest.mark.parametrize("wanted", ["optional", "required"])
@pytest.mark.parametrize("make", [of_another_ca, of_a_ca_of_the_same_name, expired])
async def test_a_certificate_that_is_not_verified_is_refused(
    wanted: str, make: Callable[[Authority], Pair], listen: Listen, authority: Authority, tmp_path: Path
) -> None:
    files = make(authority).write(tmp_path / "foreign")
    async with listen(wanted) as listener:
        with pytest.raises(OSError):
            await asyncio.to_thread(ask_once, listener.url, believing(authority, files))
        await listener.failed(HandshakeFailure.CLIENT_CERTIFICATE)
    assert listener.names == []


async def test_where_a_certificate_is_required_whoever_has_none_is_refused(
    listen: Listen, authority: Authority
) -> None:
    async with listen("required") as listener:
        with pytest.raises(OSError):
            await asyncio.to_thread(ask_once, listener.url, believing(authority))
        await listener.failed(HandshakeFailure.CLIENT_CERTIFICATE)
    assert listener.names == []


# --- the whole gateway -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(upstream: ScriptedUpstream, redis_url: str, shown: Files) -> AsyncIterator[Running]:
    files = {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key)}
    async with run_gateway(environment(upstream.url, redis_url, **files)) as gateway:
        yield gateway


async def test_a_question_over_tls_is_answered_and_the_admin_port_is_plain(
    upstream: ScriptedUpstream, redis_url: str, shown: Files, authority: Authority
) -> None:
    async with running(upstream, redis_url, shown) as gateway:
        assert gateway.url.startswith("https://")
        async with gateway.session.post(
            f"{gateway.url}/rcm/eligibility/v1", json=BODY, ssl=believing(authority)
        ) as response:
            assert response.status == 200
        text = await gateway.metrics()
    assert total(text, 'certificates_last_reload_successful{side="callers"') == 1
    assert total(text, 'certificate_expiry_timestamp_seconds{side="callers"') > _now()


async def test_handshakes_that_fail_are_counted_and_leave_nothing_in_the_log(
    upstream: ScriptedUpstream, redis_url: str, shown: Files
) -> None:
    context, failures = believing(Authority()), 30
    async with running(upstream, redis_url, shown) as gateway:
        before = len(gateway.lines())
        for _ in range(failures):
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(Caller, gateway.url, context)

        async def are_counted() -> bool:
            return total(await gateway.metrics(), 'tls_handshakes_failed_total{reason="refused_by_caller"') == failures

        await eventually(are_counted)
        assert len(gateway.lines()) == before


@pytest.fixture
def known(authority: Authority, shown: Files, tmp_path: Path) -> dict[str, str]:
    """The settings of a gateway that knows one caller, by its certificate."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "callers.yaml").write_text(f'callers: {{scheduling: {{certificates: ["uri:{SPIFFE}"]}}}}\n')
    (policies / "checks.yaml").write_text("match: {operations: ['*']}\n")
    return {
        "tls_certificate": str(shown.certificate),
        "tls_key": str(shown.key),
        "tls_client_ca": str(authority.write(tmp_path / "ca.pem")),
        "tls_client_certificate": "optional",
        "policies": str(policies),
    }


async def test_a_caller_is_known_by_its_certificate_and_by_no_other(
    redis_url: str, authority: Authority, own: Files, known: dict[str, str], tmp_path: Path
) -> None:
    other = authority.issue("billing.clinic.test").write(tmp_path / "other")
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url, **known)) as gateway:
        for files, status in ((own, 200), (other, 401), (None, 401)):
            async with gateway.session.post(
                f"{gateway.url}/rcm/eligibility/v1", json=BODY, ssl=believing(authority, files)
            ) as response:
                assert response.status == status
        first = gateway.records()[0]
    assert (first["caller"], first["identified_by"]) == ("scheduling", "certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_ends_speaks_for_nobody_any_more_on_a_connection_that_is_open_or_resumed(
    version: ssl.TLSVersion, redis_url: str, authority: Authority, known: dict[str, str], tmp_path: Path
) -> None:
    brief = authority.issue(SPIFFE, days=(-1, 4 / 86_400)).write(tmp_path / "brief")
    context = believing(authority, brief)
    context.minimum_version = context.maximum_version = version
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url, **known)) as gateway:
        with await asyncio.to_thread(Caller, gateway.url, context) as caller:
            assert b" 200 " in await asyncio.to_thread(caller.ask)
            session = caller.socket.session

            async def is_refused() -> bool:
                return b" 401 " in await asyncio.to_thread(caller.ask)

            await eventually(is_refused)
        answer = b""
        with contextlib.suppress(OSError):  # a full handshake fails; one that resumes must not help
            answer = await asyncio.to_thread(_ask_again, gateway.url, context, session)
        assert b" 200 " not in answer


def _ask_again(url: str, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bytes:
    with Caller(url, context, session) as caller:
        return caller.ask()
