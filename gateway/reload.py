"""Which policies are in force while the process runs, from the directory to whoever uses them.

Rules
- A set is checked whole, and takes the place of the other between two requests. One that cannot be used is refused, and
  said once; the last good one stays, also across a restart where there is a place to keep it.
- The directory is read again and again, not watched: a ConfigMap swaps a link and a network file system tells nobody,
  and neither matters to whoever compares what stands there. What is new counts when it has stood still for a moment:
  of three files that are copied two may be a good set as well. But whoever writes without end is not waited for.
- SIGHUP: at once, and in any case with a word.
- A file system that does not answer holds up neither requests nor the end of the process, and is said like a file that
  cannot be read: somebody who was taken away may be waiting for that to count.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.aside import Aside, Hanging
from gateway.policy.callers import ANONYMOUS
from gateway.policy.documents import PolicyFilesError, Problem, Reading, Refusal
from gateway.policy.explain import describe
from gateway.policy.files import Files, PolicySet, parse, read
from gateway.policy.last_good import keep, kept
from gateway.settings import Settings, variable
from gateway.start import StartError
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics

_SETTLE_S: Final = 0.5
_SETTLE_ROUNDS: Final = 20
LIMIT_S: Final = 30.0
_PROBLEMS_SHOWN: Final = 50

T = TypeVar("T")


class Policies:
    """The policies in force, and the watch over the directory from which they come."""

    def __init__(
        self, settings: Settings, metrics: Metrics, log: Log, new_id: Callable[[], str], limit_s: float = LIMIT_S
    ) -> None:
        self._settings = settings
        self._limit_s = limit_s
        self._metrics = metrics
        self._log = log
        self._new_id = new_id
        self._asked = asyncio.Event()
        self._aside = Aside("policies", limit_s)
        self._seen: Files | None = None
        self._refused: tuple[str, ...] = ()
        self._origin = ""
        self.current: PolicySet

    async def open(self) -> None:
        """Read them.

        Raises PolicyFilesError where neither the directory nor what was kept can be used, and StartError where nothing
        can be kept.
        """
        try:
            self._seen = await self._in_time(partial(read, self._settings.policies))
            policies = await self._in_time(partial(self._usable, self._seen))
        except PolicyFilesError as error:
            self._take(self._restored(error), "last_good")
            self._refuse(error)
            self._log.warning("the last good policies are in force", digest=self.current.digest)
            return
        if (trouble := await self._kept(self._seen)) is not None:
            raise StartError(trouble)
        self._take(policies, "directory")
        self._metrics.policies_read(Reading.ADOPTED)

    def look(self) -> None:
        """Have `watch` read the directory now, and say what came of it."""
        self._asked.set()

    def describe(self) -> dict[str, object]:
        """What is in force and where it is from, and why what stands in the directory is not."""
        return {"origin": self._origin, "refused": list(self._refused), **describe(self.current)}

    async def watch(self, adopt: Callable[[PolicySet], None]) -> None:
        """Until cancelled, hand over each set that takes the place of another."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.policies_poll_s or None):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                files = await self._settled()
                if is_asked or files != self._seen:
                    self._seen = files
                    await self._consider(files, adopt)
            except PolicyFilesError as error:
                if isinstance(error, _Silent):
                    self._seen = None  # whatever stands there is looked at when it answers again
                if is_asked or self._refused != _sentences(error):
                    self._refuse(error)
            except Exception as defect:  # noqa: BLE001 - whatever we did wrong, the next set may be a good one
                self._metrics.policies_read(Refusal.INVALID)
                self._log.error("defect", error=type(defect).__name__)

    async def _settled(self) -> Files:
        reading = partial(read, self._settings.policies)
        files = await self._in_time(reading)
        for _ in range(_SETTLE_ROUNDS):
            if files == self._seen:
                break
            await asyncio.sleep(_SETTLE_S)
            earlier, files = files, await self._in_time(reading)
            if earlier == files:
                break
        return files

    async def _consider(self, files: Files, adopt: Callable[[PolicySet], None]) -> None:
        """Let a set take the place of the one in force, if it is another. Raises PolicyFilesError."""
        if files.digest == self.current.digest and not files.problems:
            self._take(self.current, "directory")
            self._metrics.policies_read(Reading.UNCHANGED)
            self._log.info("policies are unchanged", digest=self.current.digest)
            return
        policies = await self._in_time(partial(self._usable, files))
        # Kept first: if the process dies in between, whoever was taken away does not come back with it.
        if (trouble := await self._kept(files)) is not None:
            self._log.warning("policies are not kept", notice=trouble)
        adopt(policies)
        self._take(policies, "directory")
        self._metrics.policies_read(Reading.ADOPTED)
        self._log.info(
            "policies are in force",
            digest=policies.digest,
            policies=len(policies.policies),
            callers=len(policies.callers),
        )

    def _take(self, policies: PolicySet, origin: str) -> None:
        self.current, self._origin, self._refused = policies, origin, ()
        self._metrics.policies_in_force(policies.digest, origin)

    def _usable(self, files: Files) -> PolicySet:
        policies = parse(files)
        refuse_exposure(policies, self._settings)
        refuse_unaudited(policies, self._settings)
        return policies

    def _restored(self, error: PolicyFilesError) -> PolicySet:
        """Fall back on what was kept. Raises the error itself where that is of no use either."""
        place = self._settings.policies_last_good
        files = kept(place, self._settings.policies) if place is not None else None
        if files is None:
            raise error
        try:
            return self._usable(files)
        except PolicyFilesError:
            raise error from None

    def _refuse(self, error: PolicyFilesError) -> None:
        self._refused = _sentences(error)
        self._metrics.policies_read(error.refusal)
        for sentence in self._refused[:_PROBLEMS_SHOWN]:
            self._log.warning("policies cannot be used", reason=error.refusal.value, notice=sentence)
        if len(self._refused) > _PROBLEMS_SHOWN:
            left = len(self._refused) - _PROBLEMS_SHOWN
            self._log.warning("policies cannot be used", notice=f"and {left} more: eligibility-gateway check")

    async def _kept(self, files: Files) -> str | None:
        """Keep a good set where that is wanted; return what hinders that."""
        place = self._settings.policies_last_good
        if place is None:
            return None
        try:
            await self._in_time(partial(keep, place, files, self._new_id()))
        except OSError as error:
            trouble = error.strerror
        except PolicyFilesError:
            trouble = "no answer"
        else:
            return None
        return f"{variable('policies_last_good')}: found {place} ({trouble}), expected a directory to write to"

    async def _in_time(self, work: Callable[[], T]) -> T:
        """Do what may block. Raises _Silent if it takes too long."""
        try:
            return await self._aside.do(work)
        except Hanging:
            raise _Silent(self._settings.policies, self._limit_s) from None


class _Silent(PolicyFilesError):
    """The file system does not answer."""

    def __init__(self, directory: Path, limit_s: float) -> None:
        found, expected = f"no answer within {limit_s:g} s", "files that can be read and checked"
        super().__init__([Problem(str(directory.absolute()), 0, "", found, expected)], Refusal.UNREADABLE)


def _sentences(error: PolicyFilesError) -> tuple[str, ...]:
    return tuple(str(problem) for problem in error.problems)


def refuse_unaudited(policies: PolicySet, settings: Settings) -> None:
    """No policy wants every request in a trail that is not there. Raises PolicyFilesError."""
    if settings.audit is not None:
        return
    problems = [
        policies.sources[policy.name].problem(
            "'reject' without an audit trail",
            f"'proceed', or {variable('audit')} that says where it is written",
            *("audit", "unavailable"),
        )
        for policy in policies.policies
        if policy.audit.unavailable == "reject"
    ]
    if problems:
        raise PolicyFilesError(problems, Refusal.UNAUDITED)


def refuse_exposure(policies: PolicySet, settings: Settings) -> None:
    """Nobody beyond this machine comes in without credentials, unless that is wanted. Raises PolicyFilesError."""
    if ANONYMOUS not in policies.callers or settings.listen.is_loopback or settings.allow_public_anonymous:
        return
    problem = policies.caller_sources[ANONYMOUS].problem(
        f"the caller 'anonymous' with a listener beyond this machine ({settings.listen})",
        f"callers with secrets, or {variable('allow_public_anonymous')}=true where the network is the boundary",
        *("callers", ANONYMOUS),
    )
    raise PolicyFilesError([replace(problem, path="")], Refusal.EXPOSED)
