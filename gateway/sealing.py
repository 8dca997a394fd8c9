"""How anything reaches Redis: sealed with AES-256-GCM under a key ring, or not at all.

Rules
- The first key of the ring writes, every key reads: so keys rotate without losing what is stored.
- A sealed value is bound to the Redis key under which it stands (AAD): moved to another name, or delivered
  to the wrong reader by a crossed connection, it does not open.
- Whatever does not open is a miss, never an error for a caller: `open` returns None.
- Names of Redis keys are HMACs under a key derived for that alone, from the ring's first kid in alphabetical
  order: with kids that are dates a name stays while a newer key is added, in whatever place, and changes once,
  when the oldest key is removed. A plain hash would not do: member ids can be guessed (45 CFR 164.514(c)).

Facts: 96-bit random nonces allow 2^32 messages under one key (NIST SP 800-38D, 8.3); at 100 a second that is
more than a year, so rotate every quarter.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
_KID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


class KeyRingError(ValueError):
    """The key ring cannot be used; the message says what is wrong without showing a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the ring: its id, which is public, and 32 secret bytes."""

    kid: str
    secret: bytes = field(repr=False)


class Mac:
    """HMAC-SHA-256 under one key, which it has read once."""

    def __init__(self, key: bytes) -> None:
        self._inner, self._outer = _hmac_states(key)

    def __call__(self, message: bytes | bytearray) -> bytes:
        """Return the 32 bytes of a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Sealing:
    """Seals and opens values, and names Redis keys."""

    def __init__(self, ring: Iterable[Key]) -> None:
        keys = tuple(ring)
        if not keys:
            raise KeyRingError("the key ring is empty, expected at least one key")
        self._readers = {key.kid.encode(): AESGCM(_derive(key.secret, b"seal")) for key in keys}
        self._ring = keys
        self._writer_kid = keys[0].kid.encode()
        self._writer = self._readers[self._writer_kid]
        self._name = Mac(_derive(min(keys, key=lambda key: key.kid).secret, b"name"))

    def signing_keys(self, purpose: str) -> tuple[tuple[str, bytes], ...]:
        """Return kid and 32 bytes of every key, for this purpose alone; the first one writes."""
        return tuple((key.kid, _derive(key.secret, f"sign/{purpose}".encode())) for key in self._ring)

    def seal(self, redis_key: bytes, plain: bytes) -> bytes:
        """Return `plain` sealed for exactly this Redis key."""
        nonce = os.urandom(_NONCE_BYTES)
        head = _VERSION + bytes([len(self._writer_kid)]) + self._writer_kid
        return head + nonce + self._writer.encrypt(nonce, plain, _aad(redis_key, head))

    def open(self, redis_key: bytes, sealed: bytes) -> bytes | None:
        """Return what was sealed under this Redis key, or None if it was not, or not by this ring."""
        if sealed[:1] != _VERSION or len(sealed) < 2:  # noqa: PLR2004 - a version and a length
            return None
        kid_end = 2 + sealed[1]
        reader = self._readers.get(sealed[2:kid_end])
        nonce, body = sealed[kid_end : kid_end + _NONCE_BYTES], sealed[kid_end + _NONCE_BYTES :]
        if reader is None or len(nonce) < _NONCE_BYTES:
            return None
        try:
            return reader.decrypt(nonce, body, _aad(redis_key, sealed[:kid_end]))
        except InvalidTag:
            return None

    def name(self, *parts: str | bytes) -> str:
        """Return 32 hex digits that say nothing of the parts, and that no other split of them shares."""
        framed = bytearray()
        for part in parts:
            raw = part if isinstance(part, bytes) else part.encode()
            framed += len(raw).to_bytes(4, "big") + raw
        return self._name(framed).hex()[:32]


def parse_ring(text: str) -> tuple[Key, ...]:
    """Read `kid:base64[,kid:base64]`, as GATEWAY_KEYS has it. Raises KeyRingError, which shows no key."""
    keys: list[Key] = []
    for position, entry in enumerate((part.strip() for part in text.split(",")), start=1):
        kid, colon, encoded = entry.partition(":")
        if not colon or _KID.fullmatch(kid) is None:
            raise KeyRingError(f"entry {position} is not kid:base64 (a kid: letters, digits, . _ -, at most 32)")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise KeyRingError(f"the key of entry {position} is not base64") from None
        if len(secret) != KEY_BYTES:
            raise KeyRingError(f"the key of entry {position} has {len(secret)} bytes, expected {KEY_BYTES}")
        keys.append(Key(kid, secret))
    if len({key.kid for key in keys}) != len(keys):
        raise KeyRingError("two entries have the same kid, expected each once")
    if len({key.secret for key in keys}) != len(keys):
        raise KeyRingError("two entries have the same key, expected each once")
    return tuple(keys)


def new_key(kid: str) -> Key:
    """Make a key that nobody has seen."""
    return Key(kid, os.urandom(KEY_BYTES))


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"eligibility-gateway/" + purpose).derive(secret)


def _hmac_states(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """Return the states of the two hashes of an HMAC-SHA-256 that have read the key (RFC 2104, 4).

    OpenSSL's own HMAC looks its algorithm up each time, at three times the price of the rest.
    """
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    return tuple(hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))  # type: ignore[return-value]


def _aad(redis_key: bytes, head: bytes) -> bytes:
    return len(redis_key).to_bytes(4, "big") + redis_key + head
