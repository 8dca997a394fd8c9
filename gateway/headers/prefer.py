"""`Prefer: wait=N`: for how long a caller is willing to wait (RFC 7240, section 4.3).

Rules
- N is whole seconds; of several the first counts (section 2). What cannot be read is no preference, never an error.
- Less than one second is one second: in no time nothing could be asked, and so nothing be found on the retry.
"""

from collections.abc import Iterable
from typing import Final

_DIGITS_MAX: Final = 9
_LEAST_S: Final = 1.0


def shortened_s(limit_s: float, values: Iterable[str]) -> float:
    """Return how long to wait at most: the limit, or less where `Prefer` headers ask for less."""
    for value in values:
        for preference in value.split(","):
            name, _, stated = preference.partition(";")[0].partition("=")
            seconds = stated.strip().strip('"')
            if name.strip().lower() == "wait" and seconds.isascii() and seconds.isdigit():
                return min(max(float(seconds.lstrip("0")[:_DIGITS_MAX] or 0), _LEAST_S), limit_s)
    return limit_s
