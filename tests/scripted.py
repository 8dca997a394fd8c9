"""An upstream made of bytes: it keeps every request as it came, and answers with exactly what it is told."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from tests.running import eventually, url_of

TOKEN_REPLY = b'{"access_token":"scripted-token","token_type":"bearer","expires_in":3600}'


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it stood on the wire."""

    line: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.headers if key.decode().lower() == name.lower()]


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def reply(
    status: str = "200 OK",
    body: bytes = b"{}",
    headers: tuple[str, ...] = ("Content-Type: application/json",),
) -> bytes:
    """A whole reply with a Content-Length."""
    head = "\r\n".join((f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"))
    return head.encode("latin-1") + b"\r\n\r\n" + body


def once(release: asyncio.Event, raw: bytes) -> Answer:
    """An answer that is given once it is released."""

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(raw)

    return answer


@dataclass(slots=True)
class ScriptedUpstream:
    """`raw` is written for every request but those for a token; `answer`, where set, does it instead."""

    raw: bytes = field(default_factory=reply)
    answer: Answer | None = None
    token_reply: bytes = field(default_factory=lambda: reply(body=TOKEN_REPLY))
    requests: list[Request] = field(default_factory=list)
    tokens: int = 0
    connections: int = 0
    url: str = ""
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.url = url_of(self._server)
        if self.tls is not None:
            self.url = self.url.replace("http://127.0.0.1", "https://localhost")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def hang_up(self) -> None:
        """Close every connection, and return when that is done."""
        for writer in tuple(self._writers):
            writer.transport.abort()

        async def are_closed() -> bool:
            return not self._writers

        await eventually(are_closed)

    async def is_asked(self, times: int = 1) -> None:
        """Return when so many requests have arrived."""

        async def has_them() -> bool:
            return len(self.requests) >= times

        await eventually(has_them, 40)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                request = await _read(reader)
                if b"/apip/auth/v2/token" in request.line:
                    self.tokens += 1
                    writer.write(self.token_reply)
                    continue
                self.requests.append(request)
                if self.answer is not None:
                    await self.answer(request, writer)
                else:
                    writer.write(self.raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head[:-4].split(b"\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (one.partition(b":") for one in rest))
    length = next((int(value) for name, value in headers if name.lower() == b"content-length"), 0)
    return Request(line, headers, await reader.readexactly(length))
