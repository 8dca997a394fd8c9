import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.payer import payer_of

PAYERS = frozenset({"PAYER-1", "60054", "ACME HEALTH"})
X12 = "ISA*00*~NM1*PR*2*SOME PAYER*****PI*{}~HL*2*1*21*1~NM1*1P*2*CLINIC*****XX*1234567893~"


@pytest.mark.parametrize("payer", sorted(PAYERS))
@pytest.mark.parametrize("separator", ["*", "|", "^"])
def test_a_payer_of_the_list_is_named_in_json_and_in_x12(payer: str, separator: str) -> None:
    assert payer_of(json.dumps({"a": 1, "tradingPartnerServiceId": payer}).encode(), PAYERS) == payer
    x12 = X12.format(payer).replace("*", separator)
    assert payer_of(json.dumps({"x12": x12}).encode(), PAYERS) == payer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"tradingPartnerServiceId": "NOT-LISTED"}',
        b'{"tradingPartnerServiceId": 60054}',
        b'{"tradingPartnerServiceId": ""}',
        json.dumps({"x12": X12.format("NOT-LISTED")}).encode(),
        b'{"x12": "NM1*PR*2*SHORT"}',
        b'{"x12": "NM1*PR*2*A*****PI*~"}',
        b'{"x12": "NM1*IL*1*A*****MI*60054~"}',
    ],
)
def test_any_other_is_other(body: bytes) -> None:
    assert payer_of(body, PAYERS) == "other"


def test_without_a_list_nobody_is_looked_for() -> None:
    assert payer_of(b'{"tradingPartnerServiceId": "60054"}', frozenset()) == "other"


@given(st.binary(max_size=200))
def test_whatever_comes_only_the_list_leaves(body: bytes) -> None:
    assert payer_of(body, PAYERS) in PAYERS | {"other"}
