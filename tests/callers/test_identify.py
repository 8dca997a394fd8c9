import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers.identify import Callers, Identified, NotIdentified
from gateway.callers.tokens import Tokens
from gateway.policy.callers import Caller, CallerEntry


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def caller(name: str, *secrets: str) -> Caller:
    return Caller(name=name, entry=CallerEntry(secret_sha256=tuple(digest(secret) for secret in secrets)))


NOW = 1_800_000_000.0
TOKENS = Tokens([("kid", bytes(32))])
BILLING = caller("billing", "alpha", "alpha-next")
SCHEDULING = Caller(name="scheduling", entry=CallerEntry(secret_sha256=digest("beta")))
ODD = caller("odd", "gr\udcfcn")
ANONYMOUS = caller("anonymous")
NAMED = {"billing": BILLING, "scheduling": SCHEDULING, "odd": ODD}
MIXED = {**NAMED, "anonymous": ANONYMOUS}
OPEN = {"anonymous": ANONYMOUS, "idle": caller("idle")}
SHUT = {"idle": caller("idle")}


@pytest.mark.parametrize(
    ("callers", "authorizations", "api_keys", "who"),
    [
        # one secret, in either place, in any spelling of the scheme
        (NAMED, ["Bearer alpha"], [], "billing"),
        (NAMED, ["bearer alpha"], [], "billing"),
        (NAMED, ["BEARER   alpha "], [], "billing"),
        (NAMED, [], ["alpha"], "billing"),
        (NAMED, [], ["alpha-next"], "billing"),
        (NAMED, ["Bearer beta"], [], "scheduling"),
        (NAMED, [], ["gr\udcfcn"], "odd"),
        # the same secret twice is one secret; two that differ are a refusal, whatever each is
        (NAMED, ["Bearer alpha"], ["alpha"], "billing"),
        (NAMED, ["Bearer alpha", "Bearer alpha"], ["alpha", "alpha"], "billing"),
        (NAMED, ["Bearer alpha"], ["beta"], None),
        (NAMED, ["Bearer alpha"], ["alpha-next"], None),
        (NAMED, ["Bearer alpha", "Bearer nonsense"], [], None),
        (NAMED, [], ["alpha", ""], None),
        (MIXED, ["Bearer alpha"], ["beta"], None),
        # a secret that is nobody's is a refusal, also where anonymous is allowed
        (NAMED, ["Bearer nonsense"], [], None),
        (MIXED, ["Bearer nonsense"], [], None),
        (MIXED, [], ["ALPHA"], None),
        (MIXED, [], [" alpha"], None),
        (MIXED, [""], [], None),
        (MIXED, [], [""], None),
        (MIXED, ["Bearer"], [], None),
        (MIXED, ["Bearer "], [], None),
        (MIXED, ["Basic alpha"], [], None),
        (MIXED, ["Bearer Bearer alpha"], [], None),
        (MIXED, [f"Bearer {digest('alpha')}"], [], None),
        # nothing presented
        (NAMED, [], [], None),
        (MIXED, [], [], "anonymous"),
        # nobody has a secret: there is nothing to be wrong about
        (OPEN, [], [], "anonymous"),
        (OPEN, ["Bearer whatever"], ["else"], "anonymous"),
        (SHUT, [], [], None),
        (SHUT, ["Bearer whatever"], [], None),
        ({}, [], [], None),
    ],
)
def test_who_asks_is_known_by_one_secret(
    callers: dict[str, Caller],
    authorizations: list[str],
    api_keys: list[str],
    who: str | None,
) -> None:
    answer = Callers(callers, TOKENS).identify(authorizations, api_keys, NOW)

    assert answer == (Identified(MIXED[who]) if who is not None else NotIdentified())


values = st.lists(st.text(max_size=12), max_size=2)


@given(authorizations=values, api_keys=values)
def test_whoever_presents_no_known_secret_is_nobody(authorizations: list[Any], api_keys: list[Any]) -> None:
    callers = Callers({"billing": caller("billing", "longer than any of these")}, TOKENS)

    assert callers.identify(authorizations, api_keys, NOW) == NotIdentified()


@given(
    st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1).filter(lambda text: text == text.strip())
)
def test_any_secret_identifies_the_caller_who_has_it(secret: str) -> None:
    having = caller("having", secret)
    callers = Callers({"having": having, "anonymous": ANONYMOUS}, TOKENS)

    assert callers.identify([f"Bearer {secret}"], [], NOW) == Identified(having)
    assert callers.identify([], [secret], NOW) == Identified(having)


def test_the_secret_is_kept_nowhere() -> None:
    callers = Callers(NAMED, TOKENS)
    callers.identify(["Bearer alpha"], [], NOW)

    assert "alpha" not in repr(vars(callers))


def test_a_token_stands_for_the_secret_that_it_was_got_for() -> None:
    callers = Callers(MIXED, TOKENS)
    token = TOKENS.issue("billing", digest("alpha"), NOW, "id-1")

    assert callers.identify([f"Bearer {token}"], [], NOW) == Identified(BILLING)
    assert callers.identify([f"Bearer {token}"], ["alpha"], NOW) == NotIdentified()
    assert callers.identify([f"Bearer {token}"], [], NOW + 3600) == NotIdentified()


@pytest.mark.parametrize(
    ("name", "secrets", "who"),
    [
        ("billing", ("alpha",), "alpha"),
        ("billing", ("nonsense", "alpha-next"), "alpha-next"),
        ("billing", ("beta",), None),
        ("billing", (digest("alpha"),), None),
        ("scheduling", ("alpha",), None),
        ("anonymous", ("alpha",), None),
        ("anonymous", ("",), None),
        ("nobody", ("alpha",), None),
        ("billing", ("\ud800",), None),
        ("billing", (), None),
    ],
)
def test_whoever_shows_a_callers_secret_has_its_name(name: str, secrets: tuple[str, ...], who: str | None) -> None:
    found = Callers(MIXED, TOKENS).having(name, secrets)

    assert found == ((MIXED[name], digest(who)) if who is not None else None)
