"""The keys of platforms: fetched from where they are published, and kept up to date.

Rules
- Nobody waits for them but who sends a token whose key is not known, and then once in two seconds at most.
- Where they cannot be fetched the last ones stand for an hour: a key may have been withdrawn meanwhile.
- A published set that cannot be read does not take the place of one that could be.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from gateway.callers.issuers import Keys
from gateway.policy.callers import Issuer

_FETCH_S: Final = 5.0
_AGAIN_S: Final = 2.0  # between two looks for a key that nobody knows
_REFRESH_S: Final = 300.0
_REFRESH_FILE_S: Final = 30.0
_STALE_S: Final = 3600.0
_MAX_BYTES: Final = 262_144
_OK: Final = 200
_ACCEPT: Final = "application/jwk-set+json, application/json, */*;q=0.1"  # Kubernetes gives keys as the first alone


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySources:
    """Where instants come from (seconds, monotonic), and who is told what came of a fetch, by an issuer's name.

    Of one that failed, why; of one that did not, nothing.
    """

    now: Callable[[], float]
    on_fetched: Callable[[str, str], None]


class IssuerKeys:
    """Every issuer's keys, by its name in the policy files."""

    def __init__(self, sources: KeySources) -> None:
        self._sources = sources
        self._kept: dict[str, _Kept] = {}

    def adopt(self, issuers: Mapping[str, Issuer]) -> None:
        """Keep the keys of these issuers from now on; those of one that is as it was stay."""
        for name, kept in tuple(self._kept.items()):
            if issuers.get(name) != kept.issuer:
                kept.stop()
                del self._kept[name]
        for name, issuer in issuers.items():
            if name not in self._kept:
                self._kept[name] = _Kept(issuer, self._sources.now, partial(self._sources.on_fetched, name))

    def keys(self, name: str) -> Keys:
        """Return an issuer's keys as they are known now; none where they are too old, or were never there."""
        kept = self._kept.get(name)
        return kept.keys if kept is not None else Keys()

    async def look_again(self, name: str) -> bool:
        """Fetch an issuer's keys again, unless that was tried just now; return whether any are known after it."""
        kept = self._kept.get(name)
        if kept is None:
            return False
        await kept.look_again()
        return kept.is_known

    async def close(self) -> None:
        """Fetch no more."""
        tasks = [task for kept in self._kept.values() for task in kept.stop()]
        await asyncio.gather(*tasks, return_exceptions=True)


class _Kept:
    """One issuer's keys."""

    def __init__(self, issuer: Issuer, now: Callable[[], float], on_fetched: Callable[[str], None]) -> None:
        self.issuer = issuer
        self._now = now
        self._on_fetched = on_fetched
        self._keys = Keys()
        self._document = b""
        self._good_at = self._tried_at = -_STALE_S
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    @property
    def is_known(self) -> bool:
        return self._now() - self._good_at < _STALE_S

    @property
    def keys(self) -> Keys:
        return self._keys if self.is_known else Keys()

    async def look_again(self) -> None:
        if self._fetching is None and self._now() - self._tried_at < _AGAIN_S:
            return
        await asyncio.shield(self._fetch())  # whoever leaves does not take it from the others

    def stop(self) -> list[asyncio.Task[None]]:
        tasks = [task for task in (self._refreshing, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    async def _refresh(self) -> None:
        while True:
            await asyncio.shield(self._fetch())
            await asyncio.sleep(_REFRESH_FILE_S if self.issuer.is_file else _REFRESH_S)

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_once())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_once(self) -> None:
        reason = "not_keys"
        try:
            async with asyncio.timeout(_FETCH_S):
                document = await (_read if self.issuer.is_file else _download)(self.issuer)
        except Exception as error:  # noqa: BLE001 - whatever it was: the next look may be better, and there must be one
            document, reason = b"", _reason(error)
        finally:
            self._tried_at = self._now()
        keys = self._keys if document and document == self._document else Keys.read(document)
        if keys is not None:
            self._keys, self._document, self._good_at = keys, document, self._now()
        self._on_fetched("" if keys is not None else reason)


async def _read(issuer: Issuer) -> bytes:
    return await asyncio.to_thread(_content, issuer.jwks)


async def _download(issuer: Issuer) -> bytes:
    headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
    if issuer.bearer_file is not None:
        token = (await asyncio.to_thread(_content, issuer.bearer_file)).decode("ascii").strip()
        headers["Authorization"] = f"Bearer {token}"
    context = await asyncio.to_thread(ssl.create_default_context, cafile=issuer.ca)
    async with (
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent",),
        ) as session,
        session.get(issuer.jwks, headers=headers, ssl=context, allow_redirects=False) as response,
    ):
        if response.status != _OK:
            raise ValueError(f"status_{response.status}")
        document = bytearray()
        async for part in response.content.iter_any():
            document += part
            if len(document) > _MAX_BYTES:
                raise ValueError("too_large")
        return bytes(document)


def _reason(error: Exception) -> str:
    """A closed set of reasons: a foreign exception's own words may hold anything."""
    match error:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientSSLError():
            return "certificate"
        case aiohttp.ClientError():
            return "connection"
        case OSError():
            return errno.errorcode.get(error.errno or 0, "file")
        case ValueError() if str(error).startswith(("status_", "too_large")):
            return str(error)
        case _:
            return "other"


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MAX_BYTES)
