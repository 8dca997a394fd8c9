"""What a caller is told of an error: one JSON shape (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

PROBLEM_CONTENT_TYPE: Final = "application/problem+json"
_PROBLEM_TYPE_PREFIX: Final = "urn:eligibility-gateway:problem:"


class Source(StrEnum):
    """Whose doing it is."""

    CALLER = "caller"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a caller is told: the members of an RFC 9457 problem document, and headers that go with it."""

    code: str
    status: int
    title: str
    hint: str
    source: Source
    retry_safe: bool
    retry_after_s: int | None = None
    upstream_correlation_id: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def document(self, correlation_id: str) -> dict[str, str | int | bool]:
        """Return the JSON members, `type` first."""
        document: dict[str, str | int | bool] = {
            "type": _PROBLEM_TYPE_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.hint,
            "code": self.code,
            "source": self.source.value,
            "retry_safe": self.retry_safe,
            "correlation_id": correlation_id,
        }
        if self.retry_after_s is not None:
            document["retry_after_s"] = self.retry_after_s
        if self.upstream_correlation_id:
            document["upstream_correlation_id"] = self.upstream_correlation_id
        return document
