"""What must be true before a gateway listens; where it is not, one sentence says so.

Each of these either returns, or raises StartError.
"""

import asyncio
import ctypes
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from gateway.connect import StoreUrlError
from gateway.embedded import EmbeddedUnavailable, EmbeddedValkey
from gateway.operations import TOKEN_PATH
from gateway.sealing import Key, new_key
from gateway.settings import Settings, variable
from gateway.store import Store, StoreUnavailable
from gateway.telemetry.log import Log
from gateway.tls import Distrust
from gateway.token.life import Cause
from gateway.token.step import TokenKeeper, TokenNotIssued

_NO_TOKEN_ENDPOINT: Final = frozenset({404, 405, 410})
_START_PATIENCE_S: Final = 3.0  # for what is started at the same moment as we are
_RETRY_S: Final = 0.25
_SPARE_DESCRIPTORS: Final = 256
_PR_SET_DUMPABLE: Final = 4
_REDIS_TROUBLE: Final = {
    "answer": "something there that is no Redis",
    "loading": "a Redis that is still loading its data",
    "refused": "a Redis that refuses the user or the password",
    "timeout": "nothing there that answers in time (a rediss:// URL needs a Redis with TLS)",
}


_CA: Final = f"expected one that is, or the CA that signs it in {variable('upstream_ca')}"
DISTRUST: Final[Mapping[Distrust, str]] = {
    Distrust.EXPIRED: "its certificate has expired, expected one that is valid now",
    Distrust.NOT_YET_VALID: "its certificate is not valid yet, expected one that is valid now (by our clock)",
    Distrust.SELF_SIGNED: f"its certificate is signed by itself and not believed, {_CA}",
    Distrust.UNKNOWN_CA: f"its certificate is signed by a CA that is not believed, {_CA}",
    Distrust.OTHER_HOST: "its certificate is for another host, expected one that names this one",
    Distrust.NOT_VERIFIED: f"its certificate is not believed, {_CA}",
    Distrust.REFUSED_BY_PEER: "it breaks TLS off, expected it to take our certificate "
    f"({variable('upstream_certificate')}), or none, and TLS 1.2 or newer",
    Distrust.OTHER: "TLS with it fails, expected an address that speaks TLS 1.2 or newer",
}


class StartError(Exception):
    """The gateway cannot start; the message is one sentence for whoever started it."""


def ring_and_url(settings: Settings, stack: AsyncExitStack) -> tuple[tuple[Key, ...], str]:
    """Start the bundled Valkey where it is wanted; without keys of its own it gets one that dies with it."""
    if not settings.is_embedded:
        return settings.keys, settings.redis_url.get_secret_value()
    try:
        embedded = stack.enter_context(EmbeddedValkey())
    except EmbeddedUnavailable as error:
        raise StartError(str(error)) from error
    return settings.keys or (new_key("embedded"),), embedded.url


async def open_store(new_store: Callable[[], Store], stack: AsyncExitStack) -> Store:
    """Return a store whose Redis answers; it is closed with the stack."""
    try:
        store = new_store()
    except StoreUrlError as error:
        raise StartError(f"{variable('redis_url')}: {error}") from error
    stack.push_async_callback(store.close)
    give_up_at = time.monotonic() + _START_PATIENCE_S
    while True:
        try:
            await store.ping()
        except StoreUnavailable as error:
            if time.monotonic() > give_up_at:
                found = _REDIS_TROUBLE.get(str(error), "no Redis that answers there")
                raise StartError(
                    f"{variable('redis_url')}: found {found}, expected a Redis or Valkey, or 'embedded'",
                ) from error
            await asyncio.sleep(_RETRY_S)
        else:
            return store


async def first_token(keeper: TokenKeeper, settings: Settings, log: Log) -> None:
    """Have a token before the first request; start without one only if the endpoint answers and is not itself."""
    give_up_at = time.monotonic() + _START_PATIENCE_S
    while True:
        try:
            await keeper.obtain()
        except TokenNotIssued as error:
            answer = error.answer
            if answer.cause is Cause.REFUSED:
                raise StartError(
                    f"{variable('upstream_client_id')}, {variable('upstream_client_secret')}: found credentials that "
                    f"the token endpoint of {variable('upstream_url')} refuses, expected those that Optum issued for "
                    "this environment",
                ) from error
            if answer.status in _NO_TOKEN_ENDPOINT:
                raise StartError(
                    f"{variable('upstream_url')}: found no token endpoint at {settings.upstream_url}{TOKEN_PATH} (it "
                    f"answers {answer.status}), expected the API's address",
                ) from error
            if answer.distrust is not None:
                raise StartError(
                    f"{variable('upstream_url')}: found {settings.upstream_url}, and {DISTRUST[answer.distrust]}"
                ) from error
            if answer.is_reachable:
                log.warning("no token yet", reason="the token endpoint gives none", status=answer.status)
                return
            if time.monotonic() > give_up_at:
                raise StartError(
                    f"{variable('upstream_url')}: found no token endpoint that can be reached at "
                    f"{settings.upstream_url}{TOKEN_PATH}, expected the API's address",
                ) from error
            await asyncio.sleep(min(error.wait_s, _RETRY_S * 4) + 0.01)
        else:
            return


def keep_memory_private() -> None:
    """Have nothing of this process written to a core dump: it holds keys, tokens and what patients are asked about.

    Linux hands cores to a program whatever the limit is, so the kernel is asked as well.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def affordable(requests: int, log: Log) -> int:
    """Raise the limit of open files as far as it goes; return how many sockets it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = hard - _SPARE_DESCRIPTORS if hard != resource.RLIM_INFINITY else 2 * requests
    if sockets < 2:  # noqa: PLR2004 - a caller and a call
        raise StartError(f"found a limit of {hard} open files, expected more than {_SPARE_DESCRIPTORS + 2} (ulimit -n)")
    if sockets < requests:
        log.warning("notice", notice=f"{variable('max_in_flight')} is {sockets}: the limit of open files is {hard}")
    return sockets
