"""Two interchanges are one question, or two."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dedup.canonical import FieldRules, NotCanonical, Unreadable
from gateway.dedup.fingerprint import Asker, Question, read_question
from gateway.dedup.x12 import canonical_x12
from gateway.sealing import Sealing, new_key


def interchange(*body: str, number: str = "000000001", element: str = "*", end: str = "~", composite: str = ":") -> str:
    segments = [
        f"ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1200*^*00501*{number}*0*T*:",
        f"GS*HS*SENDER*RECEIVER*20260102*1200*{number}*X*005010X279A1",
        f"ST*270*{number[-4:]}*005010X279A1",
        f"BHT*0022*13*{number}*20260102*1200",
        "HL*1**20*1",
        "NM1*PR*2*PAYER*****PI*SIM-FAST",
        f"TRN*1*{number}*9000000000",
        *body,
        f"SE*9*{number[-4:]}",
        f"GE*1*{number}",
        f"IEA*1*{number}",
    ]
    return "".join(segment.replace("*", element).replace(":", composite) + end for segment in segments)


ADA = "NM1*IL*1*SAMPLE*ADA****MI*MEMBER1"
DATE = "DTP*291*D8*20260102"


def test_numbers_dates_and_delimiters_of_the_envelope_do_not_matter() -> None:
    plain = canonical_x12(interchange(ADA, DATE))
    assert canonical_x12(interchange(ADA, DATE, number="987654321")) == plain
    assert canonical_x12(interchange(ADA, DATE, element="|", end="\n", composite=">")) == plain
    assert canonical_x12(interchange(ADA, DATE, end="~\r\n")) == plain
    assert canonical_x12("\n" + interchange(ADA, DATE) + "\n") == plain


@pytest.mark.parametrize(
    "body",
    [
        (DATE, ADA),
        (ADA,),
        (ADA, "DTP*291*D8*20260103"),
        (ADA.replace("MEMBER1", "MEMBER2"), DATE),
        (ADA.replace("ADA", "ada"), DATE),
        (ADA, DATE, "EQ*30"),
    ],
)
def test_whatever_else_differs_is_another_question(body: tuple[str, ...]) -> None:
    assert canonical_x12(interchange(*body)) != canonical_x12(interchange(ADA, DATE))


def test_components_and_repetitions_are_not_confused_with_plain_text() -> None:
    assert canonical_x12(interchange("EQ*30^1")) != canonical_x12(interchange("EQ*30:1"))
    assert canonical_x12(interchange("EQ*30:1", composite=">")) == canonical_x12(interchange("EQ*30:1"))


def test_a_component_sign_that_is_no_delimiter_here_is_text() -> None:
    text = interchange("MSG*a>b")
    assert canonical_x12(text) != canonical_x12(interchange("MSG*a:b"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ISA*00*",
        interchange(ADA)[:-1],
        interchange(ADA)[:-20],
        interchange(ADA) + interchange(ADA),
        interchange(ADA).replace("ISA", "XSA", 1),
        interchange(ADA).replace("~", ""),
        interchange(ADA).replace("~NM1*PR", "~~NM1*PR"),
        "ISA" + "A" * 103 + "~",
    ],
)
def test_what_is_torn_or_no_interchange_is_not_canonical(text: str) -> None:
    with pytest.raises(NotCanonical) as caught:
        canonical_x12(text)
    assert caught.value.reason is Unreadable.NOT_X12


@given(st.text(max_size=200) | st.text("ISA*~:^0123456789 ", min_size=100, max_size=130))
def test_however_odd_the_text_it_is_read_or_refused(text: str) -> None:
    try:
        canonical_x12(text)
    except NotCanonical as error:
        assert error.reason is Unreadable.NOT_X12  # noqa: PT017 - either is fine, nothing else is


@given(st.integers(0, 400))
def test_an_interchange_that_was_cut_anywhere_is_not_canonical(cut: int) -> None:
    whole = interchange(ADA, DATE)
    with pytest.raises(NotCanonical):
        canonical_x12(whole[: min(cut, len(whole) - 1)])


@given(st.lists(st.text("A*:^ \t\u00a0", max_size=4), max_size=6))
def test_whatever_stands_between_the_envelopes_is_read_or_refused(segments: list[str]) -> None:
    whole = interchange(ADA)
    head, tail = whole[:106], whole[whole.rindex("IEA") :]
    with suppress(NotCanonical):
        canonical_x12(head + "".join(f"{segment}~" for segment in segments) + tail)


def x12_body(text: str, **more: str) -> bytes:
    return json.dumps({"x12": text, **more}).encode()


def test_a_body_that_holds_an_interchange_is_read_as_one() -> None:
    rules = FieldRules(ignored=frozenset({"controlNumber"}))
    one = read_question(x12_body(interchange(ADA), controlNumber="1"), rules, is_x12=True)
    two = read_question(x12_body(interchange(ADA, number="000000009")), rules, is_x12=True)
    assert one == two
    for body in (b"{}", b'{"x12": 7}', x12_body("no")):
        with pytest.raises(NotCanonical):
            read_question(body, rules, is_x12=True)


ASKER = Asker(upstream="https://api", credential="client", subtenant="sub", caller="")


@given(
    one=st.tuples(*[st.text(max_size=3)] * 6),
    two=st.tuples(*[st.text(max_size=3)] * 6),
)
def test_whoever_differs_in_any_part_asks_another_question(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    name = Sealing([new_key("a")]).name

    def key(texts: tuple[str, ...]) -> bytes:
        upstream, credential, subtenant, caller, query, scenarios = texts
        asker = Asker(upstream=upstream, credential=credential, subtenant=subtenant, caller=caller)
        headers = (("x-optum-rcmelig-mock-scenarios", scenarios),)
        return Question({"a": 1}, b"").key(name, "submit_eligibility", asker, query=query, headers=headers)

    assert (key(one) == key(two)) is (one == two)
