"""Ask the upstream's token endpoint (RFC 6749, 4.4; the contract wants a JSON body)."""

import asyncio
from typing import Final

import aiohttp
import orjson

from gateway.token.life import Answer, Cause, Issued, NotIssued, read_life_s

FETCH_TIMEOUT_S: Final = 8.0
_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_MAX_BYTES: Final = 65536
_REFUSALS: Final = frozenset({400, 401, 403})
_TOO_MANY: Final = 429
_OK: Final = 200


class TokenClient:
    """Fetches tokens for one pair of credentials."""

    def __init__(self, session: aiohttp.ClientSession, url: str, client_id: str, client_secret: str) -> None:
        self._session = session
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
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                    allow_redirects=False,
                ) as response,
            ):
                if response.status in _REFUSALS:
                    return NotIssued(Cause.REFUSED)
                if response.status != _OK:
                    asked = response.headers.get("Retry-After", "") if response.status == _TOO_MANY else ""
                    return NotIssued(Cause.UNAVAILABLE, float(asked) if asked.isascii() and asked.isdigit() else 0.0)
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _ANSWER_MAX_BYTES:
                        return NotIssued(Cause.UNAVAILABLE)
                return _read(bytes(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return NotIssued(Cause.UNAVAILABLE, is_reachable=False)
        except (aiohttp.ClientError, TimeoutError):
            return NotIssued(Cause.UNAVAILABLE)


def _read(answer: bytes) -> Answer:
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return NotIssued(Cause.UNAVAILABLE)
    secret = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(secret, str) or not secret or not _fits_a_header(secret):
        return NotIssued(Cause.UNAVAILABLE)
    return Issued(secret, read_life_s(document.get("expires_in")))


def _fits_a_header(secret: str) -> bool:
    return all("!" <= character <= "~" for character in secret)
