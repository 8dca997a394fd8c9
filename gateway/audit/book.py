"""Who is told of each record on behalf of the trail, also where there is none."""

from collections.abc import Callable
from datetime import datetime

from gateway.audit.entries import of_call, of_event, of_recovery, of_request
from gateway.audit.tag import Tags
from gateway.audit.trail import End, Trail
from gateway.exchange import CallRecord, Exchange, Record, RecoveryRecord


class Book:
    """Makes entries of what happens; with no trail it makes none, and is never available."""

    def __init__(
        self, trail: Trail | None, tags: Tags | None, *, wall_now: Callable[[], datetime], on_end: Callable[[End], None]
    ) -> None:
        self._trail = trail
        self._tags = tags
        self._wall_now = wall_now
        self._on_end = on_end

    @property
    def is_available(self) -> bool:
        """Whether an entry that is made now will be written as it should be."""
        return self._trail is not None and self._trail.is_available

    @property
    def tag_question(self) -> Callable[[bytes], str] | None:
        """What makes the tag of a question of its canonical form, if anybody wants it."""
        return self._tags.question if self._tags is not None else None

    def tag_of(self, exchange: Exchange) -> str:
        """Return the tag of what a request without a question is about."""
        return self._tags.of(exchange) if self._tags is not None else ""

    def request(self, record: Record) -> None:
        """Make the entry of a finished request."""
        if self._trail is not None:
            self._trail.say(of_request(record, self._wall_now()), must_be_kept=record.must_be_audited)

    def call(self, call: CallRecord) -> None:
        """Make the entry of a call that its request no longer awaited."""
        if self._trail is not None and not call.is_awaited:
            self._trail.say(of_call(call, self._wall_now()))

    def recovery(self, record: RecoveryRecord) -> None:
        """Make the entry of a search for a submission that was cut."""
        if self._trail is not None:
            self._trail.say(of_recovery(record, self._wall_now()))

    def event(self, event: str, **facts: str | int | bool | None) -> None:
        """Make the entry of something that happened to the process."""
        if self._trail is not None:
            self._trail.say(of_event(event, self._wall_now(), **facts), must_be_kept=True)

    def look(self) -> None:
        """Have the file opened anew if it was moved away."""
        if self._trail is not None:
            self._trail.look()

    async def close(self) -> None:
        """End the trail with a last word."""
        if self._trail is not None:
            self._on_end(await self._trail.close())
