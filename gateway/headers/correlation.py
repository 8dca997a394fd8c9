"""The correlation id: kept if it is well formed, else made here.

Fact: the upstream stores it and finds transactions by it, so an id that is unique on every submission makes
a lost answer recoverable. Rule: what a caller sent is kept only if it can stand in a log, a header and a
query without being quoted; anything else, also two ids at once, is replaced.
"""

import re
from collections.abc import Callable, Sequence

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def choose_correlation_id(sent: Sequence[str], new_id: Callable[[], str]) -> str:
    """Return the one well-formed id that was sent, else a new one."""
    if len(sent) == 1 and _WELL_FORMED.fullmatch(sent[0]) is not None:
        return sent[0]
    return new_id()


def well_formed(value: str) -> str:
    """Return an id that may stand in a log, or nothing."""
    return value if _WELL_FORMED.fullmatch(value) is not None else ""
