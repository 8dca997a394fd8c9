"""The dashboard that is shipped: what it asks, of which metrics, and that it can be drawn."""

import json
import re
from collections import Counter
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.simulator import Options, Simulator
from tests.e2e.conftest import environment, run_gateway
from tests.running import ROOT
from tools.draw_dashboard import DASHBOARD, Window, draw, expression

WINDOW = Window(1000.0, 4600.0, "2m")
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TARGETS = [(f"{panel['title']} {target['refId']}", target["expr"]) for panel in PANELS for target in panel["targets"]]
NAME = re.compile(r"eligibility_gateway_\w+")


def test_panels_have_ids_of_their_own_and_the_data_source_is_chosen_by_whoever_imports_it() -> None:
    ids = Counter(panel["id"] for panel in BOARD["panels"])

    assert set(ids.values()) == {1}
    sources = {panel["datasource"]["uid"] for panel in PANELS} | {
        t["datasource"]["uid"] for p in PANELS for t in p["targets"]
    }
    assert sources == {"${datasource}"}
    assert "uid" not in BOARD
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {"datasource", "job", "operation", "payer"}


def test_every_panel_says_what_it_tells_and_in_which_unit() -> None:
    for panel in PANELS:
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_no_panel_lies_on_another_and_none_leaves_the_grid() -> None:
    taken = Counter(
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )

    assert set(taken.values()) == {1}
    assert max(x for x, _ in taken) == 23


def test_the_first_row_answers_whether_callers_are_served_how_late_what_it_costs_and_what_is_saved() -> None:
    rows = [panel["gridPos"]["y"] for panel in BOARD["panels"] if panel["type"] == "row"]
    first = [panel["title"] for panel in PANELS if rows[0] < panel["gridPos"]["y"] < rows[1]]

    assert first == ["Callers served", "Within 20 s", "How late", "What it costs", "What is saved"]


@pytest.mark.parametrize(("where", "expr"), TARGETS, ids=[where for where, _ in TARGETS])
def test_every_query_is_promql(where: str, expr: str) -> None:
    promql_parser.parse(expression(expr, WINDOW))
    assert "$" not in expression(expr, WINDOW), where


async def test_every_metric_that_is_asked_for_is_there(redis_url: str) -> None:
    async with Simulator(Options()) as upstream, run_gateway(environment(upstream.url, redis_url)) as one:
        families = list(read_text(await one.metrics()))
    there = {family.name for family in families} | {f"{family.name}_total" for family in families}
    there |= {
        f"{f.name}{suffix}" for f in families if f.type == "histogram" for suffix in ("_bucket", "_count", "_sum")
    }
    asked = {name for _, expr in TARGETS for name in NAME.findall(expr)}
    asked |= {name for variable in BOARD["templating"]["list"] for name in NAME.findall(str(variable["query"]))}

    assert asked - there == set()


def test_the_picture_is_of_this_dashboard() -> None:
    picture = (ROOT / "docs" / "dashboard.svg").read_text()

    for panel in BOARD["panels"]:
        assert f">{panel['title']}</text>" in picture.replace("&#x27;", "'")


def test_it_is_drawn_also_where_there_is_nothing_to_see() -> None:
    empty = {**BOARD, "panels": [panel | {"targets": []} for panel in PANELS]}

    assert draw(empty, "http://127.0.0.1:9", WINDOW).count("<rect") > len(PANELS)
