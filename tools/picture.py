"""Draw docs/demo.svg: the demo's story as a terminal shows it."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from gateway.demo.story import tell

PICTURE = Path(__file__).parent.parent / "docs" / "demo.svg"


def main() -> None:
    """Play the story once, and keep its picture."""
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, force_interactive=False)
    if tell(console, once=True, speed=60.0) != 0:
        sys.exit("a promise of the story did not hold: no picture")
    svg = console.export_svg(title="make demo ARGS=--once", unique_id="demo")
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
