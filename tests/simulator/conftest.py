"""A simulator per test on a free port, and a session that has its token."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector

from gateway.operations import TOKEN_PATH
from gateway.simulator import Options, Simulator

# A token outlives every test, however slow the machine.
DEFAULTS = {"speed": 600.0, "token_life_s": 600_000.0}
DEADLINE_S = 10.0
CREDENTIALS = {"client_id": "simulator", "client_secret": "simulator-secret"}
ISA = (
    "ISA*00*          *00*          *ZZ*TESTSENDER     *ZZ*TESTRECEIVER   *260102*1030*^*00501*{control}*0*T*:~"
    "GS*HS*TESTSENDER*TESTRECEIVER*20260102*1030*1*X*005010X279A1~"
)
INQUIRY = (
    "ST*270*0001*005010X279A1~BHT*0022*13*{control}*20260102*1030~HL*1**20*1~"
    "NM1*PR*2*SOME PAYER*****PI*{payer}~HL*2*1*21*1~NM1*1P*2*CLINIC OF TESTING*****XX*1234567893~"
    "HL*3*2*22*0~TRN*1*{control}*9TESTSENDER~NM1*IL*1*ROE*RICHARD****MI*M0001~REF*EJ*ACC77~"
    "DMG*D8*19710304*M~DTP*291*D8*20260102~EQ*30^98~SE*13*0001~GE*1*1~IEA*1*{control}~"
)


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[ClientSession]]]:
    """Start a simulator with the options given and open a session that bears its token."""
    async with AsyncExitStack() as stack:

        async def connected(**options: Any) -> ClientSession:  # noqa: ANN401 - each option has its own type
            simulator = await stack.enter_async_context(Simulator(Options(**(DEFAULTS | options))))
            session = await stack.enter_async_context(
                ClientSession(base_url=simulator.url, connector=TCPConnector(limit=0)),
            )
            await authorize(session)
            return session

        yield connected


async def authorize(session: ClientSession) -> None:
    async with session.post(TOKEN_PATH, json=CREDENTIALS | {"grant_type": "client_credentials"}) as response:
        session.headers["authorization"] = f"Bearer {(await response.json())['access_token']}"


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Poll a condition until it holds; a deadline turns a wait without end into a failure."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        give_up_at = time.monotonic() + DEADLINE_S
        while not await condition():
            assert time.monotonic() < give_up_at, "the condition never came true"
            await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def body_for() -> Callable[..., dict[str, Any]]:
    """Write a JSON 270 for a payer; keyword arguments replace whole fields."""

    def body(payer: str, **changes: object) -> dict[str, Any]:
        return {
            "controlNumber": "100000001",
            "tradingPartnerServiceId": payer,
            "provider": {"organizationName": "Clinic of Testing", "npi": "1234567893"},
            "subscriber": {
                "memberId": "M0001",
                "firstName": "Richard",
                "lastName": "Roe",
                "gender": "M",
                "dateOfBirth": "19710304",
                "additionalIdentification": {"patientAccountNumber": "ACC77"},
            },
            "encounter": {"dateOfService": "20260102", "serviceTypeCodes": ["30", "98"]},
        } | changes

    return body


@pytest.fixture
def x12_for() -> Callable[..., str]:
    """Write an X12 270 for a payer."""

    def x12(payer: str, control: str = "100000001") -> str:
        return ISA.format(control=control) + INQUIRY.format(control=control, payer=payer)

    return x12
