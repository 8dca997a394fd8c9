"""Simulated time: the event loop's clock, run faster.

Rules
- Simulated seconds go in and come out; only this module divides by the speed.
- Dates in answers are not simulated: callers filter by the calendar that they share with us.
"""

import asyncio
from datetime import UTC, datetime


class Clock:
    """One clock per simulator. `speed` 60 makes a simulated minute take one second."""

    __slots__ = ("_speed",)

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def now_s(self) -> float:
        """Give the simulated seconds since a point that stays the same while the loop runs."""
        return asyncio.get_running_loop().time() * self._speed

    def real_s(self, simulated_s: float) -> float:
        """Say how long a simulated duration really takes."""
        return simulated_s / self._speed

    async def sleep(self, simulated_s: float) -> None:
        """Let simulated time pass."""
        await asyncio.sleep(self.real_s(simulated_s))

    def timeout(self, simulated_s: float | None) -> asyncio.Timeout:
        """Cancel the block after so much simulated time; None never does."""
        return asyncio.timeout(None if simulated_s is None else self.real_s(simulated_s))

    @staticmethod
    def date() -> datetime:
        """Give the calendar's instant, in UTC."""
        return datetime.now(UTC)
