"""One life of a gateway in a process of its own, from its start to its end, and all that it left behind."""

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from redis.asyncio import Redis

from gateway.embedded import EmbeddedValkey
from tests.callers.platform import AUDIENCE, ISSUER
from tests.canaries.driving import (
    ANSWERED_ASKS,
    REFUSALS,
    SUBMIT,
    TOKENS,
    Answering,
    Asked,
    Got,
    ask,
    ask_for_long,
    deaf,
    leave,
    question,
    request,
)
from tests.canaries.planted import (
    BRIEF_SECRET,
    CALLER_SECRET,
    CLIENT_ID,
    CLIENT_SECRET,
    HASTY_SECRET,
    KEY,
    MEMBER,
    OTHER_SECRET,
    PACED_SECRET,
    REDIS_PASSWORD,
    SHADOW_SECRET,
)
from tests.e2e.conftest import environment
from tests.running import GatewayProcess, eventually, total
from tests.scripted import Request, ScriptedUpstream

MAX_IN_FLIGHT: Final = 40
_BAD_REQUEST: Final = 400
_ENFORCE: Final = "dedup: {mode: enforce, window: 24h}\nrecover: {within: 2s, attempts: 1, pause: 20ms}\n"
_SUBMITS: Final = "operations: [submit_eligibility, submit_eligibility_x12]"
_POLICIES: Final = {
    "asking": f"match: {{{_SUBMITS}, callers: [asking, other]}}\n{_ENFORCE}",
    "shadowed": f"match: {{{_SUBMITS}, callers: [shadowed]}}\ndedup: {{mode: shadow, window: 24h}}\n",
    "hasty": f"match: {{{_SUBMITS}, callers: [hasty]}}\ntimeout: {{connect: 5s, answer: 5s, caller: 500ms}}\n"
    "dedup: {mode: enforce, window: 24h, store_unavailable: reject}\n",
    "brief": f"match: {{{_SUBMITS}, callers: [brief]}}\ntimeout: {{connect: 200ms, answer: 500ms}}\n"
    "audit: {unavailable: reject}\n",
    "lookups": 'match: {operations: [list_transactions, get_transaction, healthcheck], callers: ["*"]}\n',
    "hurried": "match: {operations: [get_transaction], callers: [hasty]}\ntimeout: {connect: 5s, caller: 300ms}\n",
    "extra": "match: {forward: ['GET /extra/*'], callers: [asking]}\n",
}
_LIMITS: Final = {"paced": ", limits: {rate: 1/h, wait: 0s}"}
_SECRETS: Final = {
    "asking": CALLER_SECRET,
    "shadowed": SHADOW_SECRET,
    "hasty": HASTY_SECRET,
    "brief": BRIEF_SECRET,
    "paced": PACED_SECRET,
    "other": OTHER_SECRET,
}


def write_policies(directory: Path) -> None:
    """Write a directory of policies for callers whose secrets are canaries."""
    directory.mkdir()
    for name, text in _POLICIES.items():
        (directory / f"{name}.yaml").write_text(text)
    entries = (
        f"  {name}: {{secret_sha256: {hashlib.sha256(secret.encode()).hexdigest()}{_LIMITS.get(name, '')}}}\n"
        for name, secret in _SECRETS.items()
    )
    # Of an issuer whose keys nobody has: its tokens can be judged by nobody.
    issuers = f"issuers:\n  cluster: {{issuer: {ISSUER}, audience: {AUDIENCE}, jwks: /nowhere/keys.json}}\n"
    (directory / "callers.yaml").write_text(issuers + "callers:\n" + "".join(entries))


def audit_file(policies: Path) -> Path:
    """Where its audit trail is."""
    return policies.with_name("audit.jsonl")


def variables(upstream_url: str, redis_url: str, policies: Path) -> dict[str, str]:
    """An environment whose secrets are canaries."""
    return environment(
        upstream_url,
        redis_url,
        policies=str(policies),
        upstream_client_id=CLIENT_ID,
        upstream_client_secret=CLIENT_SECRET,
        keys=f"canary:{KEY}",
        log_level="debug",
        log_requests_per_s="100000",
        max_body_bytes="65536",
        max_in_flight=str(MAX_IN_FLIGHT),
        head_timeout_s="0.4",
        body_timeout_s="0.4",
        redis_timeout_s="0.1",
        audit=str(audit_file(policies)),
    )


@dataclass(slots=True)
class Evidence:
    """What a gateway wrote and said, by the place where it stands."""

    places: dict[str, bytes] = field(default_factory=dict)  # what holds no canary at all
    replies: dict[str, tuple[Asked, Got]] = field(default_factory=dict)
    to_others: list[Got] = field(default_factory=list)
    upstream_of_others: list[Request] = field(default_factory=list)
    exit_code: int = -1


@dataclass(slots=True)
class Life:
    """A gateway and everything around it."""

    process: GatewayProcess
    upstream: ScriptedUpstream
    answering: Answering
    valkey: EmbeddedValkey
    redis: Redis
    policies: Path
    session: aiohttp.ClientSession
    evidence: Evidence = field(default_factory=Evidence)

    async def tell(self, name: str, asked: Asked, *, is_followed: bool = True) -> None:
        """Ask, and have somebody else ask something else afterwards."""
        got = await ask(self.process.url, asked.raw, half_close=asked.half_close)
        self.evidence.replies[name] = (asked, got)
        if is_followed:
            await self.bystander()

    async def bystander(self) -> Got:
        """Another caller, with another question, and no canary but its secret."""
        body = b'{"tradingPartnerServiceId": "SIM", "about": %d}' % len(self.evidence.to_others)
        lines = (
            f"POST {SUBMIT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OTHER_SECRET}\r\nConnection: close",
            f"x-scenario: plain\r\nContent-Length: {len(body)}\r\n\r\n",
        )
        got = await ask(self.process.url, "\r\n".join(lines).encode() + body)
        self.evidence.to_others.append(got)
        return got

    async def metrics(self, accept: str = "text/plain") -> str:
        async with self.session.get(f"{self.process.admin_url}/metrics", headers={"Accept": accept}) as response:
            return await response.text()

    async def counts(self, name: str, least: float) -> None:
        """Return when a metric is at least so high."""

        async def is_there() -> bool:
            return total(await self.metrics(), name) >= least

        await eventually(is_there)

    async def look(self, when: str) -> None:
        """Keep what the admin port shows."""
        for path, accept in (
            ("/metrics", "text/plain"),
            ("/metrics", "application/openmetrics-text"),
            *((path, "*/*") for path in ("/policies", "/livez", "/readyz", f"/{MEMBER}?{MEMBER}")),
        ):
            url = f"{self.process.admin_url}{path}"
            async with self.session.get(url, headers={"Accept": accept, "Cookie": MEMBER}) as response:
                shown = str(response.headers).encode() + await response.read()
                self.evidence.places[f"{path.partition('?')[0]} as {accept} {when}"] = shown

    async def has_token(self, kind: str = "issued") -> None:
        """Return when the gateway has a token again."""
        self.upstream.token_reply = TOKENS[kind]

        async def is_answered() -> bool:
            return (await self.bystander()).status == 200

        await eventually(is_answered, pause_s=0.1)


@asynccontextmanager
async def life(directory: Path) -> AsyncIterator[Life]:
    """Start one; the token endpoint is down at first."""
    write_policies(policies := directory / "policies")
    answering = Answering()
    with EmbeddedValkey() as valkey:
        path = valkey.url.removeprefix("unix://")
        async with (
            Redis.from_url(valkey.url) as redis,
            ScriptedUpstream(answer=answering, token_reply=TOKENS["down"]) as upstream,
            aiohttp.ClientSession() as session,
        ):
            await redis.acl_setuser(
                "gateway",
                enabled=True,
                passwords=[f"+{REDIS_PASSWORD}"],
                keys=["*"],
                channels=["*"],
                commands=["+@all"],
            )
            await redis.config_set("rdbcompression", "no")
            given = variables(upstream.url, f"unix://gateway:{REDIS_PASSWORD}@{path}", policies)
            async with _monitored(path) as monitored, _collector() as (collector_url, exported):
                given["GATEWAY_OTLP_ENDPOINT"] = collector_url
                process = await asyncio.to_thread(GatewayProcess, given)
                one = Life(process, upstream, answering, valkey, redis, policies, session)
                with process, _stderr(process) as errors:
                    yield one
                    one.evidence.exit_code = await asyncio.to_thread(process.popen.wait, 30)
                    one.evidence.upstream_of_others = [
                        asked for asked in upstream.requests if asked.values("x-scenario") == ["plain"]
                    ]
                one.evidence.places |= {
                    "stderr": "".join(errors).encode(),
                    "MONITOR": bytes(monitored),
                    "traces": bytes(exported),
                    "stdout": "".join(process.output()).encode(),
                    "audit trail": b"".join(
                        file.read_bytes() for file in (audit_file(policies).with_suffix(".moved"), audit_file(policies))
                    ),
                }


@contextmanager
def _stderr(process: GatewayProcess) -> Iterator[list[str]]:
    seen: list[str] = []
    pipe = process.popen.stderr
    assert pipe is not None
    reader = threading.Thread(target=lambda: seen.extend(pipe), daemon=True)
    reader.start()
    yield seen
    reader.join(30)


@asynccontextmanager
async def _monitored(path: str) -> AsyncIterator[bytearray]:
    """What MONITOR shows for as long as Valkey lives."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    shown = bytearray()

    async def follow() -> None:
        with suppress(ConnectionError):
            while part := await reader.read(65_536):
                shown.extend(part)

    following = asyncio.create_task(follow())
    try:
        yield shown
    finally:
        writer.transport.abort()
        await following


@asynccontextmanager
async def _collector() -> AsyncIterator[tuple[str, bytearray]]:
    """Takes traces; its address, and all that was exported to it."""
    exported = bytearray()

    async def take(asked: web.BaseRequest) -> web.Response:
        exported.extend(await asked.read())
        return web.Response()

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", exported
    await runner.cleanup()


# --- what happens in it ---------------------------------------------------------------------------------------------


async def live(one: Life, rarities: Callable[[Life], Awaitable[None]], *, is_hurried: bool) -> None:
    """Everything that may happen, in an order in which each can."""
    await one.tell("no token yet", Asked(request(body=question("no token")), 503, "token_unavailable"))
    await one.has_token()
    await asyncio.gather(*(one.tell(name, asked) for name, asked in REFUSALS.items()))
    for name, asked in REFUSALS.items():  # what was not meant for the admin port is not repeated there either
        if not asked.half_close and asked.status == _BAD_REQUEST:
            one.evidence.places[f"admin port: {name}"] = (await ask(one.process.admin_url, asked.raw)).raw
    for name, asked in ANSWERED_ASKS.items():
        await one.tell(name, asked)
    await _together(one)
    await rarities(one)
    await _look_at_policies(one)
    await _hurt_redis(one)
    await _hurt_trail(one)
    await one.look("after all that")
    await _keep_dump(one)
    await _lose_token(one)
    if is_hurried:  # else the end would wait for a Redis that takes the last answer
        await asyncio.to_thread(one.valkey.stop)
        await one.tell("no Redis", Asked(request(body=question("no Redis")), 200))
    await _lose_upstream(one)
    await _end(one, is_hurried=is_hurried)


async def _together(one: Life) -> None:
    """Followers get their leader's answer, and one who leaves takes it from nobody."""
    raw = request(body=question("held"), scenario="held")
    asked = [asyncio.create_task(one.tell(f"held {number}", Asked(raw, 200))) for number in range(3)]
    await one.counts("dedup_followers_waiting", 2)
    await leave(one.process.url, raw, lambda: one.counts("dedup_followers_waiting", 3))
    alone = request(body=question("left"), scenario="held")
    before = len(one.upstream.requests)
    await leave(one.process.url, alone, lambda: one.upstream.is_asked(before + 1))
    one.answering.release.set()
    await asyncio.gather(*asked)
    await one.tell("left, and back", Asked(alone, 200))
    torn = request("GET", f"{SUBMIT}/transactions/{MEMBER}", framing="", scenario="cut late")
    got = await ask_for_long(one.process.url, torn, one.answering.cut.set)
    one.evidence.replies["cut late"] = (Asked(torn, 200), got)


async def _look_at_policies(one: Life) -> None:
    """SIGHUP reads files into which a secret was pasted."""
    wrong = one.policies / "wrong.yaml"
    wrong.write_text(f"callers: {{someone: {{secret_sha256: {CALLER_SECRET}}}}}\n")
    one.process.popen.send_signal(signal.SIGHUP)
    await asyncio.to_thread(one.process.wait_for, "policies cannot be used")
    wrong.unlink()


async def _hurt_redis(one: Life) -> None:
    ask_again = {"led": request(body=question("led"), scenario="led")}

    async def try_all(what: str) -> None:
        for name, raw in (*ask_again.items(), ("new", request(body=question(what)))):
            await one.tell(f"{name}, {what}", Asked(raw, 200))

    await one.redis.client_kill_filter(user="gateway")
    await try_all("connections killed")
    flights = [key async for key in one.redis.scan_iter("eg:flight:*")]
    assert flights
    for key in flights:
        if await one.redis.hexists(key, "val"):
            await one.redis.hset(key, "val", b"\x01\x06canary" + bytes(40))
    await try_all("values replaced")
    for key in flights:
        await one.redis.delete(key)
        await one.redis.rpush(key, "x")
    await try_all("types replaced")
    await one.redis.script_flush()
    await one.redis.config_set("maxmemory", 1)
    await try_all("full")
    await one.redis.config_set("maxmemory", 0)
    await one.redis.acl_setuser("gateway", reset_keys=True, commands=["-@all"])
    await try_all("no permission")
    await one.redis.acl_setuser("gateway", enabled=True, keys=["*"], commands=["+@all"])
    os.kill(one.valkey.pid, signal.SIGSTOP)
    try:
        for number in range(6):  # until it is left alone
            await one.tell(f"frozen {number}", Asked(request(body=question(f"frozen {number}")), 200))
        asked = Asked(request(body=question("rejected"), secret=HASTY_SECRET), 503, "dedup_unavailable")
        await one.tell("rejected", asked)
    finally:
        os.kill(one.valkey.pid, signal.SIGCONT)

    async def is_back() -> bool:
        await one.bystander()
        return total(await one.metrics(), "redis_breakers_open") == 0

    await eventually(is_back, pause_s=0.1)
    await one.tell("kept once more", Asked(request(body=question("kept once more")), 200))


async def _hurt_trail(one: Life) -> None:
    """The audit trail is moved away, and nothing can be written in its place."""
    file = audit_file(one.policies)
    file.rename(file.with_suffix(".moved"))
    file.mkdir()
    one.process.popen.send_signal(signal.SIGHUP)
    await asyncio.to_thread(one.process.wait_for, "audit trail cannot be written")
    asked = Asked(request(body=question("unseen"), secret=BRIEF_SECRET), 503, "audit_unavailable")
    await one.tell("not to be audited", asked)
    file.rmdir()
    await asyncio.to_thread(one.process.wait_for, "audit trail is written again")


async def _keep_dump(one: Life) -> None:
    """Everything in Redis, as its own commands and its file show it."""
    held = bytearray()
    kinds = set()
    async for key in one.redis.scan_iter("*"):
        value: Any
        match kind := await one.redis.type(key):
            case b"hash":
                value = await one.redis.hgetall(key)
                for name, content in value.items():
                    one.evidence.places[f"Redis {key!r} {name!r}"] = content
            case b"string":
                value = await one.redis.get(key)
            case _:
                value = await one.redis.lrange(key, 0, -1)
        kinds.add(kind)
        held += b"%s %r %s\n" % (key, value, await one.redis.dump(key))
    assert kinds >= {b"hash", b"string"}
    await one.redis.save()
    directory = (await one.redis.config_get("dir"))["dir"]
    one.evidence.places["Redis dump"] = bytes(held)
    one.evidence.places["Redis file"] = (Path(str(directory)) / "dump.rdb").read_bytes()


async def _lose_token(one: Life) -> None:
    """The upstream refuses the token, and the issuer gives no other."""
    for kind in ("garbage", "no http", "no header"):
        one.upstream.token_reply = TOKENS[kind]
        raw = request(body=question(f"401, {kind}"), scenario="unauthorized")
        await one.tell(f"issuer: {kind}", Asked(raw, 503, "token_unavailable"))
        await one.has_token()


async def _lose_upstream(one: Life) -> None:
    port = int(one.upstream.url.rpartition(":")[2])
    await one.upstream.__aexit__(None, None, None)
    await one.tell("gone", Asked(request(body=question("gone")), 502, "upstream_unreachable"))
    queue = deaf(port)
    try:
        raw = request(body=question("deaf"), secret=BRIEF_SECRET)
        await one.tell("deaf", Asked(raw, 504, "upstream_connect_timeout"), is_followed=False)
    finally:
        for waiting in queue:
            waiting.close()
    one.upstream._server = await asyncio.start_server(one.upstream._serve, "127.0.0.1", port)


async def _end(one: Life, *, is_hurried: bool) -> None:
    """SIGTERM with a request in flight, which is waited for or not."""
    one.answering.release.clear()
    before = len(one.upstream.requests)
    raw = request(body=question("at the end"), scenario="held")
    asked = asyncio.create_task(ask(one.process.url, raw))
    await one.upstream.is_asked(before + 1)
    one.upstream.token_reply = TOKENS["refused"]
    refused = request(body=question("no credentials"), scenario="unauthorized")
    await one.tell("no credentials", Asked(refused, 503, "credentials_refused"), is_followed=False)
    await one.look("at the end")
    one.process.popen.send_signal(signal.SIGTERM)
    await asyncio.to_thread(one.process.wait_for, '"draining"')
    if not is_hurried:
        one.answering.release.set()
        await asked
    one.process.popen.send_signal(signal.SIGTERM)  # or it waits for answers that a hurt Redis has not taken yet
    one.evidence.replies["in flight at the end"] = (
        Asked(raw, 503, "stopped") if is_hurried else Asked(raw, 200),
        await asked,
    )
