"""A submission that was cut without an answer: its transaction is looked up, and nobody gets another's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.simulator import Options, Simulator
from tests.e2e.conftest import BODY, Running, about, environment, run_gateway
from tests.running import eventually, total
from tests.scripted import Answer, Request, ScriptedUpstream, reply

SPEED = 40.0
SLOW = 10_000.0  # so many times faster the clock runs than the upstream answers: no 504 comes at once
CALLERS = "callers: {anonymous: {}}\n"
SUBMIT = (
    "match: {operations: ['*']}\n"
    "dedup: {mode: enforce, window: 24h}\n"
    "recover: {within: 20s, attempts: 8, pause: 50ms}\n"
)
CUT110 = BODY | {"tradingPartnerServiceId": "SIM-CUT110"}
NEWS = "2999-01-01T00:00:00Z"
Write = Callable[..., str]


def result(name: str) -> str:
    return f'recoveries_total{{operation="submit_eligibility",result="{name}"'


async def submissions(simulator: Simulator, session: Any) -> int:  # noqa: ANN401 - aiohttp's session
    async with session.get(f"{simulator.url}/_simulator/counters") as response:
        return int((await response.json())["submissions_started"])


@pytest.mark.parametrize("own_id", [{}, {"x_optum_correlation_id": "visit-1"}])
async def test_an_answer_that_was_cut_at_110_s_is_found_and_the_retry_costs_nothing(
    own_id: dict[str, str], redis_url: str, policies: Write
) -> None:
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(
            environment(simulator.url, redis_url, policies=policies(callers=CALLERS, all=SUBMIT)), speed=SPEED
        ) as gateway,
    ):
        first = await gateway.submit(CUT110, **own_id)
        again = await gateway.submit(CUT110 | {"controlNumber": "987654321"}, **own_id)
        asked = await submissions(simulator, gateway.session)
        metrics = await gateway.metrics()

    assert (first.status, again.status, asked) == (200, 200, 1)
    assert first.headers["Cache-Status"].endswith("detail=recovered")
    assert again.headers["Cache-Status"].startswith("eligibility-gateway; hit")
    found, replayed = await first.json(), await again.json()
    assert found["correlationId"] == first.headers["x-optum-correlation-id"]
    assert replayed["sourceId"] == found["id"]
    line = gateway.records()[0]
    assert (line["recovery"], line["timed_out_by"], line["status"]) == ("recovered", "", 200)
    assert total(metrics, result("recovered")) == 1
    (told,) = [line for line in gateway.lines() if line["event"] == "recovery"]
    assert (told["recovery"], told["timed_out_by"]) == ("recovered", "enterprise_gateway")
    assert told["correlation_id"] == line["correlation_id"]
    assert told["trace_id"] not in {"", line["trace_id"]}  # of the call that was cut: Optum's support asks for it
    assert gateway.calls() == []
    cut = 'upstream_timeouts_total{operation="submit_eligibility",payer="other",by="enterprise_gateway"'
    assert (total(metrics, cut), total(metrics, "timeouts_total")) == (1, 0)  # a call was cut, no request was
    assert total(metrics, "recovery_lookups_total") >= 1


async def test_a_caller_that_does_not_wait_so_long_finds_it_on_its_retry(redis_url: str, policies: Write) -> None:
    text = SUBMIT + "timeout: {connect: 5s, answer: 60s, caller: 1s}\n"
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(
            environment(simulator.url, redis_url, policies=policies(callers=CALLERS, all=text)), speed=SPEED
        ) as gateway,
    ):
        statuses = [(await gateway.submit(CUT110)).status]
        while statuses[-1] == 504 and len(statuses) < 20:
            statuses.append((await gateway.submit(CUT110)).status)
        asked = await submissions(simulator, gateway.session)

    assert (statuses[0], statuses[-1], asked) == (504, 200, 1)
    assert {line["code"] for line in gateway.records()[:-1]} == {"answer_pending"}


async def test_an_id_that_the_caller_used_before_is_not_looked_up(redis_url: str, policies: Write) -> None:
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(
            environment(simulator.url, redis_url, policies=policies(callers=CALLERS, all=SUBMIT)), speed=SPEED
        ) as gateway,
    ):
        await gateway.submit(about("another"), x_optum_correlation_id="shift-7")
        cut = await gateway.submit(CUT110, x_optum_correlation_id="shift-7")
        metrics = await gateway.metrics()

    assert cut.status == 504
    assert (gateway.records()[-1]["recovery"], gateway.records()[-1]["timed_out_by"]) == (
        "reused",
        "enterprise_gateway",
    )
    assert total(metrics, result("reused")) == 1
    assert total(metrics, "recovery_lookups_total") == 0


async def test_an_id_that_is_used_again_meanwhile_is_worth_nothing_to_either(redis_url: str, policies: Write) -> None:
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(
            environment(simulator.url, redis_url, policies=policies(callers=CALLERS, all=SUBMIT)), speed=SPEED
        ) as gateway,
    ):
        both = await asyncio.gather(
            gateway.submit(CUT110, x_optum_correlation_id="shift-8"),
            gateway.submit(
                CUT110 | {"subscriber": {"memberId": "OTHER2", "dateOfBirth": "19800202"}},
                x_optum_correlation_id="shift-8",
            ),
        )

    assert [one.status for one in both] == [504, 504]
    assert {line["recovery"] for line in gateway.records()} == {"reused"}


class Listing:
    """An upstream that cuts every submission, and lists and gives what it is told."""

    def __init__(self, *transactions: dict[str, Any], list_status: str = "200 OK") -> None:
        self.transactions = transactions
        self.list_status = list_status

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        method, target, _ = request.line.decode().split(" ")
        (correlation_id,) = request.values("x-optum-correlation-id")
        stated = [{"correlationId": correlation_id} | one for one in self.transactions]
        if method == "POST":
            writer.write(reply("504 Gateway Timeout", b'{"error": "timeout", "traceId": "t"}'))
        elif "?" in target:
            writer.write(reply(self.list_status, json.dumps(stated).encode()))
        else:
            writer.write(reply(body=json.dumps(stated[0]).encode()))


@asynccontextmanager
async def cut_by(
    answer: Answer, directory: str, redis_url: str, speed: float = SLOW
) -> AsyncIterator[tuple[ScriptedUpstream, Running]]:
    """A gateway with these policies, and the upstream that it faces."""
    async with (
        ScriptedUpstream(answer=answer) as upstream,
        run_gateway(environment(upstream.url, redis_url, policies=directory), speed=speed) as gateway,
    ):
        yield upstream, gateway


def transaction(**differing: object) -> dict[str, Any]:
    return {
        "id": "t-1",
        "sourceType": "new",
        "processedDate": NEWS,
        "status": {"value": "eligible"},
        "payer": {"chcId": "SIM-INSTANT"},
        "patient": {"memberId": "TESTMEMBER1", "dateOfBirth": "1970-01-01", "firstName": "ADA"},
    } | differing


OTHERS = [
    (transaction(patient={"memberId": "SOMEBODY-ELSE", "dateOfBirth": "1970-01-01"}), "reused"),
    (transaction(patient={"memberId": "TESTMEMBER1", "dateOfBirth": "1970-01-02"}), "reused"),
    (transaction(patient={"memberId": "TESTMEMBER1", "firstName": "Grace"}), "reused"),
    (transaction(patient={}), "reused"),
    (transaction(payer={"chcId": "ANOTHER"}), "reused"),
    (transaction(processedDate="2020-01-01T00:00:00Z"), "reused"),
    (transaction(processedDate="soon"), "reused"),
    (transaction(correlationId="of-another"), "not_found"),
    (transaction(sourceType="autosubmit"), "not_found"),
    (transaction(id="../../other"), "not_found"),
    (transaction(sourceType=[]), "not_found"),
    (transaction(status=None), "not_found"),
    (transaction(status={"value": "in_progress"}), "not_found"),
]


@pytest.mark.parametrize(("found", "told"), OTHERS)
async def test_what_may_be_anothers_is_never_taken(
    found: dict[str, Any], told: str, redis_url: str, policies: Write
) -> None:
    text = SUBMIT.replace("attempts: 8", "attempts: 2")
    directory = policies(callers=CALLERS, all=text)
    async with cut_by(Listing(found), directory, redis_url) as (_, gateway):
        response = await gateway.submit()
        metrics = await gateway.metrics()

    assert (response.status, gateway.records()[-1]["recovery"]) == (504, told)
    assert total(metrics, result(told)) == 1


async def test_the_one_that_is_the_callers_own_is_taken(redis_url: str, policies: Write) -> None:
    directory = policies(callers=CALLERS, all=SUBMIT)
    async with cut_by(Listing(transaction()), directory, redis_url) as (upstream, gateway):
        response = await gateway.submit()

    assert (response.status, (await response.json())["id"]) == (200, "t-1")
    listing = upstream.requests[1].line.decode()
    assert f"correlationId={response.headers['x-optum-correlation-id']}&startDateTime=" in listing
    assert upstream.requests[2].line.decode().startswith("GET /rcm/eligibility/v1/transactions/t-1 ")
    assert upstream.requests[1].values("authorization") == ["Bearer scripted-token"]


async def test_two_under_one_id_are_nobodys(redis_url: str, policies: Write) -> None:
    async with cut_by(
        Listing(transaction(), transaction(id="t-2")), policies(callers=CALLERS, all=SUBMIT), redis_url
    ) as (_, gateway):
        response = await gateway.submit()

    assert (response.status, gateway.records()[-1]["recovery"]) == (504, "reused")


async def test_a_list_that_may_not_be_read_is_not_asked_for_again(redis_url: str, policies: Write) -> None:
    directory = policies(callers=CALLERS, all=SUBMIT)
    async with cut_by(Listing(list_status="403 Forbidden"), directory, redis_url) as (_, gateway):
        response = await gateway.submit()
        metrics = await gateway.metrics()

    assert (response.status, gateway.records()[-1]["recovery"]) == (504, "unavailable")
    assert total(metrics, "recovery_lookups_total") == 1


async def test_without_the_clause_nothing_is_looked_up(redis_url: str, policies: Write) -> None:
    text = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 24h}\n"
    directory = policies(callers=CALLERS, all=text)
    async with cut_by(Listing(transaction()), directory, redis_url) as (upstream, gateway):
        response = await gateway.submit()

    assert (response.status, len(upstream.requests), gateway.records()[-1]["recovery"]) == (504, 1, "")


@pytest.mark.parametrize("policy", ["recovering", "another"])
async def test_an_id_that_we_made_and_a_caller_uses_again_finds_nobody_elses_answer(
    policy: str, redis_url: str, policies: Write
) -> None:
    """The same patient, another day of service: what the transaction states would agree."""
    files = {"callers": "callers: {anonymous: {}}\n", "all": SUBMIT}
    if policy == "another":
        files["x12"] = "match: {operations: [submit_eligibility]}\n"
        files["all"] = SUBMIT.replace("['*']", "[submit_eligibility_x12, list_transactions, get_transaction]")
    eligible = reply(body=b'{"id": "t-1", "sourceType": "new", "status": {"value": "eligible"}}')
    listing = Listing(transaction())

    async def first_good_then_cut(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(upstream.requests) == 1:
            writer.write(eligible)
        else:
            await listing(request, writer)

    async with cut_by(first_good_then_cut, policies(**files), redis_url) as (upstream, gateway):
        first = await gateway.submit()
        made = first.headers["x-optum-correlation-id"]
        other_day = BODY | {"encounter": {"dateOfService": "20260131", "serviceTypeCodes": ["98"]}}
        if policy == "recovering":
            cut = await gateway.submit(other_day, x_optum_correlation_id=made)
        else:
            x12 = f"{gateway.url}/rcm/eligibility/v1/real-time/x12"
            cut = await gateway.session.post(x12, json={"x12": "ISA*00*~"}, headers={"x-optum-correlation-id": made})

    assert (cut.status, gateway.records()[-1]["recovery"]) == (504, "reused")


async def test_a_504_that_comes_at_once_is_an_outage_and_nobody_waits_for_it(redis_url: str, policies: Write) -> None:
    directory = policies(callers=CALLERS, all=SUBMIT)
    async with cut_by(Listing(transaction()), directory, redis_url, speed=1.0) as (upstream, gateway):
        response = await gateway.submit()

    assert (response.status, len(upstream.requests), gateway.records()[-1]["recovery"]) == (504, 1, "")


async def test_a_list_that_may_not_be_read_costs_nobody_the_token(redis_url: str, policies: Write) -> None:
    directory = policies(callers=CALLERS, all=SUBMIT)
    async with cut_by(Listing(list_status="401 Unauthorized"), directory, redis_url) as (upstream, gateway):
        response = await gateway.submit()

    assert (response.status, gateway.records()[-1]["recovery"]) == (504, "unavailable")
    assert upstream.tokens == 1


@pytest.mark.parametrize(("own_id", "came_of_it"), [({}, "recovered"), ({"x_optum_correlation_id": "v-1"}, "reused")])
async def test_where_it_was_turned_on_just_now_an_id_of_a_callers_own_may_have_been_used_before(
    own_id: dict[str, str], came_of_it: str, redis_url: str, policies: Write
) -> None:
    directory = policies(callers=CALLERS, all=SUBMIT.partition("recover:")[0])
    async with (
        Simulator(Options(speed=SPEED)) as simulator,
        run_gateway(
            environment(simulator.url, redis_url, policies=directory, policies_poll_s="0.05"), speed=SPEED
        ) as gateway,
    ):
        policies(all=SUBMIT)

        async def looks_up() -> bool:
            async with gateway.session.get(f"{gateway.admin_url}/policies") as response:
                return bool((await response.json())["policies"]["all"]["recover"]["within"] == "20s")

        await eventually(looks_up)
        await gateway.submit(CUT110, **own_id)

    assert gateway.records()[-1]["recovery"] == came_of_it
