"""Write the lock files: every distribution with its exact version and hashes.

requirements.lock has four sections, each a superset of the one before in what it makes possible:
`runtime` (what the image installs), `embedded` (the bundled Valkey), `otel` (traces), `development`.
The image cuts the file at the second heading, so the sections and their order are part of its contract.
Tools that look at what is shipped have a file for each group, under the pins of that one.
No file names an index: whoever installs decides where packages come from.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
SECTIONS = (
    ("runtime", ()),
    ("embedded", ("--extra", "embedded")),
    ("otel", ("--extra", "embedded", "--extra", "otel")),
    ("development", ("--extra", "embedded", "--extra", "otel", "--extra", "dev")),
)
GROUPS = ("shipping", "sbom", "fuzz")
HEADING = "# == {}\n"
FIRST_LINE = "# Made by `make lock`; install it with pip --require-hashes.\n"


def main() -> None:
    """Resolve each section under the pins of the one before it."""
    pins: dict[str, str] = {}
    text = FIRST_LINE
    for name, extras in SECTIONS:
        found = _compile(("pyproject.toml", *extras), pins)
        new = {pin: block for pin, block in found.items() if pin not in pins}
        text += "\n" + HEADING.format(name) + "".join(block for _, block in sorted(new.items()))
        pins |= new
    LOCK.write_text(text)
    print(f"{LOCK.name}: {len(pins)} distributions")
    for group in GROUPS:
        found = _compile(("--group", group), pins)
        file = ROOT / f"requirements-{group}.lock"
        file.write_text(FIRST_LINE + "".join(block for _, block in sorted(found.items())))
        print(f"{file.name}: {len(found)} distributions")


def _compile(what: tuple[str, ...], pins: dict[str, str]) -> dict[str, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{pin}\n" for pin in pins))
        constraints.flush()
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", *what),
            *("--constraint", constraints.name, "--generate-hashes", "--universal", "--python-version", "3.11"),
            *("--no-header", "--no-annotate", "--no-emit-index-url"),
        ]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    blocks: dict[str, str] = {}
    pin = ""
    for line in done.stdout.splitlines(keepends=True):
        if not line.startswith(" "):
            pin = line.removesuffix(" \\\n").strip()
            blocks[pin] = ""
        blocks[pin] += line
    return blocks


if __name__ == "__main__":
    main()
