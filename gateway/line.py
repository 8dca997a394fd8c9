"""One line to one server of Redis, with any number of batches of commands under way on it at once.

Facts
- Redis answers in the order in which it was asked: an answer belongs to a question by its place alone. So a connection
  on which a place may have been lost is closed; whoever leaves keeps its place.
- redis-py makes the connection: TLS, HELLO, AUTH, SELECT, Sentinel. Its own way of asking costs more than all else that
  a request does, so it is asked no more once the connection is there.

Rules
- Every batch ends within its time: with an answer to each command, or lost, and why. One that had to wait for its
  connection may be lost before Redis is late: its answer still has its place, and the connection is as good as new.
- A batch whose answers were lost with their connection is sent once more on the next one: only what may be repeated
  is sent here.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

CONNECT_S: Final = 1.0  # with TLS, AUTH and a Sentinel to be asked; a batch waits no longer than its own time
_SENDS: Final = 2
_INSIST_S: Final = 0.1
_SLACK_S: Final = 0.005  # two instants that were meant to be one; too little time to ask again
_NOT_YET: Final = object()
_DEMOTED: Final = ("READONLY", "MASTERDOWN")  # a primary that became a replica: the next connection finds the new one

Answers = list[Any]  # bytes, int, None, lists of them, or hiredis.ReplyError


class Batch:
    """Commands that travel together; `ended` is called once, with an answer to each or with why there is none."""

    __slots__ = ("answers", "ended", "give_up_at", "packed", "sends", "sent_at", "size")

    def __init__(
        self,
        packed: bytes,
        size: int,
        give_up_at: float,
        ended: Callable[[Answers | BaseException], None],
    ) -> None:
        self.packed = packed
        self.size = size
        self.give_up_at = give_up_at
        self.ended = ended
        self.answers: Answers = []
        self.sends = 0
        self.sent_at = math.inf

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.give_up_at == math.inf

    def give_up(self, error: BaseException) -> None:
        """End it without its answers, which nobody hears when they come."""
        self.ended(error)
        self.ended, self.give_up_at = _unheard, math.inf


class _Session(asyncio.Protocol):
    """A connection from when we take it over to its end; `sent` is what still has its place on it."""

    def __init__(self, connection: AbstractConnection, on_end: Callable[["_Session", BaseException], None]) -> None:
        writer = connection._writer  # noqa: SLF001 - redis-py shows it to nobody
        if writer is None:
            raise ConnectionError
        self.connection = connection
        self.sent: deque[Batch] = deque()
        self._on_end = on_end
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._is_demoted = False
        self._is_over = False
        self._transport = cast("asyncio.Transport", writer.transport)  # TCP, TLS and unix sockets have no other
        self._former = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def send(self, batch: Batch) -> None:
        batch.sends += 1
        batch.sent_at = asyncio.get_running_loop().time()
        self.sent.append(batch)
        self._transport.write(batch.packed)

    def end(self, error: BaseException) -> None:
        if not self._is_over:
            self._is_over = True
            self._transport.abort()
            self._on_end(self, error)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while not self._is_over and (answer := self._reader.gets()) is not _NOT_YET:
                if not isinstance(answer, hiredis.PushNotification):  # those come unasked, and have no place
                    self._answered(answer)
        except (hiredis.ProtocolError, LookupError) as error:  # no Redis, or more answers than questions
            self.end(error)
        if self._is_demoted and not self.sent:
            self.end(ConnectionError())

    def connection_lost(self, exc: Exception | None) -> None:
        self._former.connection_lost(exc)  # redis-py waits to hear it
        self.end(exc or ConnectionError())

    def _answered(self, answer: Any) -> None:  # noqa: ANN401 - whatever Redis says
        batch = self.sent[0]
        batch.answers.append(answer)
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith(_DEMOTED):
            self._is_demoted = True
        if len(batch.answers) == batch.size:
            self.sent.popleft()
            batch.ended(batch.answers)


class Line:
    """Opens a connection when there is something to send, and another when that one was cut."""

    def __init__(self, pool: ConnectionPool, answer_s: float) -> None:
        """`answer_s`: Redis answers within that time, or its connection is given up."""
        self._pool = pool
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Batch] = []
        self._session: _Session | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def send(self, batch: Batch) -> None:
        """Send a batch as soon as there is a connection."""
        if self._is_closed:
            batch.ended(ConnectionError())
            return
        if self._session is not None:
            self._session.send(batch)
        else:
            self._waiting.append(batch)
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
        if self._timer is None:
            self._timer = self._loop.call_at(batch.give_up_at, self._look)

    async def close(self) -> None:
        """Close the connection; what is under way is lost."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._opening is not None and not self._opening.done():
            self._opening.cancel()  # again, if need be: redis-py may swallow it while it connects
            await asyncio.wait({self._opening}, timeout=_INSIST_S)
        if self._session is not None:
            self._session.end(ConnectionError())
        self._lose_waiting(ConnectionError())
        if self._closing:
            await asyncio.wait(self._closing)

    async def _open(self) -> None:
        failed: Exception | None = None
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
        try:
            async with asyncio.timeout(max(CONNECT_S, self._answer_s)):
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py's
            self._session = _Session(connection, self._ended)
        except Exception as error:  # noqa: BLE001 - redis-py raises more than its own errors
            await connection.disconnect(nowait=True)
            failed = error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        else:
            waiting, self._waiting = self._waiting, []
            for batch in waiting:
                self._session.send(batch)
        finally:
            self._opening = None
        if failed is not None and not is_timeout(failed):
            self._lose_waiting(failed)
        elif self._waiting and not self._is_closed:  # they wait for as long as they may
            self._opening = self._loop.create_task(self._open())

    def _ended(self, session: _Session, error: BaseException) -> None:
        """Send once more what was not answered and has time left."""
        self._session = None
        closing = self._loop.create_task(session.connection.disconnect(nowait=True))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        now = self._loop.time()
        lost: list[Batch] = []
        for batch in session.sent:
            if self._is_closed or batch.is_given_up or batch.sends >= _SENDS or batch.give_up_at <= now + _SLACK_S:
                lost.append(batch)
            else:
                batch.answers.clear()
                batch.sent_at = math.inf
                self.send(batch)
        _lose(lost, error)

    def _look(self) -> None:
        """Lose what has waited for too long; where an answer is overdue, a place may have been lost."""
        self._timer = None
        now = self._loop.time()
        sent = tuple(self._session.sent) if self._session is not None else ()
        if self._session is not None and any(now - batch.sent_at >= self._answer_s - _SLACK_S for batch in sent):
            self._session.end(TimeoutError())
        else:
            for batch in sent:
                if batch.give_up_at <= now:
                    batch.give_up(TimeoutError())
        overdue = [batch for batch in self._waiting if batch.give_up_at <= now]
        self._waiting = [batch for batch in self._waiting if batch.give_up_at > now]
        _lose(overdue, TimeoutError())
        under_way = [*self._waiting, *(self._session.sent if self._session is not None else ())]
        if under_way and self._timer is None:
            self._timer = self._loop.call_at(min(self._look_at(batch) for batch in under_way), self._look)

    def _look_at(self, batch: Batch) -> float:
        """When something is to be done for a batch that is under way."""
        return min(batch.give_up_at, batch.sent_at + self._answer_s)

    def _lose_waiting(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, []
        _lose(waiting, error)


def _unheard(_: Answers | BaseException) -> None:
    pass


def is_timeout(error: BaseException) -> bool:
    """Whether somebody did not answer in time, also while redis-py connects."""
    return isinstance(error, TimeoutError | RedisTimeoutError) or isinstance(error.__context__, RedisTimeoutError)


def _lose(batches: Sequence[Batch], error: BaseException) -> None:
    for batch in batches:
        batch.ended(error)
