import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientSession

from gateway.operations import BASE_PATH

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Body = Callable[..., dict[str, Any]]
X12 = Callable[..., str]
TRANSACTIONS = f"{BASE_PATH}/transactions"


async def submit(session: ClientSession, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(BASE_PATH, json=body, headers=named) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def get(session: ClientSession, path: str) -> Any:  # noqa: ANN401 - JSON
    async with session.get(path) as response:
        return await response.json()


async def counters(session: ClientSession) -> dict[str, Any]:
    return dict(await get(session, "/_simulator/counters"))


async def test_the_same_patient_has_the_same_benefits_under_a_new_id(connect: Connect, body_for: Body) -> None:
    session = await connect()
    first = await submit(session, body_for("SIM-INSTANT"))
    again = await submit(session, body_for("SIM-INSTANT", controlNumber="100000002"))
    assert first["benefits"] == again["benefits"]
    assert first["plan"] == again["plan"]
    assert first["id"] != again["id"]
    other = await submit(session, body_for("SIM-INSTANT", encounter={"dateOfService": "20260103"}))
    assert other["benefits"] != first["benefits"]


async def test_the_x12_form_finds_the_payer_in_nm1_pr(connect: Connect, x12_for: X12) -> None:
    session = await connect()
    async with session.post(f"{BASE_PATH}/real-time/x12", json={"x12": x12_for("SIM-INELIGIBLE")}) as response:
        document = await response.json()
    assert document["status"]["value"] == "ineligible"
    assert document["payer"]["chcId"] == "SIM-INELIGIBLE"
    assert document["subscriber"]["memberId"] == "M0001"


async def test_a_sandbox_scenario_changes_the_x12_answer_only_if_spelled_exactly(
    connect: Connect,
    x12_for: X12,
) -> None:
    session = await connect()
    found = []
    for scenario in ("patient_unknown", "Patient_Unknown"):
        async with session.post(
            f"{BASE_PATH}/real-time/x12",
            json={"x12": x12_for("SIM-INSTANT")},
            headers={"x-optum-rcmelig-mock-scenarios": scenario},
        ) as response:
            found.append((await response.json())["status"]["value"])
    assert found == ["patient_unknown", "eligible"]


async def test_a_large_answer_is_above_100_kb(connect: Connect, body_for: Body) -> None:
    session = await connect()
    async with session.post(BASE_PATH, json=body_for("SIM-LARGE")) as response:
        assert len(await response.read()) > 100_000


async def test_headers_are_echoed_and_made_up_where_they_are_missing(connect: Connect, body_for: Body) -> None:
    session = await connect()
    sent = {"x-optum-correlation-id": "corr-1", "x-optum-subtenant-id": "sub-1", "x-optum-tenant-id": "forged"}
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT"), headers=sent) as response:
        assert response.headers["x-optum-correlation-id"] == "corr-1"
        assert response.headers["x-optum-subtenant-id"] == "sub-1"
        assert response.headers["x-optum-tenant-id"] != "forged"
        assert (await response.json())["correlationId"] == "corr-1"
        trace = response.headers["x-optum-trace-id"]
    async with session.post(BASE_PATH, json=body_for("SIM-INSTANT")) as response:
        assert len(response.headers["x-optum-correlation-id"]) == 36
        assert "x-optum-subtenant-id" not in response.headers
        assert response.headers["x-optum-trace-id"] != trace


async def test_a_stored_transaction_is_found_by_id_and_by_correlation_id(connect: Connect, body_for: Body) -> None:
    session = await connect()
    document = await submit(session, body_for("SIM-INSTANT"), x_optum_correlation_id="corr-7")
    await submit(session, body_for("SIM-INSTANT"), x_optum_correlation_id="corr-8")
    assert await get(session, f"{TRANSACTIONS}/{document['id']}") == document
    assert await get(session, f"{TRANSACTIONS}?correlationId=corr-7") == [document]
    async with session.get(f"{TRANSACTIONS}/no-such-id") as response:
        assert response.status == 404
        assert all(isinstance(problem, str) for problem in await response.json())


async def test_one_tenant_does_not_see_what_another_one_submitted(connect: Connect, body_for: Body) -> None:
    session = await connect(credentials=(("simulator", "simulator-secret"), ("second", "second-secret")))
    document = await submit(session, body_for("SIM-INSTANT"))
    body = {"client_id": "second", "client_secret": "second-secret", "grant_type": "client_credentials"}
    async with session.post("/apip/auth/v2/token", json=body) as response:
        session.headers["authorization"] = f"Bearer {(await response.json())['access_token']}"
    assert await get(session, TRANSACTIONS) == []
    async with session.get(f"{TRANSACTIONS}/{document['id']}") as response:
        assert response.status == 404


async def test_pages_follow_each_other_and_keep_their_filters(connect: Connect, body_for: Body) -> None:
    session = await connect()
    for number in range(5):
        await submit(session, body_for("SIM-INSTANT"), x_optum_correlation_id=f"corr-{number}")
    await submit(session, body_for("SIM-NOTFOUND"))
    path = f"{TRANSACTIONS}?status=eligible&limit=2&returnTotalCount=true&sort=processedDate"
    seen = []
    while path:
        async with session.get(path) as response:
            assert response.headers["x-total-count"] == "5"
            seen += [document["correlationId"] for document in await response.json()]
            link = response.headers.get("link", "")
            assert not link or link.endswith('>; rel="next"')
            path = f"{BASE_PATH}{link[1 : link.index('>')]}" if link else ""
    assert seen == [f"corr-{number}" for number in range(5)]


async def test_each_filter_leaves_only_what_fits(connect: Connect, body_for: Body) -> None:
    session = await connect()
    await submit(session, body_for("SIM-INSTANT"))
    other = body_for("SIM-NOTFOUND", provider={"npi": "1112223334"})
    other["subscriber"] = {"memberId": "M0002", "firstName": "Jane", "lastName": "Poe", "dateOfBirth": "19800102"}
    document = await submit(session, other)
    for query in (
        "status=payer_not_in_system",
        "status=payer_not_in_system,ineligible",
        "status=ineligible&status=payer_not_in_system",
        "patientFirstName=jane",
        "patientLastName=POE",
        "memberId=M0002",
        "payerId=SIM-NOTFOUND",
        "npi=1112223334",
        "patientDateOfBirth=1980-01-02",
        "limit=1",
        "sort=processedDate&offset=1",
    ):
        found = await get(session, f"{TRANSACTIONS}?{query}")
        assert [transaction["id"] for transaction in found] == [document["id"]], query
    assert await get(session, f"{TRANSACTIONS}?endDateTime=2001-01-01T00:00:00Z") == []
    assert len(await get(session, f"{TRANSACTIONS}?startDateTime=2001-01-01T00:00:00Z")) == 2
    assert len(await get(session, f"{TRANSACTIONS}?patientAccountNumber=ACC77")) == 1


async def test_nonsense_in_a_query_is_refused(connect: Connect) -> None:
    session = await connect()
    for query in (
        "limit=0",
        "limit=101",
        "offset=-1",
        "limit=ten",
        "status=lucky",
        "sort=name",
        "startDateTime=yesterday",
        "startDateTime=2026-01-02T00:00:00Z&endDateTime=2026-01-01T00:00:00Z",
    ):
        async with session.get(f"{TRANSACTIONS}?{query}") as response:
            assert response.status == 400, query


async def test_nonsense_in_a_body_is_refused_in_the_contracts_shape(
    connect: Connect,
    body_for: Body,
    x12_for: X12,
) -> None:
    session = await connect()
    good = body_for("SIM-INSTANT")
    x12 = f"{BASE_PATH}/real-time/x12"
    cases: tuple[tuple[str, Any, int], ...] = (
        (BASE_PATH, b"{", 400),
        (BASE_PATH, b"[]", 400),
        (BASE_PATH, b'{"a": NaN}', 400),
        (BASE_PATH, {name: value for name, value in good.items() if name != "subscriber"}, 422),
        (BASE_PATH, {name: value for name, value in good.items() if name != "encounter"}, 422),
        (BASE_PATH, good | {"encounter": {}}, 422),
        (BASE_PATH, good | {"encounter": {"dateOfService": "20260231"}}, 422),
        (BASE_PATH, good | {"controlNumber": "12345678"}, 422),
        (BASE_PATH, good | {"controlNumber": "12345678x"}, 422),
        (BASE_PATH, good | {"controlNumber": 123456789}, 422),
        (BASE_PATH, good | {"dependents": []}, 422),
        (x12, {}, 422),
        (x12, {"x12": "NM1*PR"}, 422),
        (x12, {"x12": x12_for("SIM-INSTANT").replace("ST*270", "ST*271")}, 422),
        (x12, {"x12": x12_for("SIM-INSTANT").replace("NM1*IL", "NM1*XX")}, 422),
    )
    for path, body, status in cases:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with session.post(path, **sent) as response:
            assert response.status == status, body
            problems = await response.json()
            assert problems
            assert all(isinstance(problem, str) for problem in problems)


async def test_a_refusal_names_every_problem(connect: Connect) -> None:
    session = await connect()
    async with session.post(BASE_PATH, json={"controlNumber": "1"}) as response:
        text = " ".join(await response.json())
    assert "subscriber" in text
    assert "encounter" in text
    assert "controlNumber" in text


async def test_unknown_paths_and_methods_are_told_apart(connect: Connect) -> None:
    session = await connect()
    async with session.get(f"{BASE_PATH}/nothing-here") as response:
        assert response.status == 404
    async with session.delete(TRANSACTIONS) as response:
        assert response.status == 405
        assert response.headers["allow"] == "GET"
    async with session.get(f"{BASE_PATH}/coverage-discovery/x12") as response:
        assert response.status == 405
    async with session.get("/apip/auth/v2/token") as response:
        assert response.status == 405


async def test_a_payer_that_is_not_in_the_table_is_eligible(connect: Connect, body_for: Body) -> None:
    session = await connect()
    assert (await submit(session, body_for("60054")))["status"]["value"] == "eligible"


async def test_the_caller_is_cut_at_110_s_and_the_transaction_is_stored_all_the_same(
    connect: Connect,
    body_for: Body,
    until: Until,
) -> None:
    session = await connect()
    headers = {"x-optum-correlation-id": "corr-cut"}
    async with session.post(BASE_PATH, json=body_for("SIM-CUT110"), headers=headers) as response:
        assert response.status == 504
        assert set(await response.json()) == {"error", "error_description", "traceId"}
        assert "x-optum-trace-id" not in response.headers

    async def stored() -> bool:
        return bool(await get(session, f"{TRANSACTIONS}?correlationId=corr-cut"))

    await until(stored)
    assert (await counters(session))["gateway_cuts"] == 1


async def test_without_the_cut_the_same_payer_is_waited_for(connect: Connect, body_for: Body) -> None:
    session = await connect(enterprise_gateway_cut_s=None)
    assert (await submit(session, body_for("SIM-CUT110")))["status"]["value"] == "eligible"
    assert (await submit(session, body_for("SIM-TIMEOUT")))["status"]["value"] == "payer_unavailable"


async def test_payers_beside_the_cut_are_never_cut(connect: Connect, body_for: Body) -> None:
    session = await connect()
    assert (await submit(session, body_for("SIM-UNCUT")))["status"]["value"] == "eligible"
    assert (await submit(session, body_for("SIM-TIMEOUT-UNCUT")))["status"]["value"] == "payer_unavailable"


async def test_a_transaction_whose_caller_has_left_is_stored_when_it_finishes(
    connect: Connect,
    body_for: Body,
    until: Until,
) -> None:
    session = await connect(speed=60)
    caller = asyncio.create_task(submit(session, body_for("SIM-SLOW"), x_optum_correlation_id="corr-left"))

    async def started() -> bool:
        return bool((await counters(session))["submissions_started"] == 1)

    async def left() -> bool:
        return bool((await counters(session))["disconnects"] == 1)

    async def stored() -> bool:
        return bool(await get(session, f"{TRANSACTIONS}?correlationId=corr-left"))

    await until(started)
    caller.cancel()
    await until(left)
    await until(stored)
    assert (await counters(session))["submissions_processed"] == 1


async def test_upstreams_own_deduplication_answers_with_the_source(connect: Connect, body_for: Body) -> None:
    session = await connect(deduplicate=True)
    first = await submit(session, body_for("SIM-FAST"))
    again = await submit(session, body_for("SIM-FAST", controlNumber="100000002", submitterTransactionIdentifier="x"))
    assert first["sourceType"] == "new"
    assert (again["sourceType"], again["sourceId"]) == ("duplicate", first["id"])
    assert again["benefits"] == first["benefits"]
    off = await submit(session, body_for("SIM-FAST"), x_optum_eligibility_disable_value_add="other, Deduplication")
    assert off["sourceType"] == "new"
    other = await submit(session, body_for("SIM-FAST"), x_optum_subtenant_id="sub-2")
    assert other["sourceType"] == "new"
    found = await counters(session)
    assert (found["submissions_processed"], found["duplicates_answered"]) == (3, 1)


async def test_deduplication_ends_with_its_window_and_sees_through_x12_numbering(
    connect: Connect,
    x12_for: X12,
) -> None:
    session = await connect(deduplicate=True)
    short = await connect(deduplicate=True, deduplicate_window_s=0)
    for there, expected in ((session, "duplicate"), (short, "new")):
        for control in ("100000001", "100000002"):
            body = {"x12": x12_for("SIM-INSTANT", control)}
            async with there.post(f"{BASE_PATH}/real-time/x12", json=body) as response:
                last = (await response.json())["sourceType"]
        assert last == expected


async def test_hundreds_of_held_requests_are_counted_at_once(connect: Connect, body_for: Body, until: Until) -> None:
    session = await connect()
    async with session.post("/_simulator/faults", json=[{"kind": "hang", "seconds": 1e9, "times": 300}]):
        pass
    held = [asyncio.create_task(submit(session, body_for("SIM-FAST"))) for _ in range(300)]

    async def all_in() -> bool:
        return bool((await counters(session))["in_flight"] == 300)

    async def all_gone() -> bool:
        return bool((await counters(session))["in_flight"] == 0)

    await until(all_in)
    for caller in held:
        caller.cancel()
    await until(all_gone)
    found = await counters(session)
    assert (found["in_flight_max"], found["disconnects"], found["submissions_started"]) == (300, 300, 0)


async def test_the_stores_keep_only_the_newest(connect: Connect, body_for: Body) -> None:
    session = await connect(stored_records=3)
    ids = [(await submit(session, body_for("SIM-INSTANT")))["id"] for _ in range(5)]
    found = [transaction["id"] for transaction in await get(session, TRANSACTIONS)]
    assert found == ids[:1:-1]
