"""Throw bytes at everything that reads what a caller sent, guided by what they reach (libFuzzer, by atheris).

python -m tests.fuzz [--seconds 60] [--target NAME] [--corpus DIRECTORY]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import SEEDS, TARGETS

_SLOW_S = 5  # whatever takes longer than this is a finding as well
_ONE = "GATEWAY_FUZZED_TARGET"


def main() -> int:
    """Run each target in a process of its own for its share of the time; say which held."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Throw bytes at what reads what a caller sent.")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one; may be repeated")
    parser.add_argument("--corpus", type=Path, help="a directory that keeps what was interesting for the next run")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    failed = []
    with tempfile.TemporaryDirectory(prefix="eligibility-gateway-fuzz-") as temporary:
        for name in names:
            corpus = (options.corpus or Path(temporary)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(SEEDS[name]):
                (corpus / f"seed-{number}").write_bytes(seed)
            _say(f"{name} ...")
            done = _fuzz(name, corpus, max(options.seconds // len(names), 1))
            _say(f"{name}: {done[1]}")
            failed += [name] if done[0] else []
    return 1 if failed else 0


def _fuzz(name: str, corpus: Path, seconds: int) -> tuple[int, str]:
    limits = [f"-max_total_time={seconds}", f"-timeout={_SLOW_S}", "-rss_limit_mb=2048", "-max_len=8192"]
    found = f"-artifact_prefix={Path.cwd()}/fuzz-{name}-"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", found, *limits, str(corpus)],
        env={**os.environ, _ONE: name},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("Done ")), "")
    if done.returncode:
        _say("\n".join(line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))))
    return done.returncode, last or f"ended with {done.returncode}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _throw(name: str) -> None:
    import atheris  # type: ignore[import-untyped] # noqa: PLC0415 - the short run needs none of it

    with atheris.instrument_imports(include=["gateway", "joserfc"]):
        for module in [module for module in sys.modules if module.startswith(("gateway", "joserfc", "tests."))]:
            del sys.modules[module]
        from tests.fuzz import targets  # noqa: PLC0415 - once more, with what counts where the bytes get to
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if _ONE in os.environ:
        _throw(os.environ[_ONE])
    sys.exit(main())
