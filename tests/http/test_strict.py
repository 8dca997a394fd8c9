import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.strict import is_unambiguous

Pairs = list[tuple[str, str]]
PATH = "/rcm/eligibility/v1"
LENGTH = ("Content-Length", "3")
CHUNKED = ("Transfer-Encoding", "chunked")


def judge(
    target: str = PATH,
    version: tuple[int, int] = (1, 1),
    headers: Pairs | None = None,
    method: str = "POST",
) -> bool:
    return is_unambiguous(method, target, version, CIMultiDictProxy(CIMultiDict(headers or [])))


@pytest.mark.parametrize(
    "target", [PATH, "/", "/a?b=c", "/a?b=//c", "/a//b", "/%2e%2e", "/a?x=%23", "/a:b@c", "/a;b=c"]
)
@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
def test_an_origin_form_target_is_let_in(target: str, version: tuple[int, int]) -> None:
    assert judge(target, version)


@pytest.mark.parametrize(
    "target",
    [
        *("", "*", "a", "http://elsewhere/a", "HTTP://elsewhere/a", "elsewhere:443", "//elsewhere/a", "//", "?a=b"),
        *("/a#b", "#", "/a\\b", "\\a", "/a?b=\\", "/é", "/a?b=é", "/\udcff"),
    ],
)
def test_any_other_target_is_refused(target: str) -> None:
    assert not judge(target)


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0), (0, 0), (1, -1)])
def test_any_other_version_is_refused(version: tuple[int, int]) -> None:
    assert not judge(version=version)


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED", " chunked", "chunked\t"])
def test_chunked_alone_is_let_in(coding: str) -> None:
    assert judge(headers=[("transfer-encoding", coding)])


@pytest.mark.parametrize(
    "headers",
    [
        *(
            [("Transfer-Encoding", coding)]
            for coding in ("", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked")
        ),
        *(
            [("Transfer-Encoding", coding)]
            for coding in ("identity", "chunked;a=b", "xchunked", "chunked,", "\x0bchunke")
        ),
        [CHUNKED, CHUNKED],
        [CHUNKED, ("transfer-encoding", "gzip")],
        [CHUNKED, LENGTH],
        [LENGTH, ("TRANSFER-ENCODING", "chunked")],
    ],
)
def test_any_other_framing_is_refused(headers: Pairs) -> None:
    assert not judge(headers=headers)


def test_chunked_is_refused_where_the_version_does_not_know_it() -> None:
    assert not judge(version=(1, 0), headers=[CHUNKED])


@pytest.mark.parametrize("headers", [[], [LENGTH], [("Connection", "upgrade")], [("Accept", "*/*"), ("X-Site", "")]])
def test_a_request_without_transfer_encoding_is_let_in(headers: Pairs) -> None:
    assert judge(headers=headers)


@pytest.mark.parametrize("length", ["0", "1", "10", "999999999999999999"])
def test_a_length_in_plain_digits_is_let_in(length: str) -> None:
    assert judge(headers=[("Content-Length", length)])


@pytest.mark.parametrize("length", ["", "00", "010", "+1", "-1", "1.0", "1,1", "0x1", "1" * 19, "0" * 5000, "\u0661"])
def test_any_other_length_is_refused(length: str) -> None:
    assert not judge(headers=[("Content-Length", length)])


@pytest.mark.parametrize("method", ["GET", "HEAD", "TRACE"])
def test_a_method_without_body_has_none(method: str) -> None:
    assert judge(method=method)
    assert judge(method=method, headers=[("Content-Length", "0")])
    assert not judge(method=method, headers=[LENGTH])
    assert not judge(method=method, headers=[CHUNKED])


@pytest.mark.parametrize(
    "host", ["", "x", "x:80", "x:", "a_b.c", "127.0.0.1:8080", "[::1]", "[::1]:8080", "%41", "a-b.example"]
)
def test_a_host_that_can_be_one_is_let_in(host: str) -> None:
    assert judge(headers=[("Host", host)])


@pytest.mark.parametrize(
    "host", ["a b", "a/b", "a,b,", "a@b", "http://a", "[::1", "::1", "a:b", "a:123456", "a#", "%4"]
)
def test_a_host_that_can_be_none_is_refused(host: str) -> None:
    assert judge(headers=[("Host", host)]) is (host == "a,b,")


@pytest.mark.parametrize("name", ["x_a", "_", "Content_Length", "transfer_encoding", "x-a_"])
def test_a_name_with_an_underscore_is_refused(name: str) -> None:
    assert not judge(headers=[(name, "1")])
    assert judge(headers=[(name.replace("_", "-"), "1")]) or "content" in name.lower() or "transfer" in name.lower()


def test_an_upgrade_is_refused_wherever_it_stands_among_repeats() -> None:
    assert not judge(headers=[("Upgrade", "h2c"), ("Upgrade", "websocket")])


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
@pytest.mark.parametrize(
    ("protocol", "is_let_in"),
    [("websocket", False), ("WebSocket", False), ("h2c, websocket", False), ("h2c", True), ("", True)],
)
def test_an_upgrade_is_refused_if_the_parser_would_switch_and_ignored_otherwise(
    name: str,
    protocol: str,
    is_let_in: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert judge(headers=[("Accept", "*/*"), (name, protocol)]) is is_let_in


@pytest.mark.parametrize("value", ["a\x00b", "\x01", "a\x7f", "a\rb", "a\nb"])
def test_a_control_character_in_a_value_is_refused(value: str) -> None:
    assert not judge(headers=[("X-A", value)])
    assert judge(headers=[("X-A", "a\tb")])


@given(st.binary(max_size=12))
def test_a_value_is_let_in_if_its_bytes_are_utf8_and_no_controls(raw: bytes) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        is_readable = False
    else:
        is_readable = not any(byte != 9 and (byte < 32 or byte == 127) for byte in raw)

    assert judge(headers=[("X-A", "a"), ("X-B", raw.decode("utf-8", "surrogateescape"))]) is is_readable


@given(
    target=st.text(st.sampled_from("/a?#\\:*é."), max_size=6),
    version=st.sampled_from([(0, 9), (1, 0), (1, 1), (2, 0)]),
    headers=st.lists(
        st.sampled_from([LENGTH, CHUNKED, ("Upgrade", "websocket"), ("X-A", "\udcff"), ("X-A", "é")]), max_size=3
    ),
)
def test_whatever_is_let_in_keeps_every_rule(target: str, version: tuple[int, int], headers: Pairs) -> None:
    if judge(target, version, headers):
        names = [name for name, _ in headers]
        assert target.startswith("/")
        assert not target.startswith("//")
        assert not set("#\\é") & set(target)
        assert version in {(1, 0), (1, 1)}
        assert "Upgrade" not in names
        assert ("X-A", "\udcff") not in headers
        assert "Transfer-Encoding" not in names or (
            names.count("Transfer-Encoding") == 1 and "Content-Length" not in names
        )
