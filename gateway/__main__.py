"""`eligibility-gateway`, and `python -m gateway`, which is the same."""

import os
import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["healthcheck"]:
        # Asked every few seconds: what all the other commands import would take most of its time.
        from gateway.healthcheck import healthcheck  # noqa: PLC0415

        sys.exit(healthcheck(os.environ))
    if sys.argv[1:2] == ["serve"]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is heard: it asks for policies that are read anyway
    from gateway.cli import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
