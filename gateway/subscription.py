"""One subscription of a process to one channel of Redis, kept for as long as the process runs.

Facts
- A message is delivered at most once, and not at all while a connection is down: whoever listens must also look.
- On a cluster every node hears every message, so an ordinary connection to any of them will do.
- A cancellation that meets redis-py while it connects may be swallowed.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from redis.asyncio import Redis

from gateway.connect import Client, close_client, node_client

_SILENCE_S: Final = 5.0  # then we ask whether anybody is there, and after as long again we connect anew
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_INSIST_S: Final = 0.1


class Subscription:
    """Tells of each message, and of each moment from which on messages are heard again."""

    def __init__(
        self,
        client: Client,
        channel: bytes,
        *,
        on_message: Callable[[bytes], None],
        on_subscribed: Callable[[], None],
    ) -> None:
        self._client = client
        self._channel = channel
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._pause_s = _PAUSE_FIRST_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen from now on, whatever Redis does."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Listen no more, and close the client."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again, if need be: see the facts
            await asyncio.wait({self._task}, timeout=_INSIST_S)
        with suppress(Exception):
            await close_client(self._client)

    async def _run(self) -> None:
        while True:
            with suppress(Exception):  # whatever it is, the answer is another connection
                await self._listen()
            await asyncio.sleep(self._pause_s * (0.5 + random.random()))  # noqa: S311 - spreads replicas
            self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)

    async def _listen(self) -> None:
        node = await _any_node(self._client)
        async with AsyncExitStack() as stack:
            if node is not self._client:
                stack.push_async_callback(node.aclose)
            pubsub = await stack.enter_async_context(node.pubsub())
            await pubsub.subscribe(self._channel)
            is_silent = False
            while True:
                message: dict[str, Any] | None = await pubsub.get_message(timeout=_SILENCE_S)
                if message is None:
                    if is_silent:
                        return
                    await pubsub.ping()
                elif message["type"] == "subscribe":
                    self._pause_s = _PAUSE_FIRST_S
                    self._on_subscribed()
                elif message["type"] == "message":
                    self._on_message(message["data"])
                is_silent = message is None


async def _any_node(client: Client) -> Redis:
    if isinstance(client, Redis):
        return client
    await client.initialize()
    node = client.get_random_node()
    return node_client(client, node.host, int(node.port))
