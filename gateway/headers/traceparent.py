"""`traceparent`: where a request stands in a distributed trace (W3C Trace Context, level 1).

Rules
- The header passes upstream as it came, and is read here for telemetry alone. What is malformed is no trace.
- Later versions may add fields behind the flags; version ff, and ids of zeros alone, are invalid (section 3.2.2).
"""

import re
from collections.abc import Sequence
from typing import Final

from gateway.exchange import Trace

_FORM: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


def trace_of(values: Sequence[str]) -> Trace | None:
    """Return the trace that a request belongs to, if it names exactly one."""
    if len(values) != 1 or (found := _FORM.fullmatch(values[0])) is None:
        return None
    if found[1] == "00" and found[5] is not None:
        return None
    return Trace(found[2], found[3], bool(int(found[4], 16) & _SAMPLED))
