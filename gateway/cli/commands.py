"""The commands, and what each of them calls."""

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from gateway.cli.audit import audit_app
from gateway.cli.options import counted, fail, load_policies, read_body
from gateway.cli.policies import check, diff_policies, explain_policy, new_caller
from gateway.policy.documents import PolicyFilesError
from gateway.settings import Address, SettingsError, parse_address, read_settings

_SIMULATOR_ADDRESS: Final = Address("127.0.0.1", 8081)

app = typer.Typer(
    name="eligibility-gateway",
    help="A reverse proxy for Optum's Enhanced Eligibility API: headers, token, policies, metrics.",
    epilog="Every setting is an environment variable: docs/configuration.md. Try it: eligibility-gateway demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

caller_app = typer.Typer(no_args_is_help=True, help="Callers: who may call.")
app.add_typer(caller_app, name="caller")
app.add_typer(audit_app, name="audit")


def _address(value: str) -> Address:
    try:
        return parse_address(value)
    except ValueError as error:
        raise typer.BadParameter(f"found '{value}', expected {error}") from None


def main() -> None:
    """Run the command line."""
    app()


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        print(f"eligibility-gateway {importlib.metadata.version('eligibility-gateway')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def serve() -> None:
    """Serve until SIGTERM: callers on GATEWAY_LISTEN, Prometheus and probes on GATEWAY_ADMIN_LISTEN.

    Needs GATEWAY_UPSTREAM_URL, GATEWAY_UPSTREAM_CLIENT_ID, GATEWAY_UPSTREAM_CLIENT_SECRET, GATEWAY_REDIS_URL and,
    unless that is `embedded`, GATEWAY_KEYS; each may be given as …_FILE.

    SIGHUP has the policy files read at once, and the audit trail's file opened anew if it was moved. SIGTERM lets what
    is in flight end.

    Exit codes: 0 ended with nothing cut short, 1 something in flight had to be handed over, 2 cannot start.
    """
    from gateway.process import run
    from gateway.start import StartError
    from gateway.telemetry.log import open_log

    try:
        settings = read_settings(os.environ)
        code = run(settings, open_log(settings.log_level, requests_per_s=settings.log_requests_per_s))
    except (SettingsError, PolicyFilesError) as error:
        fail(*(str(problem) for problem in error.problems))
    except StartError as error:
        fail(str(error))
    raise typer.Exit(code)


@app.command("healthcheck")
def healthcheck_command(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Asked instead of /readyz at GATEWAY_ADMIN_LISTEN: http://HOST[:PORT]/PATH."),
    ] = None,
) -> None:
    """Ask whether the gateway of this machine is ready, on its admin port: what a container's health check runs.

    Needs GATEWAY_ADMIN_LISTEN (or …_FILE) where that is not the default, and no other setting.

    Exit codes: 0 it is ready, 1 it is not, or nobody answers within 3 s, 2 the command or the address is wrong.
    """
    from gateway.healthcheck import healthcheck

    raise typer.Exit(healthcheck(os.environ, url))


@app.command()
def simulate(
    listen: Annotated[
        Address,
        typer.Option(parser=_address, metavar="HOST:PORT", help="Where to listen; port 0 lets the system choose."),
    ] = _SIMULATOR_ADDRESS,
    speed: Annotated[float, typer.Option(min=0.001, help="60 makes a simulated minute take a second.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same latencies.")] = 0,
    deduplicate: Annotated[
        bool,
        typer.Option("--deduplicate", help="Answer repeated requests as the upstream's own deduplication does."),
    ] = False,
    callback_url: Annotated[
        str | None,
        typer.Option(help="Where ended discovery tasks are delivered whose request names no callbackUrl."),
    ] = None,
    callback_token_url: Annotated[
        str | None,
        typer.Option(help="The receiver's OAuth2 token endpoint."),
    ] = None,
) -> None:
    """Stand in for the Enhanced Eligibility API, with payers, clocks and faults; all its data is synthetic.

    Its credentials are the client id `simulator` and the secret `simulator-secret`. Payers are chosen by
    tradingPartnerServiceId: SIM-FAST, SIM-SLOW, SIM-CUT110 and others (docs/simulator.md).
    """
    from gateway import simulator

    options = simulator.Options(
        host=listen.host,
        port=listen.port,
        speed=speed,
        seed=seed,
        deduplicate=deduplicate,
        callback_url=callback_url,
        callback_token_url=callback_token_url,
    )
    try:
        simulator.run(options)
    except OSError:
        fail(f"--listen: found {listen} taken or not allowed, expected an address to listen on")


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the story instead of staying up.")] = False,
    speed: Annotated[float, typer.Option(min=1, help="Simulated seconds in a real one.")] = 60.0,
) -> None:
    """Tell the story: a Valkey, a simulated upstream, two gateways and a day's work, on free ports of this machine.

    Then it stays up, and prints what to try. Exit codes: 0 every promise of the story held, 1 one did not.
    """
    from gateway.demo.story import tell

    raise typer.Exit(tell(Console(), once=once, speed=speed))


app.command("check")(check)
app.command("explain")(explain_policy)
app.command("diff")(diff_policies)
caller_app.command("new")(new_caller)


@app.command("forget")
def forget_command(
    body: Annotated[
        Path | None,
        typer.Option("--body", metavar="FILE", help="A request body; what is stored for the same question goes."),
    ] = None,
    subtenant: Annotated[
        str | None,
        typer.Option("--subtenant", metavar="ID", help="All that is stored for it, or with --body only that."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is stored for any question.")] = False,
) -> None:
    """Forget stored answers: the next request for the same question asks the upstream again.

    Needs the environment of `serve`: the Redis, the key ring, the policies. An answer that is under way is handed to
    those who wait for it, and not kept.

    Exit codes: 0 done, and it says how many answers were forgotten; 1 Redis does not answer; 2 the command is wrong.
    """
    from gateway.connect import StoreUrlError
    from gateway.dedup.canonical import NotCanonical
    from gateway.forget import forget, patterns
    from gateway.sealing import Sealing
    from gateway.store import StoreUnavailable

    if everything == (body is not None or subtenant is not None):
        fail("found no choice of what to forget, or two: choose --all, or --body and/or --subtenant")
    try:
        settings = read_settings(os.environ)
        if settings.is_embedded:
            fail("GATEWAY_REDIS_URL: found 'embedded', expected the Redis of the gateways that run")
        name = Sealing(settings.keys).name
        content = read_body(body, "--body") if body is not None else None
        found = load_policies(settings.policies)
        if subtenant is not None and subtenant not in found.subtenants:
            print(
                f"--subtenant: no policy file names '{subtenant}', look again if it is no former one", file=sys.stderr
            )
        forgotten, others = forget(settings, patterns(found, name, body=content, subtenant=subtenant))
    except SettingsError as error:
        fail(*(str(problem) for problem in error.problems))
    except NotCanonical as error:
        fail(f"--body: found a body that is never stored ({error.reason.value}), expected one that can be")
    except StoreUrlError as error:
        fail(f"GATEWAY_REDIS_URL: {error}")
    except StoreUnavailable:
        print("GATEWAY_REDIS_URL: found no Redis that answers, expected the Redis of the gateways", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"forgot {counted(range(forgotten), 'answer', 'answers')}")
    if others and not forgotten:
        print(
            f"{counted(range(others), 'question is', 'questions are')} stored there, none of them this one: if you "
            "expected it, look whether GATEWAY_KEYS and the policies are those of the gateways",
            file=sys.stderr,
        )
