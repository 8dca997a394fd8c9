import base64
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers.grant import Credentials, Unclear, read_request

GOOD = {"grant_type": "client_credentials", "client_id": "billing", "client_secret": "s3cret-alpha"}
SHOWN = Credentials("billing", ("s3cret-alpha",))
ONLY_TYPE = "grant_type=client_credentials"
FORM = "application/x-www-form-urlencoded"
INVALID, UNSUPPORTED = Unclear("invalid_request"), Unclear("unsupported_grant_type")


def as_basic(*secrets: str) -> Credentials:
    return Credentials("b", secrets, is_basic=True)


def basic(caller: str, secret: str) -> list[str]:
    return ["Basic " + base64.b64encode(f"{caller}:{secret}".encode()).decode()]


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in GOOD.items() if name not in names}


@pytest.mark.parametrize(
    ("content_type", "body", "authorizations", "read"),
    [
        ("application/json", json.dumps(GOOD), [], SHOWN),
        ("application/json; charset=utf-8", json.dumps(GOOD | {"scope": "create_txn", "n": 1}), [], SHOWN),
        ("", json.dumps(GOOD), [], SHOWN),
        (FORM, urlencode(GOOD), [], SHOWN),
        (FORM + ";charset=UTF-8", urlencode(GOOD | {"scope": "a b"}), [], SHOWN),
        (FORM.upper(), urlencode(GOOD), [], SHOWN),
        (FORM, ONLY_TYPE, basic("b", "s3cret-alpha"), as_basic("s3cret-alpha")),
        ("application/json", '{"grant_type":"client_credentials"}', basic("b", "s"), as_basic("s")),
        (FORM, urlencode(without("client_secret") | {"client_id": "b"}), basic("b", "s"), as_basic("s")),
        (FORM, ONLY_TYPE, ["basic " + basic("b", "s")[0][6:]], as_basic("s")),
        # the standard has both parts encoded, and many clients do not
        (FORM, ONLY_TYPE, basic("b", "a%2Bb"), as_basic("a%2Bb", "a+b")),
        (FORM, ONLY_TYPE, basic("b", "s:t"), as_basic("s:t")),
        # what is missing, twice, or something else
        ("application/json", json.dumps(without("grant_type")), [], INVALID),
        ("application/json", json.dumps(without("client_id")), [], INVALID),
        ("application/json", json.dumps(without("client_secret")), [], INVALID),
        ("application/json", json.dumps(GOOD | {"client_secret": ""}), [], INVALID),
        ("application/json", json.dumps(GOOD | {"client_id": 7}), [], INVALID),
        ("application/json", json.dumps(GOOD | {"grant_type": "password"}), [], UNSUPPORTED),
        ("application/json", json.dumps(GOOD | {"grant_type": ""}), [], UNSUPPORTED),
        ("application/json", "[]", [], INVALID),
        ("application/json", "", [], INVALID),
        ("application/json", "{", [], INVALID),
        ("application/json", urlencode(GOOD), [], INVALID),
        ("application/json", json.dumps(GOOD | {"pad": "x" * 9000}), [], INVALID),
        ("application/json", "[" * 8000, [], INVALID),
        (FORM, json.dumps(GOOD), [], INVALID),
        (FORM, urlencode(GOOD) + "&client_id=other", [], INVALID),
        (FORM, urlencode(GOOD) + "&client_id=billing", [], INVALID),
        (FORM, "&".join(f"a{n}=1" for n in range(40)), [], INVALID),
        (FORM, "grant_type=%FF", [], INVALID),
        (FORM, "grant_type", [], INVALID),
        (FORM, "", [], INVALID),
        # credentials in two places, or such that are none
        (FORM, urlencode(GOOD), basic("billing", "s3cret-alpha"), INVALID),
        (FORM, ONLY_TYPE + "&client_id=other", basic("billing", "s"), INVALID),
        (FORM, ONLY_TYPE, ["Bearer x"], INVALID),
        (FORM, ONLY_TYPE, ["Basic !!"], INVALID),
        (FORM, ONLY_TYPE, ["Basic " + base64.b64encode(b"nocolon").decode()], INVALID),
        (FORM, ONLY_TYPE, ["Basic " + base64.b64encode(b"\xff:\xff").decode()], INVALID),
        (FORM, ONLY_TYPE, basic("", "s"), INVALID),
        (FORM, ONLY_TYPE, basic("b", ""), INVALID),
        (FORM, ONLY_TYPE, [*basic("b", "s"), *basic("b", "s")], INVALID),
        (FORM, "grant_type=refresh_token", basic("b", "s"), UNSUPPORTED),
        (FORM, "", basic("b", "s"), INVALID),
    ],
)  # fmt: skip
def test_credentials_are_read_where_they_stand_once(
    content_type: str, body: str, authorizations: list[str], read: Credentials | Unclear
) -> None:
    found = read_request(content_type, body.encode(), authorizations)

    assert found == read


@given(
    st.sampled_from(["", FORM, "application/json"]), st.binary(max_size=300), st.lists(st.text(max_size=40), max_size=2)
)
def test_whatever_comes_is_no_error(content_type: str, body: bytes, authorizations: list[str]) -> None:
    assert isinstance(read_request(content_type, body, authorizations), Unclear)


def test_no_secret_is_shown_by_accident() -> None:
    assert "alpha" not in repr(SHOWN)
    assert "billing" not in repr(SHOWN)
