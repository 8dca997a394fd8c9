"""Carry out the `audit:` clause: whether a request may pass that cannot be audited.

First of all steps: what is refused here was neither replayed nor sent.
"""

from typing import Protocol

from gateway.errors import AuditUnavailable
from gateway.exchange import Exchange, Forward, Outbound, Reply

_RETRY_AFTER_S = 5


class Availability(Protocol):
    """What knows whether the trail can be written."""

    @property
    def is_available(self) -> bool:
        """Whether an entry that is said now will be written as it should be."""
        ...


class AuditStep:
    """After it, a request has room in the trail, or its policy lets it pass without."""

    def __init__(self, trail: Availability) -> None:
        self._trail = trail

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Let it pass, or raise AuditUnavailable."""
        if exchange.governing.audit.unavailable == "reject":
            if not self._trail.is_available:
                raise AuditUnavailable(retry_after_s=_RETRY_AFTER_S)
            exchange.must_be_audited = True
        return await forward(exchange, outbound)
