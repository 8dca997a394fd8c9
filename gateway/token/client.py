"""Ask the upstream's token endpoint (RFC 6749, 4.4; the contract wants a JSON body)."""

import asyncio
import json
from collections.abc import Callable
from typing import Final

import aiohttp
import orjson

from gateway.tls import Distrust, distrust
from gateway.token.life import Answer, Cause, Issued, NotIssued, read_life_s

FETCH_TIMEOUT_S: Final = 8.0
_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_MAX_BYTES: Final = 65536
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # the session decompresses nothing, and aiohttp would offer gzip
}
_SECRET_MAX_CHARS: Final = 8192  # a longer one would not fit the upstream's own limit of a header
_REFUSALS: Final = frozenset({400, 401, 403})
_TOO_MANY: Final = 429
_OK: Final = 200


class TokenClient:
    """Fetches tokens for one pair of credentials."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        client_id: str,
        client_secret: str,
        on_distrust: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._on_distrust = on_distrust
        self._url = url
        self._body = orjson.dumps(
            {"client_id": client_id, "client_secret": client_secret, "grant_type": "client_credentials"},
        )

    async def fetch(self) -> Answer:
        """Ask once, and say what came of it; ends within FETCH_TIMEOUT_S and raises nothing."""
        try:
            async with (
                asyncio.timeout(FETCH_TIMEOUT_S),
                self._session.post(
                    self._url,
                    data=self._body,
                    headers=_HEADERS,
                    skip_auto_headers=("User-Agent",),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                    allow_redirects=False,
                ) as response,
            ):
                if response.status in _REFUSALS:
                    return NotIssued(Cause.REFUSED, status=response.status)
                if response.status != _OK:
                    asked = response.headers.get("Retry-After", "") if response.status == _TOO_MANY else ""
                    wait_s = float(asked) if asked.isascii() and asked.isdigit() else 0.0
                    return NotIssued(Cause.UNAVAILABLE, wait_s, response.status)
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _ANSWER_MAX_BYTES:
                        return NotIssued(Cause.UNAVAILABLE)
                return _read(bytes(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NotIssued(Cause.UNAVAILABLE, is_reachable=False, distrust=self._distrust(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return NotIssued(Cause.UNAVAILABLE, distrust=self._distrust(error))

    def _distrust(self, error: Exception) -> Distrust | None:
        self._on_distrust(error)
        return distrust(error)


def _read(answer: bytes) -> Answer:
    try:
        document = json.loads(answer)  # not orjson: an odd `expires_in` such as NaN must not cost the token
    except (ValueError, RecursionError):
        return NotIssued(Cause.UNAVAILABLE)
    secret = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(secret, str) or not secret or not _fits_a_header(secret):
        return NotIssued(Cause.UNAVAILABLE)
    return Issued(secret, read_life_s(document.get("expires_in")))


def _fits_a_header(secret: str) -> bool:
    return len(secret) <= _SECRET_MAX_CHARS and all("!" <= character <= "~" for character in secret)
