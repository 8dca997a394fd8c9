"""How many sockets this process has open, and whether there is room for one more.

A request that leads holds two, its caller's and its call's; one that follows, or is answered from what is kept, holds
one. So it is not requests that are counted, but what runs out: the file descriptors. Callers that ask nothing make room
for those who ask: the one that has been idle for longest is closed first.
"""

from typing import Protocol


class Caller(Protocol):
    """A caller's connection."""

    def abort(self) -> None:
        """Close it."""


class Sockets:
    """Counts the open sockets of callers and to the upstream, and the calls that have one or are about to open one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.callers = 0
        self.upstream = 0
        self.calls = 0
        self._idle: dict[Caller, None] = {}  # in the order in which they fell idle
        self._closing: set[Caller] = set()

    @property
    def is_full(self) -> bool:
        """Whether the last caller was one too many."""
        return self.callers + max(self.upstream, self.calls) > self.limit

    @property
    def has_call_left(self) -> bool:
        """Whether there is a socket for one more call: one that waits for it, or a new one."""
        return self.callers + max(self.upstream, self.calls + 1) <= self.limit

    def opened(self, caller: Caller) -> None:
        """Count a caller's connection; where it is one too many, another that is idle makes room."""
        self.callers += 1
        if self.is_full:
            self.make_room()
        self._idle[caller] = None

    def asks(self, caller: Caller) -> None:
        """Leave a connection alone while there is a request on it."""
        self._idle.pop(caller, None)

    def rests(self, caller: Caller) -> None:
        """Note that a connection is idle from now on."""
        if caller not in self._closing:
            self._idle[caller] = None

    def closed(self, caller: Caller) -> None:
        """Count a connection no more."""
        self._idle.pop(caller, None)
        if caller in self._closing:
            self._closing.discard(caller)
        else:
            self.callers -= 1

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, if there is one; it is counted no more at once."""
        longest = next(iter(self._idle), None)
        if longest is not None:
            del self._idle[longest]
            self._closing.add(longest)
            self.callers -= 1
            longest.abort()
