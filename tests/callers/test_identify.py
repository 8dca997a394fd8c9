import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers.identify import Callers, Identified, KeyWanted, Means, NotIdentified, Presented
from gateway.callers.issuers import Keys
from gateway.callers.tokens import Tokens
from gateway.policy.callers import Caller, CallerEntry, Issuer
from tests.callers.platform import AUDIENCE, ISSUER, RSA, SUBJECT, published, token


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
BY = {name: Means.ANONYMOUS if name == "anonymous" else Means.SECRET for name in MIXED}


def known(callers: Mapping[str, Caller]) -> Callers:
    """Callers without a platform that vouches for any of them."""
    return Callers(callers, TOKENS, {}, lambda _: Keys())


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
    answer = known(callers).identify(Presented(authorizations, api_keys), NOW)

    assert answer == (Identified(MIXED[who], BY[who]) if who is not None else NotIdentified())


values = st.lists(st.text(max_size=12), max_size=2)


@given(authorizations=values, api_keys=values)
def test_whoever_presents_no_known_secret_is_nobody(authorizations: list[Any], api_keys: list[Any]) -> None:
    callers = known({"billing": caller("billing", "longer than any of these")})

    assert callers.identify(Presented(authorizations, api_keys), NOW) == NotIdentified()


@given(
    st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1).filter(lambda text: text == text.strip())
)
def test_any_secret_identifies_the_caller_who_has_it(secret: str) -> None:
    having = caller("having", secret)
    callers = known({"having": having, "anonymous": ANONYMOUS})

    assert callers.identify(Presented([f"Bearer {secret}"], []), NOW) == Identified(having, Means.SECRET)
    assert callers.identify(Presented([], [secret]), NOW) == Identified(having, Means.SECRET)


def test_the_secret_is_kept_nowhere() -> None:
    callers = known(NAMED)
    callers.identify(Presented(["Bearer alpha"], []), NOW)

    assert "alpha" not in repr(vars(callers))


def test_a_token_stands_for_the_secret_that_it_was_got_for() -> None:
    callers = known(MIXED)
    token = TOKENS.issue("billing", digest("alpha"), NOW, "id-1")

    assert callers.identify(Presented([f"Bearer {token}"], []), NOW) == Identified(BILLING, Means.TOKEN)
    assert callers.identify(Presented([f"Bearer {token}"], ["alpha"]), NOW) == NotIdentified()
    assert callers.identify(Presented([f"Bearer {token}"], []), NOW + 3600) == NotIdentified()


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
    found = known(MIXED).having(name, secrets)

    assert found == ((MIXED[name], digest(who)) if who is not None else None)


# --- certificates and platforms -------------------------------------------------------------------------------------

CLUSTER = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks="/keys.json")


def entry(name: str, **stated: object) -> Caller:
    return Caller(name=name, entry=CallerEntry.model_validate(stated))


MESHED = entry("meshed", certificates=["dns:meshed.example.org", "uri:spiffe://mesh/meshed"], secret_sha256=digest("m"))
WORKLOAD = entry("workload", subjects=[f"cluster/{SUBJECT}"], certificates=["dns:workload.example.org"])
KNOWN = {"billing": BILLING, "meshed": MESHED, "workload": WORKLOAD}
ALL = {**KNOWN, "anonymous": ANONYMOUS}
OWN, THEIRS, NOBODYS = "dns:meshed.example.org", "dns:workload.example.org", "dns:elsewhere.example.org"
GOOD = f"Bearer {token(now=NOW)}"


@pytest.mark.parametrize(
    ("callers", "authorizations", "names", "who", "by"),
    [
        # a name in the certificate, among others that are nobody's
        (KNOWN, [], [OWN], "meshed", Means.CERTIFICATE),
        (KNOWN, [], ["uri:spiffe://mesh/meshed"], "meshed", Means.CERTIFICATE),
        (KNOWN, [], [NOBODYS, OWN, "uri:spiffe://mesh/meshed"], "meshed", Means.CERTIFICATE),
        (ALL, [], [OWN], "meshed", Means.CERTIFICATE),
        # a certificate of two callers, or of nobody
        (KNOWN, [], [OWN, THEIRS], None, None),
        (KNOWN, [], [NOBODYS], None, None),
        (ALL, [], [NOBODYS], None, None),
        (ALL, [], ["dns:MESHED.example.org"], None, None),
        # nobody has a certificate: there is nothing to be wrong about
        (MIXED, [], [NOBODYS], "anonymous", Means.ANONYMOUS),
        # with a secret: it says who asks, unless the certificate is another's
        (KNOWN, ["Bearer m"], [OWN], "meshed", Means.SECRET),
        (KNOWN, ["Bearer alpha"], [NOBODYS], "billing", Means.SECRET),
        (KNOWN, ["Bearer alpha"], [OWN], None, None),
        (KNOWN, ["Bearer nonsense"], [OWN], None, None),
        # a platform's token
        (KNOWN, [GOOD], [], "workload", Means.PLATFORM),
        (KNOWN, [GOOD], [THEIRS], "workload", Means.PLATFORM),
        (KNOWN, [GOOD], [OWN], None, None),
        (KNOWN, [f"Bearer {token(now=NOW, sub='system:serviceaccount:other:default')}"], [], None, None),
        (KNOWN, [f"Bearer {token(now=NOW, iss='https://elsewhere')}"], [], None, None),
        (ALL, [f"Bearer {token(now=NOW - 7200)}"], [], None, None),
        ({"workload": WORKLOAD, "anonymous": ANONYMOUS}, ["Bearer nonsense"], [], None, None),
    ],
)
def test_who_asks_is_known_by_a_certificate_or_a_platform_as_well(
    callers: dict[str, Caller], authorizations: list[str], names: list[str], who: str | None, by: Means | None
) -> None:
    keys = Keys.read(published(RSA)) or Keys()
    found = Callers(callers, TOKENS, {"cluster": CLUSTER}, {"cluster": keys}.__getitem__)

    answer = found.identify(Presented(authorizations, (), names), NOW)

    assert answer == (Identified(callers[who], by) if who is not None and by is not None else NotIdentified())


def test_a_token_of_which_the_key_is_not_known_asks_for_it() -> None:
    found = Callers(KNOWN, TOKENS, {"cluster": CLUSTER}, lambda _: Keys())

    assert found.identify(Presented([GOOD]), NOW) == KeyWanted("cluster")


def test_without_an_issuer_a_platforms_token_is_nobodys() -> None:
    assert known(KNOWN).identify(Presented([GOOD]), NOW) == NotIdentified()


def test_what_is_presented_shows_nothing_of_itself() -> None:
    assert repr(Presented(["Bearer alpha"], ["alpha"], [OWN])) == "Presented()"
