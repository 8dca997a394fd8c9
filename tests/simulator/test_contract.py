"""The simulator against the public contract, where a copy of it is at hand.

ENHANCED_ELIGIBILITY_OPENAPI names the OpenAPI document. Nothing of it is part of this project.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from gateway.operations import OPERATIONS, OperationName
from gateway.simulator.payers import PAYERS

Connect = Callable[..., Awaitable[ClientSession]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Body = Callable[..., dict[str, Any]]
X12 = Callable[..., str]

VARIABLE = "ENHANCED_ELIGIBILITY_OPENAPI"
CONTRACT = "urn:contract"
PATH = os.environ.get(VARIABLE)
pytestmark = pytest.mark.skipif(PATH is None, reason=f"{VARIABLE} does not name a copy of the public contract")

SENT = {"x-optum-correlation-id": "corr-contract", "x-optum-subtenant-id": "sub-contract"}
ONLY_SOMETIMES = {"link", "x-total-count"}
# What the operations answer although the contract's list of responses does not say so: the API's
# prose (422, 504) or plain HTTP (400 for a query, 404, 405) does. The shape is that of the response named.
UNLISTED = {
    400: "BadRequestError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "PermissionDeniedError",
    504: "PermissionDeniedError",
}


def json_schema(node: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    """Turn OpenAPI 3.0 into JSON Schema: `nullable` becomes null's own type.

    `oneOf` becomes `anyOf`: the contract's alternatives are objects open to any field, so that its own
    example of an accepted task fits two of them.
    """
    if isinstance(node, list):
        return [json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    turned = {
        {"oneOf": "anyOf"}.get(name, name): json_schema(value) for name, value in node.items() if name != "nullable"
    }
    if node.get("nullable") is not True:
        return turned
    if isinstance(turned.get("type"), str):
        return turned | {"type": [turned["type"], "null"]}
    return {"anyOf": [turned, {"type": "null"}]}


class Contract:
    """The document, resolved as far as the tests need it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        resource = DRAFT202012.create_resource(json_schema(document))
        self.registry: Registry[Any] = Registry().with_resource(CONTRACT, resource)

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def operation(self, name: OperationName) -> dict[str, Any]:
        operation = OPERATIONS[name]
        found: dict[str, Any] = self.document["paths"][operation.path][operation.method.lower()]
        return found

    def response(self, name: OperationName, status: int) -> dict[str, Any]:
        responses = self.operation(name)["responses"]
        listed = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        if status in UNLISTED and (listed is None or status == 504):
            return dict(self.document["components"]["responses"][UNLISTED[status]])
        assert listed is not None, f"{name} has no {status}"
        return self.resolve(listed)

    def validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        # References inside the schema are the document's: they are read as seen from there.
        rooted = json.loads(json.dumps(json_schema(schema)).replace('"#/', f'"{CONTRACT}#/'))
        return Draft202012Validator(rooted, registry=self.registry, format_checker=FormatChecker())

    def examples(self, name: OperationName) -> Iterator[tuple[str, Any, bool]]:
        """Every example body of an operation, and whether it keeps to its own schema."""
        content = self.resolve(self.operation(name)["requestBody"])["content"]["application/json"]
        validator = self.validator(content["schema"])
        for label, example in content["examples"].items():
            value = self.resolve(example)["value"]
            yield label, value, validator.is_valid(value)

    async def check(self, name: OperationName, response: ClientResponse) -> Any:  # noqa: ANN401 - JSON
        """Hold an answer against the contract: body, and each documented header."""
        documented = self.response(name, response.status)
        document = await response.json()
        self.validator(documented["content"]["application/json"]["schema"]).validate(document)
        for header in documented.get("headers", {}):
            if header not in ONLY_SOMETIMES:
                assert header in response.headers, f"{name} {response.status} lacks {header}"
        for header in ("x-optum-correlation-id", "x-optum-subtenant-id"):
            assert response.headers.get(header, SENT[header]) == SENT[header]
        return document


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(json.loads(Path(PATH or "").read_bytes()))


async def ask(  # noqa: PLR0913 - what a request is made of
    session: ClientSession,
    contract: Contract,
    name: OperationName,
    *,
    body: object = None,
    record_id: str = "",
    query: str = "",
    **headers: str,
) -> tuple[int, Any]:
    """Carry out an operation and hold its answer against the contract."""
    operation = OPERATIONS[name]
    path = operation.path.replace("{id}", record_id) + query
    async with session.request(operation.method, path, json=body, headers=SENT | headers) as response:
        return response.status, await contract.check(name, response)


def bodies(payer: str, body_for: Body, x12_for: X12) -> dict[OperationName, dict[str, Any]]:
    return {
        OperationName.SUBMIT_ELIGIBILITY: body_for(payer),
        OperationName.SUBMIT_ELIGIBILITY_X12: {"x12": x12_for(payer)},
        OperationName.SUBMIT_DISCOVERY: {"canonicalEligibilityRequest": body_for(payer)},
        OperationName.SUBMIT_DISCOVERY_X12: {"x12-270": x12_for(payer), "x12-271": x12_for(payer)},
    }


@pytest.mark.parametrize("payer", sorted(PAYERS))
async def test_every_payer_answers_within_the_contract(
    connect: Connect,
    contract: Contract,
    body_for: Body,
    x12_for: X12,
    payer: str,
) -> None:
    session = await connect()
    for name, body in bodies(payer, body_for, x12_for).items():
        status, document = await ask(session, contract, name, body=body)
        if name in {OperationName.SUBMIT_ELIGIBILITY, OperationName.SUBMIT_ELIGIBILITY_X12}:
            assert status == (504 if payer in {"SIM-CUT110", "SIM-TIMEOUT"} else 200)
        else:
            assert status in {202, 207, 422}
            assert (await ask(session, contract, name, body=body | {"dryRun": True}))[0] in {200, 207, 422}
        if status == 200:
            record = await ask(session, contract, OperationName.GET_TRANSACTION, record_id=document["id"])
            assert record == (200, document)


@pytest.mark.parametrize("speed", [1, 6000])
async def test_discovery_tasks_keep_to_the_contract_pending_and_ended(
    connect: Connect,
    contract: Contract,
    body_for: Body,
    until: Until,
    speed: float,
) -> None:
    session = await connect(speed=speed)
    expected = {"pending"} if speed == 1 else {"success", "failure"}
    for payer in ("SIM-INELIGIBLE", "SIM-UNKNOWN", "SIM-HMO"):
        body = {"canonicalEligibilityRequest": body_for(payer)}
        await ask(session, contract, OperationName.SUBMIT_DISCOVERY, body=body)

    async def all_are_there() -> bool:
        _, tasks = await ask(session, contract, OperationName.LIST_DISCOVERIES)
        for task in tasks:
            await ask(session, contract, OperationName.GET_DISCOVERY, record_id=task["id"])
        return {task["status"] for task in tasks} == expected

    await until(all_are_there)


async def test_lists_and_health_keep_to_the_contract(connect: Connect, contract: Contract, body_for: Body) -> None:
    session = await connect()
    for _ in range(3):
        await ask(session, contract, OperationName.SUBMIT_ELIGIBILITY, body=body_for("SIM-INSTANT"))
    query = "?limit=2&returnTotalCount=true"
    status, page = await ask(session, contract, OperationName.LIST_TRANSACTIONS, query=query)
    assert (status, len(page)) == (200, 2)
    assert (await ask(session, contract, OperationName.HEALTHCHECK))[0] == 200


@pytest.mark.parametrize("name", list(OperationName))
async def test_every_error_of_an_operation_keeps_to_the_contract(
    connect: Connect,
    contract: Contract,
    name: OperationName,
    body_for: Body,
    x12_for: X12,
) -> None:
    session = await connect()
    body = bodies("SIM-INSTANT", body_for, x12_for).get(name)
    listed = contract.operation(name)["responses"]
    errors = {int(status.replace("XX", "03")) for status in listed if status[0] in "45"} | {429, 504}
    # The healthcheck has its own 500 and no other 5XX.
    errors -= {500, 504} if name is OperationName.HEALTHCHECK else set()
    for status in sorted(errors):
        async with session.post("/_simulator/faults", json=[{"kind": "status", "status": status}]) as response:
            assert response.status == 200
        assert (await ask(session, contract, name, body=body, record_id="some-id"))[0] == status
    assert (await ask(session, contract, name, body=body, record_id="some-id", authorization="Bearer no"))[0] == 401
    if body is not None:
        assert (await ask(session, contract, name, body=[]))[0] == 400
        assert (await ask(session, contract, name, body={}))[0] == 422
    if "{id}" in OPERATIONS[name].path:
        assert (await ask(session, contract, name, record_id="no-such-id"))[0] == 404
    if name in {OperationName.LIST_TRANSACTIONS, OperationName.LIST_DISCOVERIES}:
        assert (await ask(session, contract, name, query="?limit=0"))[0] == 400


@pytest.mark.parametrize("name", [name for name in OperationName if name.startswith("submit")])
async def test_every_example_body_of_the_contract_is_accepted(
    connect: Connect,
    contract: Contract,
    name: OperationName,
) -> None:
    session = await connect()
    count = 0
    for label, body, keeps_to_schema in contract.examples(name):
        status, _ = await ask(session, contract, name, body=body)
        # One example has a control number of ten digits, which its own schema and the API's prose forbid.
        assert (status in {200, 202, 207}) if keeps_to_schema else (status == 422), label
        count += 1
    assert count
