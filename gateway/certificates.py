"""Which certificates and CAs are in force while the process runs: towards callers, and towards the upstream.

Rules
- Files that cannot be used together are refused, and said once; the last good ones stay, and connections that are open.
- The files are read again and again, not watched, and what is new counts when it has stood still for a moment: a Secret
  swaps a link under a certificate and its key, and whoever reads the one before and the other after has no pair.
- What was refused is tried again: a certificate that is not valid yet becomes so without being touched.
- SIGHUP: at once, and in any case with a word.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Final

from gateway.aside import Aside, Hanging
from gateway.settings import Settings, variable
from gateway.start import StartError
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.tls import PemFile, Renewed, TlsFiles, TlsFilesError, client_context, expires_at, server_context

_SETTLE_S: Final = 0.5
_SETTLE_ROUNDS: Final = 20
_LIMIT_S: Final = 30.0

Contents = tuple[bytes, ...] | str  # or the sentence that says why they cannot be read


@dataclass(slots=True)
class _Side:
    """One side, with what is in force there; `refused` says why what stands in its files is not."""

    name: str
    files: TlsFiles
    make: Callable[[TlsFiles, float], ssl.SSLContext]
    current: Renewed
    seen: Contents = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    contents: Contents
    context: ssl.SSLContext
    expires_at: float | None


class Certificates:
    """The contexts in force, and the watch over the files from which they are made."""

    def __init__(self, settings: Settings, metrics: Metrics, log: Log, wall_now: Callable[[], float]) -> None:
        self._poll_s = settings.policies_poll_s
        self._metrics = metrics
        self._log = log
        self._wall_now = wall_now
        self._aside = Aside("certificates", _LIMIT_S)
        self._asked = asyncio.Event()
        nothing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._callers = _Side(
            "callers",
            TlsFiles(
                _file("tls_certificate", settings.tls_certificate),
                _file("tls_key", settings.tls_key),
                _file("tls_client_ca", settings.tls_client_ca),
            ),
            lambda files, now: server_context(files, settings.tls_client_certificate, now),
            Renewed(nothing),
        )
        self._upstream = _Side(
            "upstream",
            TlsFiles(
                _file("upstream_certificate", settings.upstream_certificate),
                _file("upstream_key", settings.upstream_key),
                _file("upstream_ca", settings.upstream_ca),
            ),
            client_context,
            Renewed(nothing),
        )
        is_wanted = (settings.tls_certificate is not None, settings.upstream_url.startswith("https:"))
        self._sides = tuple(compress((self._callers, self._upstream), is_wanted))

    async def open(self) -> None:
        """Read them. Raises StartError where they cannot be used."""
        for side in self._sides:
            try:
                self._adopt(side, await self._aside.do(partial(_made, side, self._wall_now())))
            except TlsFilesError as error:
                raise StartError(str(error)) from error
            except Hanging:
                raise StartError(_silent(side)) from None

    @property
    def of_callers(self) -> ssl.SSLContext:
        """What a caller's handshake that begins now is made with."""
        return self._callers.current.current

    @property
    def of_upstream(self) -> ssl.SSLContext:
        """What every handshake with the upstream is made with: by what is in force when it begins."""
        return self._upstream.current

    def look(self) -> None:
        """Have `watch` read the files now, and say what came of it."""
        self._asked.set()

    async def watch(self) -> None:
        """Until cancelled, let what stands in the files be in force."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s or None):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            for side in self._sides:
                try:
                    await self._look_at(side, is_asked=is_asked)
                except TlsFilesError as error:
                    self._refuse(side, str(error), is_asked=is_asked)
                except Hanging:
                    self._refuse(side, _silent(side), is_asked=is_asked)
                except Exception as defect:  # noqa: BLE001 - whatever we did wrong, the next pair may be a good one
                    self._log.error("defect", error=type(defect).__name__)

    async def _look_at(self, side: _Side, *, is_asked: bool) -> None:
        reading = partial(_read, side.files)
        contents = await self._aside.do(reading)
        for _ in range(_SETTLE_ROUNDS):
            if contents == side.seen:
                break
            await asyncio.sleep(_SETTLE_S)
            earlier, contents = contents, await self._aside.do(reading)
            if earlier == contents:
                break
        if contents == side.seen and not side.refused and not is_asked:
            return
        side.seen = contents
        if isinstance(contents, str):
            raise TlsFilesError(contents)
        made = await self._aside.do(partial(_made, side, self._wall_now()))
        if made.contents == contents:
            self._adopt(side, made)
            self._log.info("certificates are in force", side=side.name)
        else:
            side.seen = ()  # they have changed meanwhile: the next look sees them whole

    def _adopt(self, side: _Side, made: _Made) -> None:
        side.current.current, side.seen, side.refused = made.context, made.contents, ""
        if made.contents:
            self._metrics.certificates_read(side.name, is_good=True)
        if made.expires_at is not None:
            self._metrics.certificate_in_force(side.name, made.expires_at)

    def _refuse(self, side: _Side, sentence: str, *, is_asked: bool) -> None:
        if is_asked or side.refused != sentence:
            self._log.warning("certificates cannot be used", side=side.name, notice=sentence)
        side.refused = sentence
        self._metrics.certificates_read(side.name, is_good=False)


def _file(field: str, path: Path | None) -> PemFile | None:
    return PemFile(variable(field), path) if path is not None else None


def _read(files: TlsFiles) -> Contents:
    try:
        return files.read()
    except TlsFilesError as error:
        return str(error)


def _made(side: _Side, now: float) -> _Made:
    """Return a context, and what the files held before and after it was made, if that is the same."""
    contents = side.files.read()
    context, ends_at = side.make(side.files, now), expires_at(side.files)
    return _Made(contents if side.files.read() == contents else "they changed", context, ends_at)


def _silent(side: _Side) -> str:
    files = (side.files.certificate, side.files.key, side.files.ca)
    names = ", ".join(file.variable for file in files if file is not None)
    return f"{names}: found no answer of the file system within {_LIMIT_S:g} s, expected files that can be read"
