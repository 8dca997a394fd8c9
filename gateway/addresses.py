"""How the addresses of others are spelt in settings.

Danger: whoever splits a URL drops tabs and line ends in silence, and takes a scheme in any case. What is judged here
must be what is read there.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

EMBEDDED: Final = "embedded"
_REDIS_SCHEMES: Final = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+sentinel", "rediss+cluster"}
)


def upstream_url_of(value: str) -> str:
    """Return the API's address without a path. Raises ValueError, which says what is expected."""
    try:
        if not value.isprintable() or " " in value:  # which whoever splits it drops in silence
            raise ValueError
        parts = urlsplit(value)
        (parts.hostname or "").encode("idna")
        netloc = parts.netloc.lower()
        is_plain = netloc in {parts.hostname, f"{parts.hostname}:{parts.port}", f"[{parts.hostname}]"} or (
            netloc == f"[{parts.hostname}]:{parts.port}"
        )
    except ValueError:
        is_plain = False
    if (
        not is_plain
        or not value.startswith(("http://", "https://"))
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        raise ValueError("https://HOST[:PORT] without credentials, path, query or fragment")
    return value.rstrip("/")


def collector_url_of(value: str) -> str:
    """Return the address of a collector of traces. Raises ValueError, which says what is expected."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("http://HOST[:PORT] or https://, without credentials, query or fragment")
    return value


def redis_url_of(value: SecretStr) -> SecretStr:
    """Return the URL of a Redis, or `embedded`. Raises ValueError, which says what is expected."""
    url = value.get_secret_value()
    scheme, separator, _ = url.partition("://")
    is_plain = url.isprintable() and " " not in url  # what redis-py drops before it reads
    if url != EMBEDDED and (not separator or scheme not in _REDIS_SCHEMES or not is_plain):
        raise ValueError(f"'{EMBEDDED}', or a URL of one of these schemes: {', '.join(sorted(_REDIS_SCHEMES))}")
    return value
