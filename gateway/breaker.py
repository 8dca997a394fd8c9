"""When to leave Redis alone.

Rules
- So many failures in a row open the breaker: for a while nobody waits for a server that does not answer.
- Then one attempt goes through, and tells for all: it closes the breaker, or opens it again.
- An attempt whose end is never told does not keep the breaker open for ever.
"""

from collections.abc import Callable
from typing import Final

FAILURES: Final = 5
OPEN_S: Final = 5.0


class Breaker:
    """Counts failures in a row. `jitter` returns from 0 to 1, so that replicas do not come back as one.

    `on_change` is told when it opens (True) and when it closes.
    """

    def __init__(
        self,
        now: Callable[[], float],
        jitter: Callable[[], float],
        on_change: Callable[[bool], None],
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._on_change = on_change
        self._failures = 0
        self._closed_from = 0.0

    def admits(self) -> bool:
        """Whether an attempt may be made; of those after a pause, the first holds back the others."""
        if self._failures < FAILURES:
            return True
        if self._now() < self._closed_from:
            return False
        self._pause()
        return True

    def succeeded(self) -> None:
        """Redis answered."""
        if self._failures >= FAILURES:
            self._on_change(False)  # noqa: FBT003 - what it is told
        self._failures = 0

    def failed(self) -> None:
        """Redis did not answer, or can do nothing for anybody."""
        self._failures += 1
        if self._failures == FAILURES:
            self._on_change(True)  # noqa: FBT003 - what it is told
        if self._failures >= FAILURES:
            self._pause()

    def _pause(self) -> None:
        self._closed_from = self._now() + OPEN_S * (0.75 + self._jitter() / 2)
