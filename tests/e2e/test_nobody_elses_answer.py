"""For any callers, no sequence of requests gives one an answer that only another may have.

The upstream says in each answer on whose behalf it was asked, of whom, by which operation, and under which policy: so
an answer that went astray tells on itself.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.callers.platform import AUDIENCE, ISSUER, RSA, SUBJECT, published, token_now
from tests.e2e.conftest import Running, about, environment, run_gateway
from tests.scripted import Request, ScriptedUpstream, reply

SUBMIT, LIST = "/rcm/eligibility/v1", "/rcm/eligibility/v1/transactions"


@dataclass(frozen=True)
class Who:
    """A caller, and what only it may have."""

    name: str
    subtenants: tuple[str | None, ...]  # the first one is its own
    policy: str
    operations: frozenset[str]


BOTH = frozenset({SUBMIT, LIST})
CALLERS = {
    one.name: one
    for one in (
        Who("north-a", ("north",), "shared", BOTH),
        Who("north-b", ("north",), "shared", BOTH),
        Who("south", ("south", "north"), "shared", BOTH),
        Who("nobodys", (None,), "shared", BOTH),
        Who("alone-a", ("north",), "alone-a", BOTH),
        Who("alone-b", ("north",), "alone-b", BOTH),
        Who("reader", ("north",), "shared", frozenset({LIST})),
        Who("pod", ("south",), "shared", BOTH),
    )
}
SECRETS = {name: f"secret-of-{name}" for name in CALLERS if name != "pod"}
DEDUP = "dedup: {{mode: enforce, window: 1h, exclude_prior_month: false, share: {}}}\n"
SET = "headers: {{set: {{X-Policy: {}}}}}\n"


def write(directory: Path) -> None:
    issuer = f"{{issuer: {ISSUER}, audience: {AUDIENCE}, jwks: {directory}/keys.json}}"
    lines = [f"issuers: {{cluster: {issuer}}}", "callers:"]
    for who in CALLERS.values():
        own, *others = who.subtenants
        known = (
            f'subjects: ["cluster/{SUBJECT}"]'
            if who.name == "pod"
            else f"secret_sha256: {hashlib.sha256(SECRETS[who.name].encode()).hexdigest()}"
        )
        names = {SUBMIT: "submit_eligibility", LIST: "list_transactions"}
        operations = [names[path] for path in sorted(who.operations)]
        subtenant = f"subtenant: {own}, " if own else ""
        lines.append(f"  {who.name}: {{{known}, {subtenant}subtenant_choices: {others}, operations: {operations}}}")
    (directory / "keys.json").write_bytes(published(RSA))
    (directory / "callers.yaml").write_text("\n".join(lines) + "\n")
    (directory / "shared.yaml").write_text(
        "match: {operations: ['*']}\n" + DEDUP.format("subtenant") + SET.format("shared")
    )
    for name in ("alone-a", "alone-b"):
        match = f"match: {{operations: ['*'], callers: [{name}]}}\n"
        (directory / f"{name}.yaml").write_text(match + DEDUP.format("caller") + SET.format(name))


async def answer(asked: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.002)  # so that some who ask at once follow
    member = json.loads(asked.body)["subscriber"]["memberId"] if asked.body else asked.line.decode()
    tells = {
        "subtenant": next(iter(asked.values("x-optum-subtenant-id")), None),
        "member": member,
        "policy": asked.values("x-policy")[0],
    }
    writer.write(
        reply(body=json.dumps({"id": "t", "correlationId": "c", "status": {"value": "eligible"}, "of": tells}).encode())
    )


@dataclass(frozen=True)
class Asking:
    """One request: by whom, how it shows that, on whose behalf, and what."""

    who: str
    shows: str
    names: str | None
    path: str
    member: int


asking = st.builds(
    Asking,
    who=st.sampled_from(sorted(CALLERS)),
    shows=st.sampled_from(["secret", "secret", "key", "token", "token", "others", "nothing", "bent"]),
    names=st.sampled_from([None, None, None, "north", "south", "elsewhere"]),
    path=st.sampled_from([SUBMIT, SUBMIT, SUBMIT, LIST]),
    member=st.integers(0, 3),
)


@dataclass
class House:
    """A gateway whose callers have their tokens, and the loop it runs in."""

    runner: asyncio.Runner
    gateway: Running
    tokens: dict[str, str] = field(default_factory=dict)

    async def fetch_tokens(self) -> None:
        for name, secret in SECRETS.items():
            document = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
            async with self.gateway.session.post(f"{self.gateway.url}/apip/auth/v2/token", json=document) as response:
                self.tokens[name] = (await response.json())["access_token"]
        self.tokens["pod"] = token_now()

    def shown(self, one: Asking) -> dict[str, str]:
        secret, token = SECRETS.get(one.who, self.tokens[one.who]), self.tokens[one.who]
        other = SECRETS["south" if one.who != "south" else "north-a"]
        return {
            "secret": {"authorization": f"Bearer {secret}"},
            "key": {"x-api-key": secret},
            "token": {"authorization": f"Bearer {token}"},
            "others": {"authorization": f"Bearer {token}", "x-api-key": other},
            "nothing": {},
            "bent": {"authorization": f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}x"},
        }[one.shows]

    async def ask(self, one: Asking) -> tuple[int, Any]:
        headers = self.shown(one) | ({"x-optum-subtenant-id": one.names} if one.names else {})
        url, body = self.gateway.url + one.path, about(one.member)
        method, query = ("POST", {}) if one.path == SUBMIT else ("GET", {"limit": str(one.member + 1)})
        async with self.gateway.session.request(
            method, url, headers=headers, params=query, json=body if method == "POST" else None
        ) as response:
            return response.status, json.loads(await response.read())


@pytest.fixture
def house(redis_url: str, tmp_path: Path) -> Iterator[House]:
    write(tmp_path)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def build() -> House:
            upstream = await stack.enter_async_context(ScriptedUpstream(answer=answer))
            variables = environment(upstream.url, redis_url, policies=str(tmp_path))
            one = House(runner, await stack.enter_async_context(run_gateway(variables)))
            await one.fetch_tokens()
            return one

        yield runner.run(build())
        runner.run(stack.aclose())


def expected(one: Asking) -> tuple[int, dict[str, Any] | None]:
    """What the caller may have, and nothing else."""
    who = CALLERS[one.who]
    if one.shows in {"others", "nothing", "bent"}:
        return 401, None
    if one.path not in who.operations or (one.names is not None and one.names not in who.subtenants):
        return 403, None
    member = f"TESTMEMBER-{one.member}" if one.path == SUBMIT else f"GET {LIST}?limit={one.member + 1} HTTP/1.1"
    return 200, {"subtenant": one.names or who.subtenants[0], "member": member, "policy": who.policy}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # one house for all
@given(rounds=st.lists(st.lists(asking, min_size=1, max_size=8), min_size=1, max_size=4))
def test_nobody_gets_an_answer_that_only_another_may_have(house: House, rounds: list[list[Asking]]) -> None:
    async def play() -> None:
        for together in rounds:
            answers = await asyncio.gather(*(house.ask(one) for one in together))
            for one, (status, document) in zip(together, answers, strict=True):
                assert (status, document.get("of")) == expected(one), one

    house.runner.run(play())
