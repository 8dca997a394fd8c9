"""The scripted upstream: as little work per request as Python allows, so that the proxy is what is measured.

Facts
- It issues one token, and answers everything that bears it with the same 12 KB: at once, or, where the target asks to
  be held, when `GET /release` comes.
- `GET /metrics` says how many requests it holds, by which the load knows that a proxy holds them all, and how many
  have come.
- It prints its port, on one line, once it listens.
"""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Final, cast

import uvloop

from bench.messages import (
    CALLS_METRIC,
    HELD_METRIC,
    PATH_HELD,
    PATH_RELEASE,
    TOKEN,
    TOKEN_PATH,
    eligibility_reply,
    reply,
    whole,
)

_BACKLOG: Final = 8192
_TOKEN_LINE: Final = f"POST {TOKEN_PATH} ".encode()
_METRICS_LINE: Final = b"GET /metrics "
_RELEASE_LINE: Final = f"GET {PATH_RELEASE} ".encode()
_HELD_LINE: Final = f"POST {PATH_HELD} ".encode()
_BEARER: Final = f"\r\nauthorization: bearer {TOKEN}\r\n".lower().encode()
_GRANT: Final = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}

Write = Callable[[bytes], None]


class Upstream:
    """What all connections share: the replies, made once, and the requests that wait for one."""

    def __init__(self) -> None:
        self._held: list[Write] = []
        self._calls = 0
        self._answer = eligibility_reply()
        self._token = reply("200 OK", json.dumps(_GRANT).encode())
        self._refusal = reply("401 Unauthorized", b'{"message":"no token, or another one"}')

    def respond(self, message: bytes, head_bytes: int, write: Write) -> None:
        """Reply to a request, now or later."""
        if _BEARER in message[:head_bytes].lower():
            self._calls += 1
            self.answer(message, write)
        elif message.startswith(_TOKEN_LINE):
            write(self._token)
        elif message.startswith(b"GET "):
            write(reply("200 OK", self.told(message).encode()))
        else:
            write(self._refusal)

    def answer(self, message: bytes, write: Write) -> None:
        """Answer a call, now or later."""
        if message.startswith(_HELD_LINE):
            self._held.append(write)
        else:
            write(self._answer)

    def told(self, message: bytes) -> str:
        """Do what a GET asks for, and say what there is to say."""
        if message.startswith(_METRICS_LINE):
            return f"{HELD_METRIC} {len(self._held)}\n{CALLS_METRIC} {self._calls}\n"
        if message.startswith(_RELEASE_LINE):
            for write in self._held:
                write(self._answer)
            self._held.clear()
        return ""


class Connection(asyncio.Protocol):
    """One connection, kept alive; requests on it are answered one after the other."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # TCP has no other

    def data_received(self, data: bytes) -> None:
        """Respond once a request is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        while (found := whole(self._buffer)) is not None:
            head_bytes, end = found
            message, self._buffer = self._buffer[:end], self._buffer[end:]
            self._upstream.respond(message, head_bytes, self._write)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(upstream: Upstream) -> None:
    """Listen on a port that the system chooses, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()
    server.close()


def run(upstream: Upstream) -> None:
    """Run the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(upstream))


if __name__ == "__main__":
    run(Upstream())
