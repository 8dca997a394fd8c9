"""Write what is generated: tables of docs/, the policies' JSON Schema and files of the chart.

`--check` writes nothing and fails if anything would change.
"""

import json
import sys
from pathlib import Path

from pydantic import SecretStr

from gateway.errors import every_problem
from gateway.operations import OPERATIONS
from gateway.policy.schema import policy_schema
from gateway.settings import Settings, variable
from gateway.telemetry.metrics import Metrics
from tools.chart import chart_files

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- generated: make docs -->\n", "<!-- end -->\n"


def main() -> None:
    """Write, or check."""
    check = "--check" in sys.argv[1:]
    stale = [path.relative_to(ROOT) for path, text in _wanted().items() if _write(path, text, check=check)]
    if check and stale:
        sys.exit(f"out of date, run `make docs`: {', '.join(map(str, stale))}")


def _wanted() -> dict[Path, str]:
    return {
        ROOT / "policies" / "policy.schema.json": json.dumps(policy_schema(), indent=2) + "\n",
        **_page("configuration.md", settings_table()),
        **_page("policies.md", operations_table()),
        **_page("problems.md", problems_table()),
        **_page("metrics.md", metrics_table()),
        **chart_files(ROOT),
    }


def _page(name: str, table: str) -> dict[Path, str]:
    path = ROOT / "docs" / name
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return {path: before + BEGIN + table + END + after}


def _write(path: Path, text: str, *, check: bool) -> bool:
    if path.exists() and path.read_text() == text:
        return False
    if not check:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return True


def settings_table() -> str:
    """Every setting with its default and its meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        stated = f"`{field.default}`" if field.default not in {(), None} else "none"
        default = "required" if field.is_required() else stated
        secret = " Secret." if field.annotation is SecretStr or name == "keys" else ""
        rows.append(f"| `{variable(name)}` | {default} | {field.description}{secret} |\n")
    return "| variable | default | meaning |\n|---|---|---|\n" + "".join(rows)


def operations_table() -> str:
    """Every operation with its method and path."""
    rows = [f"| `{one.name.value}` | `{one.method} {one.path}` |\n" for one in OPERATIONS.values()]
    return "| operation | request |\n|---|---|\n" + "".join(rows)


def problems_table() -> str:
    """Every problem's code with its status and what to do."""
    found = sorted(every_problem(), key=lambda error: (error.status, error.code))
    rows = [
        f"| `{error.code}` | {error.status} | {error.source.value} | {'yes' if error.retry_safe else 'no'} "
        f"| {error.title} {error.hint} |\n"
        for error in found
    ]
    return "| code | status | source | retry safe | meaning |\n|---|---|---|---|---|\n" + "".join(rows)


def metrics_table() -> str:
    """Every metric with its labels."""
    metrics = Metrics(version="", python_version="", fetch_results=(), wall_now=float)
    rows = []
    for collector in metrics.registry._collector_to_names:  # noqa: SLF001 - the only list there is
        (family, *_) = collector.describe()  # type: ignore[attr-defined]
        names = getattr(collector, "labels", None)  # ours; the library's own have a method of this name
        names = names if isinstance(names, tuple) else getattr(collector, "_labelnames", ())
        labels = ", ".join(f"`{label}`" for label in names) or "none"
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |\n")
    return "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(sorted(rows))


if __name__ == "__main__":
    main()
