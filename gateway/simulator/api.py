"""The nine operations, from a request that has been let in to its reply."""

import asyncio
import dataclasses
from typing import Any, assert_never

from gateway.operations import OperationName
from gateway.simulator.answers import related_links, status_reply, transaction_document
from gateway.simulator.clearinghouse import Clearinghouse
from gateway.simulator.clock import Clock
from gateway.simulator.discovery import dry_run, receipt, task_document
from gateway.simulator.exchange import Call, Headers, Reply, api_headers, json_reply, refusal, subtenant_header
from gateway.simulator.inquiry import Inquiry, Rejected, read_inquiry, read_object
from gateway.simulator.options import Options
from gateway.simulator.owned import Owned
from gateway.simulator.payers import Outcome, Payer, payer_for
from gateway.simulator.queries import (
    discoveries_query,
    discovery_matches,
    next_link,
    page_of,
    transaction_matches,
    transactions_query,
)
from gateway.simulator.world import World
from gateway.simulator.x12 import read_inquiry as read_x12_inquiry


@dataclasses.dataclass(frozen=True, slots=True)
class Api:
    """Answers calls. It knows nothing of sockets, tokens or faults."""

    options: Options
    clock: Clock
    owned: Owned
    clearinghouse: Clearinghouse

    async def answer(self, world: World, call: Call) -> Reply:
        """Carry out one operation."""
        match call.operation.name:
            case OperationName.SUBMIT_ELIGIBILITY | OperationName.SUBMIT_ELIGIBILITY_X12:
                return await self._submit(world, call)
            case OperationName.SUBMIT_DISCOVERY | OperationName.SUBMIT_DISCOVERY_X12:
                reply = self._submit_discovery(world, call)
            case OperationName.LIST_TRANSACTIONS:
                reply = _list_transactions(world, call)
            case OperationName.LIST_DISCOVERIES:
                reply = _list_discoveries(world, call)
            case OperationName.GET_TRANSACTION:
                transaction = world.transactions.get(call.record_id)
                known = transaction is not None and transaction.tenant_id == call.tenant_id
                reply = json_reply(200, transaction_document(transaction)) if transaction and known else _NOT_FOUND
            case OperationName.GET_DISCOVERY:
                task = world.discoveries.get(call.record_id)
                known = task is not None and task.tenant_id == call.tenant_id
                reply = json_reply(200, task_document(task)) if task and known else _NOT_FOUND
            case OperationName.HEALTHCHECK:
                reply = json_reply(200, {"status": "ok"})
            case _:
                assert_never(call.operation.name)
        return _stamped(call, reply)

    async def _submit(self, world: World, call: Call) -> Reply:
        inquiry = _inquiry(call)
        if isinstance(inquiry, Rejected):
            return _stamped(call, refusal(inquiry.status, inquiry.problems))
        payer = _payer(call, inquiry)
        work = self.owned.start(self.clearinghouse.process(world, call, inquiry, payer))
        cut_s = self.options.enterprise_gateway_cut_s if payer.behind_cut else None
        try:
            async with self.clock.timeout(cut_s):
                transaction = await asyncio.shield(work)
        except TimeoutError:
            world.counters.gateway_cuts += 1
            cut = status_reply(504, call.trace_id)
            return dataclasses.replace(cut, headers=subtenant_header(call.subtenant_id))
        links: Headers = (("link", related_links(transaction.discoveries)),) if transaction.discoveries else ()
        return _stamped(call, json_reply(200, transaction_document(transaction), links))

    def _submit_discovery(self, world: World, call: Call) -> Reply:
        document = read_object(call.body)
        if isinstance(document, Rejected):
            return refusal(document.status, document.problems)
        problems = _discovery_problems(document)
        is_x12 = call.operation.name is OperationName.SUBMIT_DISCOVERY_X12
        inquiry = _x12_discovery_inquiry(document) if is_x12 else _json_discovery_inquiry(document)
        if isinstance(inquiry, Rejected):
            return refusal(inquiry.status, (*inquiry.problems, *problems))
        if problems:
            return refusal(422, problems)
        plans = payer_for(inquiry.payer_id).tasks
        if document.get("dryRun") is True:
            return dry_run(plans)
        url = document.get("callbackUrl")
        return receipt(plans, [self.clearinghouse.discover(world, call, inquiry, plan, url) for plan in plans])


_NOT_FOUND = refusal(404, ["Not Found: no such record"])


def payer_named(operation: OperationName, body: bytes) -> str | None:
    """Find the payer that a request's body names, for faults that fit one payer only."""
    document = read_object(body)
    if isinstance(document, Rejected):
        return None
    match operation:
        case OperationName.SUBMIT_ELIGIBILITY:
            payer = document.get("tradingPartnerServiceId")
            return payer if isinstance(payer, str) else None
        case OperationName.SUBMIT_DISCOVERY:
            inquiry = _json_discovery_inquiry(document)
        case OperationName.SUBMIT_DISCOVERY_X12:
            inquiry = _x12_of(document, "x12-270")
        case OperationName.SUBMIT_ELIGIBILITY_X12:
            inquiry = _x12_of(document, "x12")
        case _:
            return None
    return None if isinstance(inquiry, Rejected) else inquiry.payer_id


def _stamped(call: Call, reply: Reply) -> Reply:
    return dataclasses.replace(reply, headers=(*api_headers(call), *reply.headers))


def _inquiry(call: Call) -> Inquiry | Rejected:
    document = read_object(call.body)
    if isinstance(document, Rejected):
        return document
    if call.operation.name is OperationName.SUBMIT_ELIGIBILITY_X12:
        return _x12_of(document, "x12")
    return read_inquiry(document)


def _payer(call: Call, inquiry: Inquiry) -> Payer:
    """Find the payer; on X12 a sandbox scenario named like an outcome decides what comes out."""
    payer = payer_for(inquiry.payer_id)
    if call.operation.name is OperationName.SUBMIT_ELIGIBILITY_X12 and call.scenario in list(Outcome):
        return dataclasses.replace(payer, outcome=Outcome(call.scenario))
    return payer


def _x12_of(document: dict[str, Any], field: str) -> Inquiry | Rejected:
    text = document.get(field)
    if not isinstance(text, str):
        return Rejected(422, (f"Unprocessable: '{field}' is required and must be a string",))
    return read_x12_inquiry(text)


def _x12_discovery_inquiry(document: dict[str, Any]) -> Inquiry | Rejected:
    inquiry = _x12_of(document, "x12-270")
    answer = document.get("x12-271")
    if not isinstance(answer, str) or not answer.lstrip().startswith("ISA"):
        problem = "Unprocessable: 'x12-271' is required and must be an X12 message"
        return Rejected(422, (*(inquiry.problems if isinstance(inquiry, Rejected) else ()), problem))
    return inquiry


def _json_discovery_inquiry(document: dict[str, Any]) -> Inquiry | Rejected:
    request = document.get("canonicalEligibilityRequest")
    if not isinstance(request, dict):
        return Rejected(422, ("Unprocessable: 'canonicalEligibilityRequest' is required and must be an object",))
    return read_inquiry(request)


def _discovery_problems(document: dict[str, Any]) -> tuple[str, ...]:
    problems: list[str] = []
    url = document.get("callbackUrl")
    if url is not None and not (isinstance(url, str) and url.lower().startswith(("http://", "https://"))):
        problems.append("Unprocessable: 'callbackUrl' must be an http or https URL")
    if document.get("dryRun") not in {None, True, False}:
        problems.append("Unprocessable: 'dryRun' must be true or false")
    response = document.get("canonicalEligibilityResponse")
    if response is not None and not isinstance(response, dict):
        problems.append("Unprocessable: 'canonicalEligibilityResponse' must be an object")
    return tuple(problems)


def _list_transactions(world: World, call: Call) -> Reply:
    query = transactions_query(call.query)
    if isinstance(query, Rejected):
        return refusal(query.status, query.problems)
    records = world.transactions.ordered(query.correlation_id, oldest_first=query.oldest_first)
    found = (t for t in records if t.tenant_id == call.tenant_id and transaction_matches(query, t))
    page, more, total = page_of(query, found)
    headers: Headers = (("link", next_link("/transactions", query)),) if more else ()
    if total is not None:
        headers = (*headers, ("x-total-count", str(total)))
    return json_reply(200, [transaction_document(transaction) for transaction in page], headers)


def _list_discoveries(world: World, call: Call) -> Reply:
    query = discoveries_query(call.query)
    if isinstance(query, Rejected):
        return refusal(query.status, query.problems)
    records = world.discoveries.ordered(query.correlation_id, oldest_first=query.oldest_first)
    found = (t for t in records if t.tenant_id == call.tenant_id and discovery_matches(query, t))
    page, more, total = page_of(query, found)
    headers: Headers = (("link", next_link("/coverage-discovery", query)),) if more else ()
    if total is not None:
        headers = (*headers, ("x-total-count", str(total)))
    return json_reply(200, [task_document(task) for task in page], headers)
