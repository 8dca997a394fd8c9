"""How many sockets this process has open, and whether there is room for one more.

A request that leads holds two, its caller's and its call's; one that follows, or is answered from what is kept, holds
one. So it is not requests that are counted, but what runs out: the file descriptors.
"""


class Sockets:
    """Counts the open sockets of callers and to the upstream, and the calls that have one or are about to open one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.callers = 0
        self.upstream = 0
        self.calls = 0

    @property
    def is_full(self) -> bool:
        """Whether the last caller was one too many."""
        return self.callers + max(self.upstream, self.calls) > self.limit

    @property
    def has_call_left(self) -> bool:
        """Whether there is a socket for one more call: one that waits for it, or a new one."""
        return self.callers + max(self.upstream, self.calls + 1) <= self.limit
