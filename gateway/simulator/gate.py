"""What stands before the API: scripted faults, the token endpoint, and who may come in.

Rules
- A scripted status is answered before anything is judged: nothing behind it takes notice.
- A path or method that is not the contract's is refused without asking for a token.
- A refused token is the enterprise gateway's business: its object, none of the API's own headers.
"""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.operations import TOKEN_PATH, Found, Operation, WrongMethod
from gateway.simulator.answers import from_gateway, status_reply
from gateway.simulator.api import Api, payer_named
from gateway.simulator.clock import Clock
from gateway.simulator.exchange import (
    CORRELATION_ID,
    DISABLE_VALUE_ADD,
    MOCK_SCENARIOS,
    TENANT_ID,
    TOKEN,
    TRACE_ID,
    UNKNOWN,
    Arrival,
    Call,
    Headers,
    Reply,
    json_reply,
    refusal,
    subtenant_header,
)
from gateway.simulator.faults import Fault, Kind
from gateway.simulator.options import Options
from gateway.simulator.tokens import Refused, Tokens, bearer, judge, tenant_of
from gateway.simulator.world import World


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets requests in to the API, or answers in its place."""

    options: Options
    clock: Clock
    tokens: Tokens
    api: Api

    def fault(self, world: World, arrival: Arrival) -> Fault | None:
        """Take the fault that this request meets, and count it."""
        if arrival.name == UNKNOWN:
            return None
        payer = None
        if world.faults.by_payer and isinstance(arrival.lookup, Found):
            payer = payer_named(arrival.lookup.operation.name, arrival.body)
        fault = world.faults.take(arrival.name, payer)
        if fault is not None:
            world.counters.faults_fired[fault.kind.value] += 1
        return fault

    async def reply(self, world: World, arrival: Arrival, fault: Fault | None) -> Reply:
        """Answer a request."""
        trace_id = str(uuid.uuid4())
        if fault is not None and fault.kind is Kind.STATUS:
            return self._scripted(arrival, fault, trace_id)
        if arrival.path == TOKEN_PATH:
            return self._grant(world, arrival, fault)
        lookup = arrival.lookup
        if isinstance(lookup, WrongMethod):
            return _wrong_method(", ".join(lookup.allowed))
        if not isinstance(lookup, Found):
            return refusal(404, ["Not Found: no such path"])
        token = bearer(arrival.headers.get("authorization"))
        if token is not None and fault is not None and fault.kind is Kind.EXPIRED_TOKEN:
            self.tokens.revoke(token)
        client_id = self._client(token)
        if client_id is None:
            world.counters.unauthorized += 1
            return Reply(401, status_reply(401, trace_id).body, subtenant_header(arrival.subtenant_id))
        return await self.api.answer(world, _call(arrival, lookup.operation, tenant_of(client_id), trace_id))

    def _grant(self, world: World, arrival: Arrival, fault: Fault | None) -> Reply:
        """Answer at the token endpoint."""
        if arrival.method != "POST":
            return _wrong_method("POST")
        if fault is not None and fault.kind is Kind.GARBAGE:
            garbage = fault.body if fault.has_body else "<html>not the token you are looking for"
            return Reply(200, _raw(garbage), tuple((fault.headers or {}).items()))
        judged = judge(arrival.body, self.options.credentials)
        if isinstance(judged, Refused):
            world.counters.token_requests_refused += 1
            return json_reply(judged.status, {"error": judged.error, "error_description": judged.description})
        token, life_s = f"sim-{uuid.uuid4().hex}", max(1, round(self.clock.real_s(self.options.token_life_s)))
        self.tokens.issue(token, judged.client_id, _now_s() + life_s)
        world.counters.tokens_issued += 1
        document: dict[str, Any] = {"access_token": token, "token_type": "bearer", "expires_in": life_s}
        if fault is not None and fault.kind is Kind.EXPIRES_IN:
            del document["expires_in"]
            document |= {"expires_in": fault.body} if fault.has_body else {}
        return json_reply(200, document, (("cache-control", "no-store"),))

    def _scripted(self, arrival: Arrival, fault: Fault, trace_id: str) -> Reply:
        """Answer a scripted status; on the API's own statuses its headers stand too."""
        status = fault.status or 500
        if arrival.name == TOKEN:
            reply = json_reply(status, {"error": "simulated", "error_description": f"Simulated status {status}"})
            headers: Headers = ()
        else:
            reply = status_reply(status, trace_id)
            headers = subtenant_header(arrival.subtenant_id)
            if not from_gateway(status):
                headers = (*headers, *self._api_headers(arrival, trace_id))
        body = _raw(fault.body) if fault.has_body else reply.body
        return Reply(status, body, (*headers, *(fault.headers or {}).items()))

    def _api_headers(self, arrival: Arrival, trace_id: str) -> Headers:
        client_id = self._client(bearer(arrival.headers.get("authorization")))
        tenant: Headers = () if client_id is None else ((TENANT_ID, tenant_of(client_id)),)
        return (*tenant, (CORRELATION_ID, arrival.correlation_id or str(uuid.uuid4())), (TRACE_ID, trace_id))

    def _client(self, token: str | None) -> str | None:
        return None if token is None else self.tokens.client_of(token, _now_s())


def _now_s() -> float:
    # Tokens live in real seconds: their life is a promise to a caller in real time.
    return asyncio.get_running_loop().time()


def _wrong_method(allowed: str) -> Reply:
    return refusal(405, [f"Method Not Allowed: use {allowed}"], (("allow", allowed),))


def _call(arrival: Arrival, operation: Operation, tenant_id: str, trace_id: str) -> Call:
    disabled = ",".join(arrival.headers.getall(DISABLE_VALUE_ADD, []))
    return Call(
        operation=operation,
        path=arrival.path,
        query=arrival.query,
        body=arrival.body,
        tenant_id=tenant_id,
        subtenant_id=arrival.subtenant_id,
        correlation_id=arrival.correlation_id or str(uuid.uuid4()),
        trace_id=trace_id,
        disabled=frozenset(part.strip().lower() for part in disabled.split(",")),
        scenario=arrival.headers.get(MOCK_SCENARIOS, ""),
    )


def _raw(body: object) -> bytes:
    return body.encode() if isinstance(body, str) else orjson.dumps(body)
