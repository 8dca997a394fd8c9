"""What is under way in this process, seen while it lasts.

Rules
- `waiting` holds a request from its head to the end of its reply; `led` holds one from the beginning of the work that
  its flight owns to its end. One that is led and waits no more was answered without its answer, or its caller left.
- Nothing is removed by whoever did not add it. What is in neither any more is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.exchange import Exchange


@dataclass(slots=True)
class InFlight:
    """The exchanges under way; telemetry reads them when it is asked."""

    waiting: set[Exchange] = field(default_factory=set)
    led: set[Exchange] = field(default_factory=set)
    on_over: Callable[[Exchange], None] = lambda _: None
    on_left: Callable[[Exchange], None] = lambda _: None

    def answered(self, exchange: Exchange) -> None:
        """Its reply has left, or its caller has."""
        self.waiting.discard(exchange)
        if exchange not in self.led:
            self.on_over(exchange)

    def landed(self, exchange: Exchange) -> None:
        """The work that its flight owned has ended."""
        self.led.discard(exchange)
        if exchange not in self.waiting:
            self.on_over(exchange)
