"""What settings that are good by themselves must not say together.

Rules
- Nothing is said to Redis or to the upstream that somebody on the way could read, or answer, unless that is allowed.
- A URL alone decides: `localhost`, a loopback address and a unix socket are this machine, and every other name is not.
- TLS that does not verify is none.
"""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

_TRUE: Final = frozenset({"true", "1", "yes"})


class Stated(Protocol):
    """The settings that depend on each other."""

    @property
    def tls_client_certificate(self) -> str: ...  # noqa: D102
    @property
    def tls_client_ca(self) -> Path | None: ...  # noqa: D102
    @property
    def upstream_url(self) -> str: ...  # noqa: D102
    @property
    def redis_url(self) -> SecretStr: ...  # noqa: D102
    @property
    def allow_plaintext(self) -> bool: ...  # noqa: D102


def contradictions(settings: Stated, variable: Callable[[str], str]) -> list[str]:
    """Return a sentence for each; none shows a value that may be secret."""
    found = [
        f"{variable(one)}: found without {variable(other)}, expected both"
        for one, other in (
            ("tls_certificate", "tls_key"),
            ("tls_key", "tls_certificate"),
            ("tls_client_ca", "tls_certificate"),
            ("upstream_certificate", "upstream_key"),
            ("upstream_key", "upstream_certificate"),
        )
        if getattr(settings, one) is not None and getattr(settings, other) is None
    ]
    if (settings.tls_client_certificate == "off") != (settings.tls_client_ca is None):
        found.append(
            f"{variable('tls_client_certificate')}: found '{settings.tls_client_certificate}' "
            f"{'without' if settings.tls_client_ca is None else 'beside'} {variable('tls_client_ca')}, expected "
            "'optional' or 'required', and the CAs that sign callers' certificates"
        )
    if settings.upstream_url.startswith("http:"):
        found += [
            f"{variable(name)}: found beside an {variable('upstream_url')} without TLS, expected https://"
            for name in ("upstream_ca", "upstream_certificate")
            if getattr(settings, name) is not None
        ]
        if is_beyond_this_machine(settings.upstream_url) and not settings.allow_plaintext:
            found.append(
                f"{variable('upstream_url')}: found http:// to another machine, expected https://, or "
                f"{variable('allow_plaintext')}=true where the network is the boundary"
            )
    trouble = unprotected(settings.redis_url.get_secret_value(), is_plaintext_allowed=settings.allow_plaintext)
    if trouble is not None:
        found.append(f"{variable('redis_url')}: {trouble.format(variable('allow_plaintext'))}")
    return found


def is_beyond_this_machine(url: str) -> bool:
    """Whether a host of the URL is another machine; of what cannot be read it is assumed."""
    if url == "embedded" or url.startswith("unix:"):
        return False
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2]
        return not all(_is_loopback(urlsplit(f"//{host}").hostname or "") for host in hosts.split(","))
    except ValueError:
        return True


def unprotected(redis_url: str, *, is_plaintext_allowed: bool) -> str | None:
    """Return what is wrong with a Redis URL; `{}` stands for the setting that allows plain text."""
    scheme, _, rest = redis_url.partition("://")
    if scheme.startswith("rediss"):
        for name, value in parse_qsl(rest.partition("?")[2], keep_blank_values=True):
            if (name == "ssl_cert_reqs" and value != "required") or (
                name == "ssl_check_hostname" and value.lower() not in _TRUE
            ):
                return f"found {name}, by which TLS believes whoever answers, expected a URL without it"
    elif is_beyond_this_machine(redis_url) and not is_plaintext_allowed:
        return (
            f"found {scheme}:// to another machine, expected {scheme.replace('redis', 'rediss', 1)}://, or {{}}=true "
            "where the network is the boundary"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
