"""Delivering ended discovery tasks to the customer's receiver.

Rules
- A callback goes to loopback, or to a host that the options name; never elsewhere, never along a
  redirect, never through a proxy from the environment. A simulator must not be a way to other hosts.
- Only 204 is success. 401 voids the token that was used; every failure is tried again, the pause
  doubling each time, until the tries are used up.
- The receiver is real: its token's life and its time to answer are in real seconds.
"""

import asyncio
import ipaddress
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from gateway.simulator.clock import Clock
from gateway.simulator.discovery import task_document
from gateway.simulator.exchange import CORRELATION_ID, TENANT_ID
from gateway.simulator.options import Options
from gateway.simulator.records import Discovery
from gateway.simulator.world import Counters

_TOKEN_BYTES: Final = 64 * 1024
_LONGEST_PAUSE_S: Final = 900.0


class Courier:
    """Carries documents to receivers, with one token for all of them."""

    __slots__ = ("_clock", "_fetching", "_options", "_session", "_token", "_token_ends_at")

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._fetching = asyncio.Lock()
        self._token: str | None = None
        self._token_ends_at = 0.0

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def deliver(self, counters: Counters, url: str, task: Discovery) -> None:
        """Try until the receiver has taken the document, or the tries are used up."""
        if not self.allows(url):
            counters.callbacks_not_allowed += 1
            return
        body = orjson.dumps(task_document(task))
        pause_s = self._options.callback_backoff_s
        for attempt in range(self._options.callback_tries):
            if attempt:
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                if await self._try(counters, url, task, body):
                    counters.callbacks_delivered += 1
                    return
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
                continue
        counters.callbacks_given_up += 1

    def allows(self, url: str) -> bool:
        """Say whether a callback may go to this URL: read with the parser that will connect."""
        try:
            parsed = URL(url)
            host = parsed.host
        except ValueError:
            return False
        if parsed.scheme not in {"http", "https"} or not host:
            return False
        if host == "localhost" or host in self._options.callback_hosts:
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    async def _try(self, counters: Counters, url: str, task: Discovery, body: bytes) -> bool:
        headers = {
            "content-type": "application/json",
            TENANT_ID: task.tenant_id,
            CORRELATION_ID: task.correlation_id,
        }
        token = await self._bearer(counters)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        counters.callbacks_attempted += 1
        async with self._http().post(url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status == 401:  # noqa: PLR2004 - the receiver's way to ask for a new token
                counters.callbacks_unauthorized += 1
                self._void(token)
            return response.status == 204  # noqa: PLR2004 - the contract's only success

    async def _bearer(self, counters: Counters) -> str | None:
        url = self._options.callback_token_url
        if url is None:
            return None
        if not self.allows(url):
            raise ValueError("the callback token URL is on a host that callbacks may not reach")
        async with self._fetching:
            if self._token is None or asyncio.get_running_loop().time() >= self._token_ends_at:
                await self._fetch(url)
                counters.callback_tokens_fetched += 1
            return self._token

    async def _fetch(self, url: str) -> None:
        basic = aiohttp.encode_basic_auth(self._options.callback_client_id, self._options.callback_client_secret)
        async with self._http().post(
            url,
            data={"grant_type": "client_credentials"},
            headers={"authorization": basic},
            allow_redirects=False,
        ) as response:
            response.raise_for_status()
            document: Any = orjson.loads(await response.content.read(_TOKEN_BYTES))
        fields = document if isinstance(document, dict) else {}
        token, life_s = fields.get("access_token"), fields.get("expires_in")
        if not token:
            raise ValueError("the receiver's token endpoint gave no access_token")
        self._token = str(token)
        self._token_ends_at = asyncio.get_running_loop().time() + (life_s if isinstance(life_s, int) else 60)

    def _void(self, token: str | None) -> None:
        # Only the token that was refused: a newer one may be there already.
        if token is not None and token == self._token:
            self._token = None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._options.callback_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session
