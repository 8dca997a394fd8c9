import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from gateway.callers.issuers import Keys, Proven, UnknownKey, Wrong
from gateway.callers.signed import take_apart
from gateway.policy.callers import Issuer
from tests.callers.platform import AUDIENCE, EC, ED, ISSUER, NEXT, NOW, RSA, SUBJECT, Signing, published, token

CLUSTER = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="/keys.json")


def keys(*those: Signing) -> Keys:
    found = Keys.read(published(*(those or (RSA, EC, ED))))
    assert found is not None
    return found


def judged(text: str, known: Keys | None = None, now: float = NOW) -> object:
    claimed = take_apart(text)
    return (keys() if known is None else known).judge(claimed, CLUSTER, now) if claimed is not None else None


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *[(RSA, "RS256"), (EC, "ES256"), (ED, "Ed25519")],
        *[(RSAKey.import_key(RSA.as_dict(private=True) | {"alg": name}), name) for name in ("RS512", "PS256")],
    ],
)
def test_a_token_that_the_platform_signed_names_its_subject(key: Signing, algorithm: str) -> None:
    assert judged(token(key, algorithm), keys(key)) == Proven(SUBJECT)
    assert judged(token(key, algorithm, head={"kid": None}), keys(key)) == Proven(SUBJECT)
    assert judged(token(key, algorithm, aud=AUDIENCE), keys(key)) == Proven(SUBJECT)


@pytest.mark.parametrize(
    ("after_s", "is_good"), [(0, True), (3599, True), (3600, False), (-60, True), (-61, False), (1e12, False)]
)
def test_a_token_is_good_for_its_time(after_s: float, is_good: bool) -> None:  # noqa: FBT001 - a column
    assert judged(token(), now=NOW + after_s) == (Proven(SUBJECT) if is_good else Wrong())


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": ISSUER + "/"},
        {"iss": [ISSUER]},
        {"aud": None},
        {"aud": []},
        {"aud": "another"},
        {"aud": [[AUDIENCE]]},
        {"aud": {AUDIENCE: 1}},
        {"sub": None},
        {"sub": 7},
        {"exp": None},
        {"exp": "1900000000"},
        {"exp": True},
        {"exp": 1e300},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"nbf": NOW + 3600},
        {"nbf": float("nan")},
        {"nbf": "then"},
        {"iat": NOW + 3600},
        {"iat": [NOW]},
    ],
)
def test_a_claim_that_is_missing_or_another_makes_a_token_wrong(claims: dict[str, Any]) -> None:
    assert judged(token(**claims)) == Wrong()


def test_what_was_signed_by_another_key_or_not_at_all_is_wrong() -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "rsa"})
    head, claims, signature = token().split(".")
    nobodys = base64.urlsafe_b64encode(b'{"alg":"none","kid":"rsa"}').decode().rstrip("=")
    another = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"rsa"}').decode().rstrip("=")
    bent = base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "sub": "root"}).encode()).decode().rstrip("=")
    assert judged(token(stranger)) == UnknownKey()  # or the issuer has another key of this name by now
    for forged in (
        f"{nobodys}.{claims}.",
        f"{nobodys}.{claims}.{signature}",
        f"{another}.{claims}.{signature}",
        f"{head}.{bent}.{signature}",
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[:-2]}",
        f"{head}.{claims}.{signature[:-4]}AAAA",
    ):
        assert judged(forged) in {Wrong(), UnknownKey(), None}


def test_a_published_key_is_no_secret_that_signs() -> None:
    public = RSA.as_pem(private=False)
    forged = jwt.encode(
        {"alg": "HS256", "kid": "rsa"},
        {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": NOW + 60},
        OctKey.import_key(base64.urlsafe_b64encode(public).decode()),
        algorithms=["HS256"],
    )
    assert judged(forged) == UnknownKey()


def test_a_key_is_used_for_what_it_was_published_for_and_for_nothing_else() -> None:
    for_encryption = RSAKey.import_key({**RSA.as_dict(), "use": "enc"})
    stated_otherwise = RSAKey.import_key({**RSA.as_dict(), "alg": "PS256"})
    short = json.dumps({"keys": [{**RSA.as_dict(), "n": RSA.as_dict()["n"][:171]}]}).encode()
    odd_curve = ECKey.generate_key("secp256k1", {"kid": "odd"})
    assert len(Keys.read(published(for_encryption)) or ()) == len(Keys.read(short) or ()) == 0
    assert judged(token(), keys(stated_otherwise)) == UnknownKey()
    assert judged(token(NEXT, "ES256", head={"kid": "odd"}), keys(odd_curve, RSA)) == UnknownKey()


def test_a_key_that_is_not_published_yet_is_asked_for() -> None:
    assert judged(token(NEXT, "ES256")) == UnknownKey()
    assert judged(token(NEXT, "ES256"), Keys()) == UnknownKey()
    assert judged(token(NEXT, "ES256"), keys(RSA, NEXT)) == Proven(SUBJECT)
    assert judged(token(NEXT, "ES256", aud="another"), Keys()) == Wrong()  # no key would make it good
    assert judged(token(head={"kid": None})) == Wrong()  # whose of three it is nobody says


def test_what_was_proven_once_is_still_judged_by_its_time() -> None:
    known = keys()
    assert judged(token(), known) == judged(token(), known) == Proven(SUBJECT)
    assert judged(token(), known, NOW + 3600) == Wrong()


def test_as_many_are_remembered_as_there_is_room_for() -> None:
    known, claimed = keys(ED), take_apart(token(ED, "Ed25519"))
    assert claimed is not None
    known._proven.update({bytes([number // 256, number % 256]): "somebody" for number in range(10_000)})
    assert known.judge(claimed, CLUSTER, NOW) == Proven(SUBJECT)
    assert len(known._proven) == 1


@pytest.mark.parametrize(
    "document",
    [
        *[b"", b"{}", b"[]", b"\xff", b'{"keys": 7}', b'{"keys": {}}', b'{"keys": null}', b'{"kty": "RSA"}'],
        b"[" * 100_000,
    ],
)
def test_what_is_no_set_of_keys_is_none(document: bytes) -> None:
    assert Keys.read(document) is None


@pytest.mark.parametrize(
    "document",
    [
        *[b'{"keys": []}', b'{"keys": [7, "x", null]}', b'{"keys": [{}]}'],
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "RSA", "n": 1, "e": []}]}',
    ],
)
def test_a_set_without_a_key_that_can_be_used_has_withdrawn_them_all(document: bytes) -> None:
    known = Keys.read(document)
    assert known is not None
    assert judged(token(), known) == UnknownKey()


@pytest.mark.parametrize(
    "text",
    [
        *["", "eyJ", "eyJ.eyJ.", "a.b.c", "eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9..", "eyJ\xe9"],
        *[token() + "." + "x", token().replace(".", ""), "eyJ" + "A" * 9000],
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert take_apart(text) is None


@pytest.mark.parametrize("head", [{"typ": "logout+jwt"}, {"kid": None, "typ": "secevent+jwt"}, {"typ": "dpop+jwt"}])
def test_a_token_for_something_else_is_wrong(head: dict[str, Any]) -> None:
    assert judged(token(head=head)) == Wrong()
    assert judged(token(head={"typ": "AT+JWT"})) == Proven(SUBJECT)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: "eyJ" + base64.urlsafe_b64encode(raw).decode()))
def test_whatever_is_sent_is_taken_apart_or_not(text: str) -> None:
    assert judged(text) in {None, Wrong(), UnknownKey()}


@given(st.data())
def test_a_token_of_which_one_character_is_another_proves_nothing(data: st.DataObject) -> None:
    good = token(EC, "ES256")
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda one: one != good[at]))
    forged = good[:at] + other + good[at + 1 :]
    last_bits = at == len(good) - 1 or good[at + 1] == "."  # base64 spells the last byte of a part in several ways
    assert judged(forged) != Proven(SUBJECT) or last_bits


def test_a_token_shows_nothing_of_itself() -> None:
    assert repr(take_apart(token())) == "Claimed()"
