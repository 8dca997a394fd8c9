"""What a caller is told of an error: one JSON shape (RFC 9457), and the root of those that state one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final

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


class GatewayError(Exception):
    """The root. A subclass states its code, status and sentences; an instance may add a wait and headers."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    hint: ClassVar[str]
    source: ClassVar[Source]
    retry_safe: ClassVar[bool]
    content_type: ClassVar[str] = PROBLEM_CONTENT_TYPE

    def __init__(
        self,
        *,
        retry_after_s: int | None = None,
        upstream_correlation_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.code)
        self.retry_after_s = retry_after_s
        self.upstream_correlation_id = upstream_correlation_id  # of the request that was sent, where it was another's
        self.headers: Mapping[str, str] = MappingProxyType(dict(headers or {}))

    @property
    def problem(self) -> Problem:
        """The problem document of this error, with `Retry-After` and `Connection` where they apply."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return Problem(
            code=self.code,
            status=self.status,
            title=self.title,
            hint=self.hint,
            source=self.source,
            retry_safe=self.retry_safe,
            retry_after_s=self.retry_after_s,
            upstream_correlation_id=self.upstream_correlation_id,
            headers=MappingProxyType(headers),
        )

    def document(self, correlation_id: str) -> Mapping[str, str | int | bool]:
        """The JSON members of the reply."""
        return self.problem.document(correlation_id)
