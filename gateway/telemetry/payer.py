"""Which payer a request asks, as a label: one of a policy's list, else `other`.

Rules
- Only a value of the list ever leaves here: what a caller writes becomes no time series and stands in no log.
- A submission names its payer in `tradingPartnerServiceId` (JSON), or in NM109 of the segment NM1*PR (X12), whose
  separator is the character after NM1. Found by searching, not by parsing: a label is worth no more.
"""

import re
from typing import Final

from gateway.exchange import OTHER_PAYER

_JSON: Final = re.compile(rb'"tradingPartnerServiceId"\s*:\s*"([^"\\]{1,80})"')
_X12: Final = re.compile(rb"NM1([^A-Za-z0-9\"\\])PR\1")
_ID: Final = re.compile(rb"[A-Za-z0-9 ._-]{1,80}")
_NM109: Final = 7  # counted from NM102
_SEGMENT_BYTES: Final = 400


def payer_of(body: bytes, payers: frozenset[str]) -> str:
    """Return the payer that a submission names, if it is one of these; else `other`."""
    named = _named(body) if payers else None
    if named is None:
        return OTHER_PAYER
    payer = named.decode("ascii", "replace").strip()
    return payer if payer in payers else OTHER_PAYER


def _named(body: bytes) -> bytes | None:
    stated = _JSON.search(body)
    if stated is not None:
        return stated[1]
    segment = _X12.search(body)
    if segment is None:
        return None
    elements = body[segment.end() : segment.end() + _SEGMENT_BYTES].split(segment[1], _NM109)
    found = _ID.match(elements[_NM109]) if len(elements) > _NM109 else None
    return found[0] if found is not None else None
