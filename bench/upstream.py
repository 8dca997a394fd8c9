"""The scripted upstream: as little work per request as Python allows, so that the proxy is what is measured.

Facts
- It issues one token, and answers everything that bears it with the same 12 KB: at once, or after `--delay`
  seconds where the target asks to be held.
- `GET /metrics` says how many requests it holds: by this the load knows that a proxy holds them all.
- It prints its port, on one line, once it listens.
"""

import argparse
import asyncio
import json
import signal
from typing import Final, cast

import uvloop

from bench.messages import HELD_METRIC, PATH_HELD, TOKEN, TOKEN_PATH, eligibility_reply, reply, whole

_BACKLOG: Final = 8192
_TOKEN_LINE: Final = f"POST {TOKEN_PATH} ".encode()
_METRICS_LINE: Final = b"GET /metrics "
_HELD_LINE: Final = f"POST {PATH_HELD} ".encode()
_BEARER: Final = f"\r\nauthorization: bearer {TOKEN}\r\n".lower().encode()
_GRANT: Final = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}


class Upstream:
    """What all connections share: the replies, made once, and the number of requests that wait for one."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.held = 0
        self.answer = eligibility_reply()
        self.token = reply("200 OK", json.dumps(_GRANT).encode())
        self.refusal = reply("401 Unauthorized", b'{"message":"no token, or another one"}')

    def reply_to(self, message: bytes, head_bytes: int) -> bytes:
        """Return the reply to a request."""
        if message.startswith(_TOKEN_LINE):
            return self.token
        if message.startswith(_METRICS_LINE):
            return reply("200 OK", f"{HELD_METRIC} {self.held}\n".encode())
        return self.answer if _BEARER in message[:head_bytes].lower() else self.refusal


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
        """Answer, now or later, once a request is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        while (found := whole(self._buffer)) is not None:
            head_bytes, end = found
            message, self._buffer = self._buffer[:end], self._buffer[end:]
            answer = self._upstream.reply_to(message, head_bytes)
            if answer is self._upstream.answer and message.startswith(_HELD_LINE):
                self._upstream.held += 1
                asyncio.get_running_loop().call_later(self._upstream.delay_s, self._release, answer)
            else:
                self._write(answer)

    def _release(self, answer: bytes) -> None:
        self._upstream.held -= 1
        self._write(answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(delay_s: float) -> None:
    """Listen on a port that the system chooses, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    upstream = Upstream(delay_s)
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()
    server.close()


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer that is to be held")
    delay_s: float = parser.parse_args().delay
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(delay_s))


if __name__ == "__main__":
    main()
