"""A wire to Redis that a test may hurt: replies lost after the command was carried out, latency, bytes one by one."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

CUT, SILENT, UNSENT = "cut", "silent", "unsent"


@dataclass(slots=True)
class _Loss:
    """What happens to the next command in which `mark` stands."""

    mark: bytes
    how: str
    happened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    loss: _Loss | None = None  # from here on the client hears nothing

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Stands between a gateway and the server at `url`; what it does may be changed while bytes pass."""

    def __init__(self, url: str, seed: int = 7) -> None:
        self._place = urlsplit(url)
        self._chance = random.Random(seed)  # noqa: S311 - any will do
        self._losses: list[_Loss] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.url = ""
        self.latency_s = 0.0
        self.jitter_s = 0.0
        self.is_slicing = False
        self.chunks = 0  # from clients

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "redis://{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose(self, mark: bytes | str, how: str) -> asyncio.Event:
        """Lose the reply to the next command with this mark; return what is set when that has happened.

        CUT: the command is carried out, then the connection ends. SILENT: it stays, and says nothing more.
        UNSENT: the connection ends before the command is carried out.
        """
        loss = _Loss(mark.encode() if isinstance(mark, str) else mark, how)
        self._losses.append(loss)
        return loss.happened

    def cut(self) -> None:
        """End every connection."""
        for link in tuple(self._links):
            link.cut()

    def stop(self) -> None:
        """Let no byte pass; connections are accepted all the same."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(self._forth(link, reader), self._back(link, from_server))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            link.cut()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._place.scheme == "unix":
            return await asyncio.open_unix_connection(self._place.path)
        return await asyncio.open_connection(self._place.hostname, self._place.port)

    async def _forth(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(65536):
            self.chunks += 1
            for loss in self._losses:
                if loss.mark in chunk:
                    self._losses.remove(loss)
                    link.loss = loss
                    break
            if link.loss is not None and link.loss.how == UNSENT:
                link.loss.happened.set()
                break
            await self._pass(chunk, link.server)
        link.cut()

    async def _back(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(65536):
            if link.loss is None:
                await self._pass(chunk, link.client)
                continue
            link.loss.happened.set()
            if link.loss.how == CUT:
                break
        link.cut()

    async def _pass(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        if self.latency_s or self.jitter_s:
            await asyncio.sleep(self.latency_s + self._chance.random() * self.jitter_s)
        await self._flowing.wait()
        for part in (bytes([byte]) for byte in chunk) if self.is_slicing else (chunk,):
            writer.write(part)
            await writer.drain()
            if self.is_slicing:
                await asyncio.sleep(0)  # whoever reads comes first, and finds one byte
