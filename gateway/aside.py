"""Work that may block, such as reading files, in a thread that nobody waits for in the end."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Hanging(Exception):
    """It has not ended in time, or what was begun before it has not ended yet."""


class Aside:
    """One thread at a time; one that hangs is enough."""

    def __init__(self, name: str, limit_s: float) -> None:
        self._name = name
        self._limit_s = limit_s
        self._hanging: threading.Thread | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Return what it returns, and raise what it raises. Raises Hanging if it takes longer than `limit_s`."""
        if self._hanging is None or not self._hanging.is_alive():
            ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            aside = threading.Thread(target=_carry_out, args=(work, ended), name=self._name, daemon=True)
            aside.start()
            try:
                async with asyncio.timeout(self._limit_s):
                    return await ended
            except TimeoutError:
                if ended.done() and not ended.cancelled():
                    raise  # the work's own
                self._hanging = aside
        raise Hanging


def _carry_out(work: Callable[[], T], ended: "asyncio.Future[T]") -> None:
    def tell(how: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there any more
            ended.get_loop().call_soon_threadsafe(lambda: None if ended.done() else how())

    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
        tell(partial(ended.set_exception, error))
    else:
        tell(partial(ended.set_result, result))
