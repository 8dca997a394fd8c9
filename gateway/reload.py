"""Which policies are in force while the process runs, from the directory to whoever uses them.

Rules
- A set is checked whole, and takes the place of the other between two requests. One that cannot be used is refused, and
  said once; the last good one stays, also across a restart where there is a place to keep it.
- The directory is read again and again, not watched: a ConfigMap swaps a link and a network file system tells nobody,
  and neither matters to whoever compares what stands there. What is new counts when it has stood still for a moment:
  of three files that are copied, two may be a good set as well.
- SIGHUP: at once, and in any case with a word.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.policy.documents import PolicyFilesError, Problem, Reading, Refusal
from gateway.policy.files import Files, PolicySet, parse, read
from gateway.policy.last_good import keep, kept
from gateway.policy.model import ANONYMOUS
from gateway.settings import Settings, variable
from gateway.start import StartError
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics

_SETTLE_S: Final = 0.5
_PROBLEMS_SHOWN: Final = 50


class Policies:
    """The policies in force, and the watch over the directory from which they come."""

    def __init__(self, settings: Settings, metrics: Metrics, log: Log) -> None:
        """Read them.

        Raises PolicyFilesError where neither the directory nor what was kept can be used, and StartError where nothing
        can be kept.
        """
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._asked = asyncio.Event()
        self._seen = read(settings.policies)
        try:
            self.current = self._usable(self._seen)
        except PolicyFilesError as error:
            self.current = self._restored(error)
        else:
            try:
                self._keep(self._seen)
            except OSError as error:
                raise StartError(self._not_kept(error)) from error
            metrics.policies_read(Reading.ADOPTED)
            metrics.policies_in_force(self.current.digest, "directory")

    def look(self) -> None:
        """Have `watch` read the directory now, and say what came of it."""
        self._asked.set()

    async def watch(self, adopt: Callable[[PolicySet], None]) -> None:
        """Until cancelled, hand over each set that takes the place of another."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.policies_poll_s or None):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                files = await self._settled(is_asked=is_asked)
                if is_asked or files != self._seen:
                    self._seen = files
                    await self._consider(files, adopt)
            except Exception as defect:  # noqa: BLE001 - whatever we did wrong, the next set may be a good one
                self._metrics.policies_read(Refusal.INVALID)
                self._log.error("defect", error=type(defect).__name__)

    async def _settled(self, *, is_asked: bool) -> Files:
        files = await asyncio.to_thread(read, self._settings.policies)
        while not is_asked and files != self._seen:
            await asyncio.sleep(_SETTLE_S)
            again, files = files, await asyncio.to_thread(read, self._settings.policies)
            if again == files:
                break
        return files

    async def _consider(self, files: Files, adopt: Callable[[PolicySet], None]) -> None:
        if files.digest == self.current.digest and not files.problems:
            self._metrics.policies_read(Reading.UNCHANGED)
            self._log.info("policies are unchanged", digest=self.current.digest)
            return
        try:
            policies = await asyncio.to_thread(self._usable, files)
        except PolicyFilesError as error:
            self._refuse(error)
            return
        self.current = policies
        adopt(policies)
        self._metrics.policies_read(Reading.ADOPTED)
        self._metrics.policies_in_force(policies.digest, "directory")
        self._log.info(
            "policies are in force",
            digest=policies.digest,
            policies=len(policies.policies),
            callers=len(policies.callers),
        )
        try:
            await asyncio.to_thread(self._keep, files)
        except OSError as error:
            self._log.warning("policies are not kept", notice=self._not_kept(error))

    def _usable(self, files: Files) -> PolicySet:
        policies = parse(files)
        refuse_exposure(policies, self._settings)
        return policies

    def _restored(self, error: PolicyFilesError) -> PolicySet:
        """Fall back on what was kept. Raises the error itself where that is of no use either."""
        place = self._settings.policies_last_good
        files = kept(place, self._settings.policies) if place is not None else None
        if files is None:
            raise error
        try:
            policies = self._usable(files)
        except PolicyFilesError:
            raise error from None
        self._refuse(error)
        self._metrics.policies_in_force(policies.digest, "last_good")
        self._log.warning("the last good policies are in force", digest=policies.digest)
        return policies

    def _refuse(self, error: PolicyFilesError) -> None:
        self._metrics.policies_read(error.refusal)
        for problem in error.problems[:_PROBLEMS_SHOWN]:
            self._log.warning("policies cannot be used", reason=error.refusal.value, notice=str(problem))
        if len(error.problems) > _PROBLEMS_SHOWN:
            left = len(error.problems) - _PROBLEMS_SHOWN
            self._log.warning("policies cannot be used", notice=f"and {left} more: eligibility-gateway check")

    def _keep(self, files: Files) -> None:
        if self._settings.policies_last_good is not None:
            keep(self._settings.policies_last_good, files)

    def _not_kept(self, error: OSError) -> str:
        found = f"{self._settings.policies_last_good} ({error.strerror})"
        return f"{variable('policies_last_good')}: found {found}, expected a directory to write to"


def refuse_exposure(policies: PolicySet, settings: Settings) -> None:
    """Nobody beyond this machine comes in without credentials, unless that is wanted. Raises PolicyFilesError."""
    if ANONYMOUS not in policies.callers or settings.listen.is_loopback or settings.allow_public_anonymous:
        return
    source = policies.caller_sources[ANONYMOUS]
    file, _, line = source.place("callers", ANONYMOUS).rpartition(":")
    problem = Problem(
        file,
        int(line),
        "",
        f"the caller 'anonymous' with a listener beyond this machine ({settings.listen})",
        f"callers with secrets, or {variable('allow_public_anonymous')}=true where the network is the boundary",
    )
    raise PolicyFilesError([problem], Refusal.EXPOSED)
