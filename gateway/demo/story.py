"""The story: seven scenes of a working day, and what each of them promises.

Every figure that is told is measured in this run, and every promise is checked: one that does not hold is
told as broken, and the exit code says so.
"""

import asyncio
import json
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from gateway.demo.client import Answer, Callers, inquiry
from gateway.demo.stage import CALLERS, Stage, StageError, set_stage
from gateway.embedded import EmbeddedUnavailable

_OK: Final = 200
_RUSH: Final = 50
_SAME: Final = 20
_ONE_PATIENT: Final = 200
_POLL_S: Final = 0.05
_CUT_S: Final = 110.0
_PATIENCE_S: Final = 30.0
_FORGED: Final = {
    "X-Optum-Tenant-Id": "somebody-else",
    "X-Api-Key": "",
}


@dataclass(slots=True)
class Telling:
    """Where the story is told, and what came of its promises."""

    console: Console
    speed: float
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def scene(self, title: str, text: str) -> None:
        """Begin a scene."""
        self.console.print(f"\n[bold]{title}[/bold]")
        self.console.print(f"  {text}", highlight=False, soft_wrap=True)

    def promise(self, text: str, *, kept: bool) -> None:
        """Tell a promise, and whether it held."""
        self.console.print(
            f"  {'[green]kept[/green]  ' if kept else '[bold red]BROKEN[/bold red]'} {text}",
            highlight=False,
            soft_wrap=True,
        )
        if not kept:
            self.broken.append(text)

    async def waiting(self, text: str, *work: Awaitable[Answer]) -> list[Answer]:
        """Await answers, with a sign of life for people; keep them for the ledger."""
        with self.console.status(f"  {text}") if self.console.is_terminal else nullcontext():
            answers = await asyncio.gather(*work)
        self.answers += answers
        return answers

    def simulated(self, real_s: float) -> str:
        """A duration as the patient at the desk would have felt it."""
        return f"{real_s * self.speed:.0f} s"


def tell(console: Console, *, once: bool, speed: float) -> int:
    """Tell the story; return 0 if every promise held, else 1."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # every way to end it takes the stage down in order
        signal.signal(number, signal.default_int_handler)
    console.print(
        "[bold]Eligibility Gateway[/bold]: a clinic's day in front of a simulated Enhanced Eligibility API.",
        soft_wrap=True,
    )
    console.print(
        f"A simulated minute takes {60 / speed:g} s. All patients, payers and answers are made up.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        with set_stage(speed) as stage:
            telling = Telling(console, speed)
            asyncio.run(_play(telling, stage))
            _sum_up(telling)
            if not once:
                _stay(telling, stage)
            return 1 if telling.broken else 0
    except (StageError, EmbeddedUnavailable) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the user's own mistake, or their machine's
        return 1
    except KeyboardInterrupt:
        return 130 if once else 0  # cut short, the story has promised nothing


async def _play(telling: Telling, stage: Stage) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        callers = Callers(stage, session)
        for scene in (_rush, _additions, _same_question, _slow_payers, _dead_token, _strangers, _discovery):
            await scene(telling, callers)
        await _ledger(telling, callers)


async def _rush(telling: Telling, callers: Callers) -> None:
    telling.scene(
        "8:00, the doors open",
        f"{len(CALLERS)} services ask {_RUSH} questions at once, over two gateways that have just started.",
    )
    names = list(CALLERS)
    work = (callers.submit(names[i % 3], "SIM-TYPICAL", i) for i in range(_RUSH))
    answers = await telling.waiting("waiting for the payers", *work)
    counters = await callers.counters()
    telling.promise(f"{_RUSH} questions, {_RUSH} answers", kept=[a.status for a in answers] == [_OK] * _RUSH)
    telling.promise(
        f"one token fetched for the whole fleet (the upstream issued {counters['tokens_issued']})",
        kept=counters["tokens_issued"] == 1,
    )
    median = statistics.median(answer.duration_s for answer in answers)
    telling.console.print(
        f"  half of them were answered within {telling.simulated(median)}", highlight=False, soft_wrap=True
    )


async def _additions(telling: Telling, callers: Callers) -> None:
    telling.scene("8:20, what a caller sends and what arrives", "Scheduling sends headers that are not its to send.")
    headers = {name: value for name, value in _FORGED.items() if value}
    (answer,) = await telling.waiting("asking", callers.submit("scheduling", "SIM-INSTANT", 1, **headers))
    arrived = {name.lower(): value for name, value in (await callers.last_request())["headers"]}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("header", "sent", "arrived"):
        table.add_column(heading)
    table.add_row("authorization", "scheduling's secret", "the gateway's token")
    table.add_row("x-optum-tenant-id", "somebody-else", arrived.get("x-optum-tenant-id", "(gone)"))
    table.add_row("x-optum-subtenant-id", "(none)", arrived.get("x-optum-subtenant-id", "(gone)"))
    table.add_row("x-optum-correlation-id", "(none)", arrived.get("x-optum-correlation-id", "(gone)"))
    table.add_row("x-demo-site", "(none)", arrived.get("x-demo-site", "(gone)"))
    telling.console.print(Padding(table, (0, 0, 0, 1)))
    telling.promise(
        "nothing forged passes; the subtenant is the caller's own",
        kept="x-optum-tenant-id" not in arrived and arrived.get("x-optum-subtenant-id") == CALLERS["scheduling"][0],
    )
    (foreign,) = await telling.waiting(
        "asking", callers.submit("scheduling", "SIM-INSTANT", 1, x_optum_subtenant_id="not-mine")
    )
    telling.promise(
        f"whoever names another's subtenant is refused: {foreign.status} {foreign.document['code']}",
        kept=foreign.document["code"] == "foreign_subtenant",
    )
    telling.promise(
        "the correlation id is the same upstream and on the reply",
        kept=bool(arrived.get("x-optum-correlation-id"))
        and arrived.get("x-optum-correlation-id") == answer.headers.get("x-optum-correlation-id"),
    )


async def _same_question(telling: Telling, callers: Callers) -> None:
    telling.scene(
        "9:00, the same question",
        f"Scheduling and registration ask {_SAME} times about one patient, over both gateways; later once more.",
    )
    before = await _checks(callers)
    names = ("scheduling", "registration")
    work = (callers.submit(names[i % 2], "SIM-TYPICAL", _ONE_PATIENT) for i in range(_SAME))
    answers = await telling.waiting("waiting for the payer", *work)
    calls = await _checks(callers) - before
    telling.promise(
        f"{_SAME} answers, {calls} call upstream",
        kept=[answer.status for answer in answers] == [_OK] * _SAME and calls == 1,
    )
    own = {answer.headers.get("x-optum-correlation-id") for answer in answers}
    stated = {answer.document["correlationId"] for answer in answers}
    telling.promise(f"each under an own correlation id: {len(own)}", kept=len(own) == _SAME and own == stated)
    (again,) = await telling.waiting("asking again", callers.submit("scheduling", "SIM-TYPICAL", _ONE_PATIENT))
    telling.promise(
        f"asked again, the earlier answer comes and says so: {again.headers.get('cache-status')}",
        kept="; hit;" in again.headers.get("cache-status", "") and again.document["sourceType"] == "duplicate",
    )
    (other,) = await telling.waiting("asking for another", callers.submit("billing", "SIM-TYPICAL", _ONE_PATIENT))
    telling.promise(
        "billing asks on another subtenant's behalf, and gets an answer of its own",
        kept=other.status == _OK and await _checks(callers) - before == calls + 1,
    )


async def _checks(callers: Callers) -> int:
    """How many real-time checks the upstream has carried out."""
    return int((await callers.counters())["submissions_processed"])


async def _slow_payers(telling: Telling, callers: Callers) -> None:
    telling.scene(
        "10:00, heavy hours",
        "One payer takes its time; another answers at 115 s, and the network in front of it cuts at 110 s.",
    )
    before = await _checks(callers)
    slow, cut, hasty = await telling.waiting(
        "two minutes of the day pass",
        callers.submit("registration", "SIM-SLOW", 2),
        callers.submit("billing", "SIM-CUT110", 3),
        callers.submit("scheduling", "SIM-CUT110", 5, prefer="wait=1"),
    )
    telling.promise(
        f"the slow answer comes, after {telling.simulated(slow.duration_s)}",
        kept=slow.status == _OK,
    )
    telling.promise(
        f"the other is cut, looked up by its correlation id, and there after {telling.simulated(cut.duration_s)}: "
        f"{cut.headers.get('cache-status')}",
        kept=cut.status == _OK and cut.headers.get("cache-status", "").endswith("detail=recovered"),
    )
    if telling.speed < _CUT_S:  # else the one second that it waits is longer than the call
        telling.promise(
            f"who does not wait so long is told after {telling.simulated(hasty.duration_s)} that the call goes on: "
            f"{hasty.document.get('code')}",
            kept=hasty.document.get("code") == "answer_pending",
        )
    again = await _until(lambda: callers.submit("scheduling", "SIM-CUT110", 5), lambda answer: answer.status == _OK)
    calls = await _checks(callers) - before
    telling.promise(
        f"asked again, the answer is there: {calls} questions, {calls} calls",
        kept=again.status == _OK and calls == 3,  # noqa: PLR2004 - the slow one, and the two that were cut
    )
    named = await callers.metric("eligibility_gateway_upstream_timeouts_total")
    telling.promise(
        f"the metrics name who cut {named:.0f} of them: the enterprise gateway",
        kept=named == 2,  # noqa: PLR2004 - nobody else cut anything
    )


async def _dead_token(telling: Telling, callers: Callers) -> None:
    telling.scene("13:00, the upstream forgets the token", "20 questions meet a token that is suddenly worth nothing.")
    before = (await callers.counters())["tokens_issued"]
    await callers.revoke_tokens()
    work = (callers.submit("scheduling", "SIM-INSTANT", 100 + i) for i in range(20))
    answers = await telling.waiting("asking", *work)
    fetched = (await callers.counters())["tokens_issued"] - before
    telling.promise("nobody noticed: 20 answers", kept=all(answer.status == _OK for answer in answers))
    telling.promise(f"{fetched} new token for both gateways", kept=fetched == 1)


async def _strangers(telling: Telling, callers: Callers) -> None:
    telling.scene(
        "15:00, who does not belong", "A stranger, a service on a path it may not use, and a path that is none."
    )
    before = await callers.counters()
    work = asyncio.gather(
        callers.submit("stranger", "SIM-INSTANT"),
        callers.ask("billing", "GET", "/healthcheck"),
        callers.ask("scheduling", "GET", "/../admin"),
    )
    answers = await work
    for answer in answers:
        telling.console.print(
            f"  {answer.status} {answer.document['code']}: {answer.document['detail']}",
            highlight=False,
            soft_wrap=True,
        )
    after = await callers.counters()
    telling.promise(
        "each is refused, and nothing of it reached the upstream",
        kept=[answer.status for answer in answers] == [401, 403, 404] and before["received"] == after["received"],
    )


async def _discovery(telling: Telling, callers: Callers) -> None:
    telling.scene("16:00, a patient without coverage", "The upstream starts a discovery task and names it in `link`.")
    (answer,) = await telling.waiting("asking", callers.submit("registration", "SIM-INELIGIBLE", 4))
    link = answer.headers.get("link", "")
    task = link.partition("<")[2].partition(">")[0]
    telling.promise(f"the link header arrives: {link.partition(';')[0] or '(none)'}", kept=bool(task))
    ended = await _until(
        lambda: callers.ask("registration", "GET", task),
        lambda a: a.status == _OK and a.document["status"] != "pending",
    )
    telling.promise(
        f"the task is followed through the gateway until it ends: {(ended.document or {}).get('status')}",
        kept=ended.status == _OK and ended.document["status"] == "success",
    )


async def _ledger(telling: Telling, callers: Callers) -> None:
    telling.scene(
        "18:00, the books",
        "What the day came to, in the day's own seconds, from the gateways' metrics and the upstream's counters.",
    )
    counters = await callers.counters()
    requests = await callers.metric("eligibility_gateway_requests_total")
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("caller", "answers", "median", "slowest"):
        table.add_column(heading, justify="left" if heading == "caller" else "right")
    for caller in CALLERS:
        durations = [answer.duration_s for answer in telling.answers if answer.caller == caller]
        slowest, median = max(durations), statistics.median(durations)
        table.add_row(caller, str(len(durations)), telling.simulated(median), telling.simulated(slowest))
    telling.console.print(Padding(table, (0, 0, 0, 1)))
    avoided = await callers.metric("eligibility_gateway_dedup_calls_avoided_total")
    calls = sum(counters["received"].values()) - counters["received"].get("token", 0)
    tokens = counters["tokens_issued"]
    telling.console.print(
        f"  {requests:.0f} requests were answered. {calls} calls reached the upstream; {counters['unauthorized']} of "
        f"them met the forgotten token and were repeated. {avoided:.0f} were not needed.\n"
        f"  It issued {tokens} tokens: {calls - tokens} fewer than one for each call.",
        highlight=False,
        soft_wrap=True,
    )


def _sum_up(telling: Telling) -> None:
    if telling.broken:
        telling.console.print(f"\n[bold red]{len(telling.broken)} promises broken.[/bold red]")
    else:
        telling.console.print("\n[bold green]Every promise held.[/bold green]")


def _stay(telling: Telling, stage: Stage) -> None:
    """Stay up until Ctrl-C, and say what to try."""
    console, secret = telling.console, stage.secrets["scheduling"]
    body = json.dumps(inquiry("SIM-TYPICAL", 7))
    as_scheduling = f"-H 'authorization: Bearer {secret}'"
    first, second = stage.gateway_urls
    console.print("\nEverything stays up until Ctrl-C. Try:\n")
    for line in (
        f"curl -i {first}/rcm/eligibility/v1 {as_scheduling} -H 'content-type: application/json' -d '{body}'",
        f"curl -s '{second}/rcm/eligibility/v1/transactions?limit=1' {as_scheduling}",
        f"curl -s {stage.admin_urls[0]}/metrics",
        f"curl -s {stage.admin_urls[0]}/policies",
        f"curl -s {stage.simulator_url}/_simulator/counters",
        f"tail -f {stage.directory}/gateway-1.log",
    ):
        print(f"  {line}\n", flush=True)  # noqa: T201 - to be copied: rich would wrap it
    while True:  # not signal.pause: a signal in the instant before it would never be heard
        time.sleep(1)


async def _until(ask: Callable[[], Awaitable[Answer]], is_enough: Callable[[Answer], bool]) -> Answer:
    """Ask again until it is enough, or patience ends; return the last answer."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _PATIENCE_S
    while not is_enough(answer := await ask()) and loop.time() < give_up_at:  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(_POLL_S)
    return answer
