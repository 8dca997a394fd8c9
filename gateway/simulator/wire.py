"""Breaking an answer on the wire: below HTTP, where real connections break.

Rules
- The bytes are written to the transport directly, as no HTTP library would agree to write them.
- A connection used here is never used again.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
from http import HTTPStatus
from typing import Final

from gateway.simulator.exchange import Reply

_PIECES: Final = 20
_FLUSH_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.002


def reset(transport: asyncio.Transport) -> None:
    """Close with RST: what has not been sent is thrown away."""
    found = transport.get_extra_info("socket")
    if found is not None:
        # The option belongs to the socket, not to the descriptor: a copy works with every event loop.
        with socket.socket(fileno=os.dup(found.fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def reset_midway(transport: asyncio.Transport, reply: Reply, after_bytes: int | None) -> None:
    """Send the head and a part of the body, then RST."""
    transport.write(_head(reply) + _part(reply, after_bytes))
    await _until_received(transport)
    reset(transport)


def tear(transport: asyncio.Transport, reply: Reply, after_bytes: int | None) -> None:
    """Promise the whole body, send a part, and close in good order."""
    transport.write(_head(reply) + _part(reply, after_bytes))
    transport.close()


async def drip(transport: asyncio.Transport, reply: Reply, real_s: float) -> None:
    """Send the body in small pieces over so many real seconds."""
    transport.write(_head(reply))
    size = max(1, -(-len(reply.body) // _PIECES))
    for start in range(0, len(reply.body), size):
        await asyncio.sleep(real_s / _PIECES)
        transport.write(reply.body[start : start + size])
    transport.close()


def _head(reply: Reply) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"content-type: {reply.content_type}",
        f"content-length: {len(reply.body)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _part(reply: Reply, after_bytes: int | None) -> bytes:
    # At least one byte is held back: a whole body would be no fault.
    most = max(0, len(reply.body) - 1)
    return reply.body[: min(most, len(reply.body) // 2 if after_bytes is None else after_bytes)]


async def _until_received(transport: asyncio.Transport) -> None:
    """Wait until the peer's kernel has the bytes; RST would take back what is still on its way."""
    found = transport.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _FLUSH_S
    while not transport.is_closing() and loop.time() < give_up_at:
        unsent = struct.unpack("i", fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if unsent == 0 and transport.get_write_buffer_size() == 0:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
