"""The command line: parse, call, print; no logic."""

from gateway.cli.commands import main

__all__ = ["main"]
