"""Every way in which a canary may be written, and which of them some bytes hold.

Rules
- A canary is looked for in any case, and in everything that can be unpacked: compressed, encoded, or both.
- One of digits alone counts only where no other digit touches it, and not within a digest or a UUID: neither a
  histogram's sum nor chance, once in some ten thousand runs, is a birth date.
"""

import base64
import codecs
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import lz4.block
import lz4.frame

UNPACKED_MAX_BYTES: Final = 16_777_216
_LZ4_OFFSETS: Final = 64  # a format byte, or a small header, may stand before what is compressed
_LZ4_MAX_RATIO: Final = 255
_DEPTH: Final = 2
_GZIP: Final = re.compile(rb"\x1f\x8b\x08")
_ZLIB: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_LZ4_FRAME: Final = re.compile(rb"\x04\x22\x4d\x18")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}){12,}")
_JSON_ESCAPE: Final = re.compile(rb"\\+u([0-9A-Fa-f]{4})")  # more than one backslash where JSON stands in JSON
_DIGEST: Final = re.compile(rb"[0-9a-f-]{32,}")
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


@cache
def folded_forms(text: str) -> Mapping[str, bytes]:
    """The forms that are looked for in lower case."""
    raw = text.encode()
    minimal = json.dumps(text)[1:-1]
    return {
        "raw": raw.lower(),
        "raw, lower case": text.lower().encode().lower(),
        "raw, upper case": text.upper().encode().lower(),
        "latin-1": text.encode("latin-1", "replace").lower(),
        "utf-16-le": text.lower().encode("utf-16-le"),
        "utf-16-be": text.lower().encode("utf-16-be"),
        "json, minimal": minimal.lower().encode(),
        "url, minimal": quote(text, safe="").lower().encode(),
        "url, form": quote(text, safe=" ").replace(" ", "+").lower().encode(),
        "url, twice": quote(quote(text, safe=""), safe="").lower().encode(),
        "hex": raw.hex().encode(),
        "hex, lower case": text.lower().encode().hex().encode(),
        "hex, upper case": text.upper().encode().hex().encode(),
        "python": repr(raw)[2:-1].lower().encode(),
    }


@cache
def exact_forms(text: str) -> Mapping[str, bytes]:
    """The forms whose case means something: base64, wherever the text stands in what was encoded."""
    found = {}
    for spelling in {text, text.lower(), text.upper()}:
        for offset in range(3):
            standard = _base64_at(spelling.encode(), offset)
            found[f"base64 of {spelling} at {offset}"] = standard
            found[f"base64url of {spelling} at {offset}"] = standard.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def _base64_at(raw: bytes, offset: int) -> bytes:
    """The characters of base64 that the text alone decides if so many bytes stand before it."""
    encoded = base64.b64encode(bytes(offset) + raw).rstrip(b"=")
    begin = (offset * 8 + 5) // 6
    end = (offset + len(raw)) * 8 // 6
    return encoded[begin:end]


def found_in(data: bytes, canaries: Iterable[str]) -> list[str]:
    """Say which canaries the data holds, in which form, and inside of what; none are named by a part of the data."""
    found = []
    for inside, view in views(data):
        lowered = view.lower()
        for canary in canaries:
            found += [f"{canary}: {form}{inside}" for form, raw in folded_forms(canary).items() if _holds(lowered, raw)]
            found += [f"{canary}: {form}{inside}" for form, raw in exact_forms(canary).items() if raw in view]
    return found


def _holds(data: bytes, form: bytes) -> bool:
    if form not in data:
        return False
    if not form.isdigit():
        return True
    return re.search(rb"(?<![0-9])" + form + rb"(?![0-9])", _DIGEST.sub(b"", data)) is not None


def views(data: bytes, depth: int = _DEPTH) -> Iterator[tuple[str, bytes]]:
    """Yield the data, and what it holds when it is unpacked, with how that was done."""
    yield "", data
    if depth:
        for how, unpack in _UNPACKERS.items():
            inner = b"\0\0".join(unpack(data))
            if inner:
                for more, view in views(inner, depth - 1):
                    yield f"{more} in {how}", view


def _inflated(pattern: re.Pattern[bytes], window_bits: int) -> Callable[[bytes], Iterator[bytes]]:
    def unpack(data: bytes) -> Iterator[bytes]:
        for begin in pattern.finditer(data):
            with suppress(zlib.error):
                yield zlib.decompressobj(window_bits).decompress(data[begin.start() :], UNPACKED_MAX_BYTES)

    return unpack


def _lz4_blocks(data: bytes) -> Iterator[bytes]:
    for begin in range(min(_LZ4_OFFSETS, len(data))):
        part = memoryview(data)[begin:]
        size = int.from_bytes(part[:4], "little")
        if 0 < size <= min(UNPACKED_MAX_BYTES, len(part) * _LZ4_MAX_RATIO):
            with suppress(lz4.block.LZ4BlockError, ValueError):
                yield lz4.block.decompress(part)


def _lz4_frames(data: bytes) -> Iterator[bytes]:
    for begin in _LZ4_FRAME.finditer(data):
        with suppress(RuntimeError):
            yield lz4.frame.LZ4FrameDecompressor().decompress(data[begin.start() :], UNPACKED_MAX_BYTES)


def _base64_runs(data: bytes) -> Iterator[bytes]:
    for run in _BASE64.findall(data):
        standard = run.translate(_TO_STANDARD)
        yield base64.b64decode(standard[: len(standard) // 4 * 4])


def _hex_runs(data: bytes) -> Iterator[bytes]:
    for run in _HEX.findall(data):
        yield bytes.fromhex(run.decode())


def _unescaped(data: bytes) -> Iterator[bytes]:
    """What MONITOR and Python write of bytes."""
    if b"\\x" in data:
        with warnings.catch_warnings(action="ignore"), suppress(ValueError):
            yield codecs.escape_decode(data)[0]


def _json_unescaped(data: bytes) -> Iterator[bytes]:
    if b"\\u" in data:
        yield _JSON_ESCAPE.sub(lambda m: chr(int(m[1], 16)).encode("utf-8", "surrogatepass"), data)


def _url_decoded(data: bytes) -> Iterator[bytes]:
    if b"%" in data:
        yield unquote_to_bytes(data)


_UNPACKERS: Final[Mapping[str, Callable[[bytes], Iterator[bytes]]]] = {
    "gzip": _inflated(_GZIP, 31),
    "zlib": _inflated(_ZLIB, 15),
    "lz4 block": _lz4_blocks,
    "lz4 frame": _lz4_frames,
    "base64": _base64_runs,
    "hex": _hex_runs,
    "escapes": _unescaped,
    "json": _json_unescaped,
    "url": _url_decoded,
}
