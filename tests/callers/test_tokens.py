import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.callers.tokens import LIFE_S, Tokens
from gateway.policy.callers import Caller, CallerEntry
from gateway.sealing import Key, Sealing

NOW = 1_800_000_000.0
OLD, NEW = Key("2026-08", bytes(32)), Key("2026-11", bytes(range(32)))


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def caller(name: str, *secrets: str) -> Caller:
    return Caller(name=name, entry=CallerEntry(secret_sha256=tuple(map(digest, secrets))))


def tokens(*ring: Key) -> Tokens:
    return Tokens(Sealing(ring or (OLD,)).signing_keys("callers"))


BILLING, SCHEDULING = caller("billing", "alpha", "alpha-next"), caller("scheduling", "beta")
CALLERS = {one.name: one for one in (BILLING, SCHEDULING, caller("anonymous"))}


def issued(ring: tuple[Key, ...] = (OLD,), secret: str = "alpha") -> str:  # noqa: S107 - of this test
    return tokens(*ring).issue("billing", digest(secret), NOW, "id-1")


@pytest.mark.parametrize("secret", ["alpha", "alpha-next"])
def test_a_token_names_the_caller_that_has_shown_a_secret(secret: str) -> None:
    assert tokens().bearer(issued(secret=secret), CALLERS, NOW) is BILLING


def test_a_token_says_nothing_but_the_caller_and_its_time() -> None:
    head, claims, _ = (base64.urlsafe_b64decode(part + "==") for part in issued().split("."))

    assert json.loads(head) == {"alg": "HS256", "typ": "at+jwt", "kid": "2026-08"}
    assert json.loads(claims) == {
        "iss": "eligibility-gateway",
        "sub": "billing",
        "iat": int(NOW),
        "exp": int(NOW) + LIFE_S,
        "jti": "id-1",
    }


@pytest.mark.parametrize(
    ("after_s", "is_good"), [(0, True), (LIFE_S - 1, True), (LIFE_S, False), (-59, True), (-61, False), (1e9, False)]
)
def test_a_token_holds_for_its_time_and_not_before_it(after_s: float, is_good: bool) -> None:  # noqa: FBT001
    assert (tokens().bearer(issued(), CALLERS, NOW + after_s) is BILLING) is is_good


def test_a_token_ends_with_the_secret_for_which_it_was_issued() -> None:
    rotated = CALLERS | {"billing": caller("billing", "alpha-next")}

    assert tokens().bearer(issued(secret="alpha"), rotated, NOW) is None
    assert tokens().bearer(issued(secret="alpha-next"), rotated, NOW) is rotated["billing"]


def test_a_token_ends_with_its_caller() -> None:
    assert tokens().bearer(issued(), {"scheduling": SCHEDULING}, NOW) is None


def test_a_secret_that_changes_hands_takes_no_token_along() -> None:
    swapped = {"billing": caller("billing", "gamma"), "scheduling": caller("scheduling", "alpha")}

    assert tokens().bearer(issued(secret="alpha"), swapped, NOW) is None


def test_a_token_holds_while_its_key_is_in_the_ring() -> None:
    assert tokens(NEW, OLD).bearer(issued((OLD,)), CALLERS, NOW) is BILLING
    assert tokens(OLD, NEW).bearer(issued((NEW, OLD)), CALLERS, NOW) is BILLING
    assert tokens(NEW).bearer(issued((OLD,)), CALLERS, NOW) is None
    assert tokens(Key("2026-08", bytes([7]) * 32)).bearer(issued((OLD,)), CALLERS, NOW) is None


def test_no_key_of_another_purpose_signs() -> None:
    other = Tokens(Sealing([OLD]).signing_keys("others")).issue("billing", digest("alpha"), NOW, "id-1")

    assert tokens().bearer(other, CALLERS, NOW) is None


def forged(claims: dict[str, Any], header: dict[str, Any] | None = None, key: bytes = b"") -> str:
    """A token of any claims, signed by the key that would be right, or by another one."""
    right = Sealing([OLD]).signing_keys("callers")[0][1]
    signing = key or hmac.new(right, digest("alpha").encode(), hashlib.sha256).digest()
    head = {"alg": "HS256", "typ": "at+jwt", "kid": "2026-08", **(header or {})}
    return jwt.encode(head, claims, OctKey.import_key(signing), algorithms=["HS256", "HS512"])


GOOD = {"iss": "eligibility-gateway", "sub": "billing", "iat": int(NOW), "exp": int(NOW) + LIFE_S, "jti": "id-1"}


def test_the_forger_of_these_tests_can_make_a_good_one() -> None:
    assert tokens().bearer(forged(GOOD), CALLERS, NOW) is BILLING


@pytest.mark.parametrize(
    "change",
    [
        {"sub": "scheduling"},
        {"sub": "nobody"},
        {"sub": ["billing"]},
        {"sub": None},
        {"iss": "somebody-else"},
        {"iss": None},
        {"exp": int(NOW)},
        {"exp": int(NOW) - 1},
        {"exp": int(NOW) + LIFE_S + 1},
        {"exp": str(int(NOW) + 60)},
        {"exp": float(NOW) + 60.5},
        {"exp": None},
        {"exp": True},
        {"iat": int(NOW) + 3600, "exp": int(NOW) + 7200},
        {"iat": None},
        {"iat": "now"},
    ],
)
def test_a_claim_that_is_not_as_it_would_be_issued_is_nobodys(change: dict[str, Any]) -> None:
    assert tokens().bearer(forged(GOOD | change), CALLERS, NOW) is None


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ({"typ": "JWT"}, b""),
        ({"kid": "2026-11"}, b""),
        ({"kid": 7}, b""),
        ({"alg": "HS512"}, b""),
        ({}, b"another key of thirty-two bytes.."),
        ({}, digest("alpha").encode()),
    ],
)
def test_what_is_signed_otherwise_is_nobodys(header: dict[str, Any], key: bytes) -> None:
    try:
        token = forged(GOOD, header, key)
    except Exception:  # noqa: BLE001 - the library will not even sign it
        token = re_headed(forged(GOOD, None, key), header)
    assert tokens().bearer(token, CALLERS, NOW) is None


def re_headed(token: str, change: dict[str, Any]) -> str:
    head, claims, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(head + "==")) | change
    return f"{base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip('=')}.{claims}.{signature}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS384", "RS256", "", None, 7, ["HS256"]])
def test_no_algorithm_but_one_is_taken(alg: object) -> None:
    for token in (re_headed(issued(), {"alg": alg}), re_headed(issued(), {"alg": alg}).rpartition(".")[0] + "."):
        assert tokens().bearer(token, CALLERS, NOW) is None


def test_what_is_cut_or_changed_anywhere_is_nobodys() -> None:
    token = issued()
    for at in range(len(token)):
        assert tokens().bearer(token[:at], CALLERS, NOW) is None
        other = "A" if token[at] != "A" else "Q"
        assert tokens().bearer(token[:at] + other + token[at + 1 :], CALLERS, NOW) is None or at == len(token) - 1


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: "eyJ" + base64.urlsafe_b64encode(raw).decode()))
def test_whatever_comes_is_nobodys_and_no_error(text: str) -> None:
    assert tokens().bearer(text, CALLERS, NOW) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    ),
    st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)),
)
def test_whatever_json_it_holds_is_no_error(head: object, claims: object) -> None:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims)]

    assert tokens().bearer(f"{parts[0]}.{parts[1]}.AAAA", CALLERS, NOW) is None
