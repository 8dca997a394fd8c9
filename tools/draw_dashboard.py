"""Draw the dashboard as an SVG, with what a Prometheus has: `python -m tools.draw_dashboard --prometheus URL`.

It reads the same JSON that Grafana imports, asks the same queries, and keeps to the same grid; it knows the two kinds
of panels that the dashboard has.
"""

import argparse
import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
DASHBOARD: Final = ROOT / "helm" / "dashboards" / "eligibility-gateway.json"
COLUMN, ROW, GAP = 60, 34, 8
INK, DIM, LINE, CARD, PAPER = "#d8d9da", "#8e9096", "#2c2f36", "#181b1f", "#111217"
COLOURS: Final = (
    *("#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#ff7383", "#8ab8ff", "#c0d8ff", "#fade2a", "#96d98d"),
)
KNOWN: Final = {
    **dict(zip(("0-10 s", "10-30 s", "30-60 s", "60-90 s", "90-110 s", "110-120 s", "120+ s"),
               ("#37872d", "#73bf69", "#c8f2c2", "#f2cc0c", "#ff9830", "#f2495c", "#c4162a"), strict=True)),
    "lead": "#5794f2", "follow": "#73bf69", "detached": "#ff9830", "other": "#8e9096", "replay": "#b877d9",
    "recovered": "#73bf69", "not_found": "#f2495c", "caller": "#ff9830", "gateway": "#b877d9",
    "enterprise_gateway": "#f2cc0c", "clearinghouse": "#f2495c", "bypass": "#f2cc0c",
    **dict(zip(("90-105 s", "105-115 s", "115-122 s", "above 122 s"),
               ("#ff9830", "#f2495c", "#c4162a", "#b877d9"), strict=True)),
}  # fmt: skip
GREEN_TO_RED: Final = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
_PATIENCE_S: Final = 10.0
_POINTS: Final = 160
_LEGEND_MAX: Final = 8
_LETTER: Final = 6.2


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, in seconds since 1970; `rate` is what `$__rate_interval` stands for."""

    begin: float
    end: float
    rate: str

    @property
    def step(self) -> float:
        """Seconds between two points."""
        return max((self.end - self.begin) / _POINTS, 1.0)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, and its points as (instant, value)."""

    name: str
    points: Sequence[tuple[float, float]]


def main() -> None:
    """Draw what there is now."""
    parser = argparse.ArgumentParser(description="Draw the dashboard as an SVG.")
    parser.add_argument("--prometheus", required=True, help="where it answers, such as http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far to look back")
    parser.add_argument("--rate", default="2m", help="what $__rate_interval stands for")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "dashboard.svg")
    options = parser.parse_args()
    end = time.time()
    window = Window(end - options.minutes * 60, end, options.rate)
    options.out.write_text(draw(json.loads(DASHBOARD.read_text()), options.prometheus, window), encoding="utf-8")


def draw(dashboard: Mapping[str, Any], prometheus: str, window: Window) -> str:
    """Return the SVG of a dashboard."""
    height = max(_bottom(panel) for panel in dashboard["panels"]) * ROW + 56
    width = 24 * COLUMN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="Inter, Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        _text(16, 32, dashboard["title"], 20, INK, weight=600),
        _text(width - 16, 32, f"last {(window.end - window.begin) / 60:.0f} minutes", 13, DIM, anchor="end"),
    ]
    for panel in dashboard["panels"]:
        parts += _panel(panel, prometheus, window)
    return "\n".join([*parts, "</svg>\n"])


def expression(text: str, window: Window) -> str:
    """Return a query with everything that Grafana would put in."""
    for name in ("job", "operation", "payer"):
        text = text.replace(f"${name}", ".*")
    return text.replace("$__rate_interval", window.rate).replace("$__range", f"{window.end - window.begin:.0f}s")


def _bottom(panel: Mapping[str, Any]) -> int:
    bottom: int = panel["gridPos"]["y"] + panel["gridPos"]["h"]
    return bottom


def _panel(panel: Mapping[str, Any], prometheus: str, window: Window) -> Iterator[str]:
    grid = panel["gridPos"]
    x, y = grid["x"] * COLUMN + GAP / 2, grid["y"] * ROW + 48
    width, height = grid["w"] * COLUMN - GAP, grid["h"] * ROW - GAP
    if panel["type"] == "row":
        yield _text(x + 8, y + 20, panel["title"], 14, INK, weight=600)
        return
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{CARD}" stroke="{LINE}"/>'
    yield _text(x + 10, y + 20, panel["title"], 12.5, INK, weight=600)
    found = [series for target in panel["targets"] for series in _asked(prometheus, target, window)]
    if panel["type"] == "stat":
        yield from _stat(panel, found, (x, y, width, height))
    else:
        yield from _chart(panel, found, window, (x, y, width, height))


def _asked(prometheus: str, target: Mapping[str, Any], window: Window) -> Iterator[Series]:
    query = {"query": expression(target["expr"], window)}
    if target["instant"]:
        path, query["time"] = "query", str(window.end)
    else:
        path = "query_range"
        query |= {"start": str(window.begin), "end": str(window.end), "step": str(window.step)}
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as response:  # noqa: S310 - whoever calls names it
        results = json.load(response)["data"]["result"]
    for result in results:
        name = target["legendFormat"]
        for label, value in result["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        points = [result["value"]] if target["instant"] else result["values"]
        numbers = [(float(at), float(value)) for at, value in points]
        yield Series(name, [(at, value) for at, value in numbers if math.isfinite(value)])


def _stat(panel: Mapping[str, Any], found: Sequence[Series], box: tuple[float, float, float, float]) -> Iterator[str]:
    x, y, width, height = box
    value = found[0].points[-1][1] if found and found[0].points else None
    colour = INK
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if value is not None and (step["value"] is None or value >= step["value"]):
            colour = GREEN_TO_RED.get(step["color"], INK)
    shown = "no data" if value is None else f"{value * 100:.{panel['fieldConfig']['defaults']['decimals']}f} %"
    yield _text(x + width / 2, y + height / 2 + 22, shown, 36, colour, weight=600, anchor="middle")


def _chart(
    panel: Mapping[str, Any],
    found: Sequence[Series],
    window: Window,
    box: tuple[float, float, float, float],
) -> Iterator[str]:
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    is_stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    ordered = sorted(found, key=lambda one: _order(one.name))
    left, top, bottom = x + 46, y + 34, y + height - 42
    right = x + width - 12
    layers = _layers(ordered, window) if is_stacked else [(one, None) for one in ordered]
    highest = max([value for one, _ in layers for _, value in one.points] or [0.0])
    top_value, ticks = _scale(highest or 1.0)

    def place(at: float, value: float) -> str:
        across = (at - window.begin) / (window.end - window.begin)
        return f"{left + across * (right - left):.1f},{bottom - value / top_value * (bottom - top):.1f}"

    for tick in ticks:
        level = bottom - tick / top_value * (bottom - top)
        yield f'<line x1="{left}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}" stroke="{LINE}"/>'
        yield _text(left - 6, level + 4, _unit(tick, defaults["unit"]), 10.5, DIM, anchor="end")
    for number, (one, below) in reversed(list(enumerate(layers))):
        if not one.points:
            continue
        colour = _colour(one.name, number)
        line = " ".join(place(at, value) for at, value in one.points)
        if below is not None:
            back = " ".join(place(at, value) for at, value in reversed(below))
            yield f'<polygon points="{line} {back}" fill="{colour}" fill-opacity="0.55"/>'
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    yield from _hours(window, left, right, bottom)
    yield from _legend(ordered, x + 12, y + height - 8, width - 24)


def _order(name: str) -> tuple[int, str]:
    known = list(KNOWN)
    return (known.index(name), name) if name in KNOWN else (len(known), name)


def _layers(
    found: Sequence[Series],
    window: Window,
) -> list[tuple[Series, list[tuple[float, float]]]]:
    """Put each line on top of those before it; the second of each pair is what is below."""
    instants = sorted({at for one in found for at, _ in one.points} or {window.begin})
    below = dict.fromkeys(instants, 0.0)
    layers = []
    for one in found:
        values = dict(one.points)
        above = {at: below[at] + values.get(at, 0.0) for at in instants}
        layers.append((Series(one.name, list(above.items())), list(below.items())))
        below = above
    return layers


def _scale(highest: float) -> tuple[float, list[float]]:
    """Return a round number above the highest value, and a few ticks."""
    magnitude = 10 ** math.floor(math.log10(highest))
    top = next(factor * magnitude for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if factor * magnitude >= highest)
    return top, [top * share / 4 for share in range(5)]


def _unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.4g} s"
    return f"{value:.3g}"


def _hours(window: Window, left: float, right: float, bottom: float) -> Iterator[str]:
    minutes = (window.end - window.begin) / 60
    for share in range(5):
        ago = minutes * (1 - share / 4)
        shown = "now" if share == 4 else f"-{ago:.0f} min"  # noqa: PLR2004 - the last of five
        at = left + (right - left) * share / 4
        yield _text(at, bottom + 15, shown, 10.5, DIM, anchor=("start", "middle", "middle", "middle", "end")[share])


def _legend(found: Sequence[Series], x: float, y: float, width: float) -> Iterator[str]:
    at = x
    for number, one in enumerate(found[:_LEGEND_MAX]):
        if at + 16 + len(one.name) * _LETTER > x + width:
            return
        yield f'<rect x="{at:.1f}" y="{y - 7}" width="10" height="4" fill="{_colour(one.name, number)}"/>'
        yield _text(at + 14, y, one.name, 11, INK)
        at += 26 + len(one.name) * _LETTER


def _colour(name: str, number: int) -> str:
    return KNOWN.get(name, COLOURS[number % len(COLOURS)])


def _text(  # noqa: PLR0913, PLR0917 - one fact each
    x: float, y: float, text: str, size: float, colour: str, weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


if __name__ == "__main__":
    main()
