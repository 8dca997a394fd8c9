"""Files that change while the gateway runs: new handshakes use what is new, and nobody notices anything else."""

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedValkey
from tests.e2e.conftest import Running, environment, run_gateway
from tests.running import GatewayProcess, eventually, total
from tests.scripted import ScriptedUpstream
from tests.tls.authority import THIS_MACHINE, Authority, Files, Pair
from tests.tls.clients import Caller, Storm, ask_once, believing, serial, swap

Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def run(upstream: ScriptedUpstream, redis_url: str, shown: Files) -> Run:
    """Run a gateway that looks at its files all the time."""

    @asynccontextmanager
    async def start(**more: str) -> AsyncIterator[Running]:
        files = {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key), "policies_poll_s": "0.05"}
        async with run_gateway(environment(upstream.url, redis_url, **(files | more))) as gateway:
            yield gateway

    return start


async def until_shown(gateway: Running, context: ssl.SSLContext, certificate: bytes) -> None:
    async def is_shown() -> bool:
        return await asyncio.to_thread(ask_once, gateway.url, context) == serial(certificate)

    await eventually(is_shown)


async def until_good(gateway: Running, expected: int, side: str = "callers") -> None:
    async def is_so() -> bool:
        return total(await gateway.metrics(), f'certificates_last_reload_successful{{side="{side}"') == expected

    await eventually(is_so)


def refusals(gateway: Running) -> list[str]:
    return [line["notice"] for line in gateway.lines() if line["event"] == "certificates cannot be used"]


async def test_a_secret_that_is_swapped_is_shown_to_the_next_and_open_connections_stay(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    pairs = [authority.issue(*THIS_MACHINE) for _ in range(2)]
    mounted, context = tmp_path / "mounted", believing(authority)
    for number, pair in enumerate(pairs):
        pair.write(mounted / f"..{number}")
    (mounted / "..data").symlink_to("..0", target_is_directory=True)
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(Path("..data") / name)
    files = {"tls_certificate": str(mounted / "tls.crt"), "tls_key": str(mounted / "tls.key")}
    async with run(**files) as gateway:
        with await asyncio.to_thread(Caller, gateway.url, context) as early:
            assert early.shown == serial(pairs[0].certificate)
            await asyncio.to_thread(early.ask)
            swap(mounted / "..data", Path("..1"))
            await until_shown(gateway, context, pairs[1].certificate)
            assert (await asyncio.to_thread(early.ask)).startswith(b"HTTP/1.1 200")
    assert refusals(gateway) == []
    assert [line["side"] for line in gateway.lines() if line["event"] == "certificates are in force"] == ["callers"]


async def test_no_handshake_fails_and_no_answer_is_torn_while_certificates_change(
    run: Run, authority: Authority, shown: Files
) -> None:
    context, serials = believing(authority), {serial(shown.certificate.read_bytes())}
    async with run() as gateway, Storm(gateway.url, context) as storm:
        for _ in range(4):
            pair = authority.issue(*THIS_MACHINE)
            pair.write(shown.certificate.parent)  # the one file after the other, as `cp` does
            serials.add(serial(pair.certificate))
            await until_shown(gateway, context, pair.certificate)
    assert storm.failures == []
    assert set(storm.shown) == serials


def a_key_of_another(authority: Authority) -> Pair:
    return Pair(authority.issue(*THIS_MACHINE).certificate, authority.issue(*THIS_MACHINE).key)


def no_certificate(authority: Authority) -> Pair:
    return Pair(b"nothing", authority.issue(*THIS_MACHINE).key)


def a_key_with_a_passphrase(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE, passphrase=b"secret")


def expired(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE, days=(-2, -1))


def not_yet_valid(authority: Authority) -> Pair:
    return authority.issue(*THIS_MACHINE, days=(1, 2))


BROKEN = [
    (a_key_of_another, "which is not the key of"),
    (no_certificate, "which holds no certificate in PEM"),
    (a_key_with_a_passphrase, "expected a private key in PEM without a passphrase"),
    (expired, "which has expired on"),
    (not_yet_valid, "which is not valid before"),
]


@pytest.mark.parametrize(("make", "said"), BROKEN)
async def test_a_pair_that_cannot_be_used_is_said_once_and_the_last_good_one_stays(
    make: Callable[[Authority], Pair], said: str, run: Run, authority: Authority, shown: Files
) -> None:
    context, good = believing(authority), shown.certificate.read_bytes()
    async with run() as gateway:
        make(authority).write(shown.certificate.parent)
        await until_good(gateway, 0)
        assert await asyncio.to_thread(ask_once, gateway.url, context) == serial(good)
        other = authority.issue(*THIS_MACHINE)
        other.write(shown.certificate.parent)
        await until_shown(gateway, context, other.certificate)
        await until_good(gateway, 1)
    sentences = refusals(gateway)  # of a pair whose files are far apart in time there is one more
    assert len([one for one in sentences if said in one]) == 1
    assert len(set(sentences)) == len(sentences)
    assert "PRIVATE" not in "".join(sentences)


async def test_files_that_are_gone_are_said_and_missed_by_nobody(run: Run, authority: Authority, shown: Files) -> None:
    async with run() as gateway:
        shown.key.unlink()
        await until_good(gateway, 0)
        await asyncio.to_thread(ask_once, gateway.url, believing(authority))
    assert refusals(gateway) == [
        f"GATEWAY_TLS_KEY: found {shown.key} (No such file or directory), expected a PEM file to read"
    ]


async def test_a_ca_that_is_taken_away_is_believed_by_no_new_handshake_and_no_session_of_it_is_resumed(
    run: Run, authority: Authority, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    own = authority.issue("scheduling.test").write(tmp_path / "own")
    context = believing(authority, own)
    async with run(tls_client_ca=str(ca), tls_client_certificate="required") as gateway:
        with await asyncio.to_thread(Caller, gateway.url, context) as caller:
            await asyncio.to_thread(caller.ask)
            session = caller.socket.session
        other = Authority()
        other.write(ca)
        theirs = believing(authority, other.issue("billing.test").write(tmp_path / "theirs"))

        async def is_believed() -> bool:
            try:
                return bool(await asyncio.to_thread(ask_once, gateway.url, theirs))
            except OSError:
                return False

        await eventually(is_believed)
        with pytest.raises(OSError), await asyncio.to_thread(Caller, gateway.url, context, session) as again:
            await asyncio.to_thread(again.ask)


async def test_sighup_has_the_files_read_at_once(
    upstream: ScriptedUpstream, valkey: EmbeddedValkey, shown: Files, authority: Authority
) -> None:
    files = {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key), "policies_poll_s": "0"}
    with await asyncio.to_thread(GatewayProcess, environment(upstream.url, valkey.url, **files)) as gateway:
        other = authority.issue(*THIS_MACHINE)
        other.write(shown.certificate.parent)
        gateway.popen.send_signal(signal.SIGHUP)
        line = json.loads(await asyncio.to_thread(gateway.wait_for, "certificates are in force"))
        assert line["side"] == "callers"
        shown_now = await asyncio.to_thread(ask_once, gateway.url, believing(authority))
        assert shown_now == serial(other.certificate)
        gateway.popen.send_signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.wait_for, "certificates are in force")
        assert await asyncio.to_thread(gateway.end) == 0
