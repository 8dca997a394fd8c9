"""The search finds what is planted, in every form: a suite that cannot fail proves nothing."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import lz4.block
import lz4.frame
import pytest

from tests.canaries.forms import found_in
from tests.canaries.planted import ALL, ASKED

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "lower": lambda text: text.lower().encode(),
    "upper": lambda text: text.upper().encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "json": lambda text: json.dumps({"a": text}).encode(),
    "json_full": lambda text: "".join(f"\\u{ord(one):04X}" for one in text).encode(),
    "json_in_json": lambda text: json.dumps("".join(f"\\u{ord(one):04x}" for one in text)).encode(),
    "url": lambda text: quote(text, safe="").encode(),
    "url_form": lambda text: quote_plus(text).encode(),
    "url_full": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
    "url_twice": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "base64_0": lambda text: base64.b64encode(b"" + text.encode() + b"tail"),
    "base64_1": lambda text: base64.b64encode(b"x" + text.encode() + b"tail"),
    "base64_2": lambda text: base64.b64encode(b"xy" + text.encode() + b"tail"),
    "base64_lower": lambda text: base64.b64encode(b"x" + text.lower().encode() + b"tail"),
    "base64url": lambda text: base64.urlsafe_b64encode(b"\xff\xfe" + text.encode() + b"\xfb"),
    "hex": lambda text: text.encode().hex().encode(),
    "hex_upper": lambda text: text.encode().hex().upper().encode(),
    "python": lambda text: repr(text.encode()).encode(),
    "monitor": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()).encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "zlib": lambda text: zlib.compress(text.encode()),
    "lz4": lambda text: lz4.block.compress(text.encode() * 3),
    "lz4_after_a_format_byte": lambda text: b"\x03" + lz4.block.compress(text.encode() * 3),
    "lz4_frame": lambda text: lz4.frame.compress(text.encode()),
    "base64_of_gzip": lambda text: base64.b64encode(gzip.compress(text.encode())),
    "hex_of_zlib": lambda text: zlib.compress(text.encode()).hex().encode(),
    "monitor_of_gzip": lambda text: "".join(f"\\x{byte:02x}" for byte in gzip.compress(text.encode())).encode(),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_canary_is_found_however_it_is_written(write: Callable[[str], bytes]) -> None:
    for canary in ALL:
        written = write(canary)
        for data in (written, b'{"a": "' + written + b'"}'):
            assert {line.partition(": ")[0] for line in found_in(data, ALL)} == {canary}


def test_nothing_is_found_where_nothing_is() -> None:
    lines = b'{"event":"request","correlation_id":"01a201d5-20ae-760f-9f03-6d839f0e776e"}\n' * 100
    assert found_in(lines + bytes(range(256)), ALL) == []


def test_digits_that_are_a_part_of_a_number_are_no_date() -> None:
    born = next(canary for canary in ASKED if canary.isdigit() and len(canary) == 8)
    assert found_in(f"sum 0.{born}7".encode(), ASKED) == []
    assert found_in(f"sum {born}".encode(), ASKED) != []
    assert found_in(f"eg:flight:ab{born}{'c' * 22}".encode(), ASKED) == []
    assert found_in(f"deadbeef{born}deadbeef".encode(), ASKED) != []
