"""The pack of rules: every expression can be read, asks for what there is, and every alert says what to do."""

import re
from collections.abc import Callable

import pytest

from tests.e2e.conftest import environment, run_gateway
from tests.running import ROOT
from tests.scripted import ScriptedUpstream
from tests.slo.pack import Rule, alerts, firing, quiet, rules, selectors_of

PREFIX = "eligibility_gateway_"
PROMETHEUS_OWN = {"up"}  # says of a target whether it could be scraped
TARGET_LABELS = {"namespace", "job", "instance"}
RECORDED = re.compile(r"job(_[a-z]+)*:eligibility_gateway_[a-z0-9_]+:[a-z0-9_]+")
every_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
every_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def documented() -> dict[str, set[str]]:
    """The labels of each metric, as docs/metrics.md states them."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def family(name: str, known: set[str]) -> str:
    """The metric to which a series belongs: a histogram has three."""
    return name if name in known else re.sub(r"_(bucket|count|sum)$", "", name)


# --- what is asked for -----------------------------------------------------------------------------------------------


@every_rule
def test_every_expression_can_be_read(rule: Rule) -> None:
    assert rule.selectors()


def test_what_cannot_be_read_is_noticed() -> None:
    with pytest.raises(ValueError):
        selectors_of("sum by (job) rate(up[5m])")


@every_rule
def test_every_label_that_is_asked_for_is_one_of_the_metric(rule: Rule) -> None:
    known = documented()
    for selector in rule.selectors():
        if selector.name and selector.name.startswith(PREFIX):
            name = family(selector.name, set(known))
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert asked <= known[name] | TARGET_LABELS | ({"le"} if name != selector.name else set())


async def test_every_metric_and_bucket_that_is_asked_for_is_there(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        await gateway.submit()
        text = await gateway.metrics()
    there = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    recorded = {rule.name for rule in rules() if not rule.is_alert}
    asked = [selector for rule in rules() for selector in rule.selectors()]

    missing = {
        str(selector.name)
        for selector in asked
        if family(str(selector.name), there) not in there | recorded | PROMETHEUS_OWN
    }
    assert missing == set()
    for selector in asked:
        for matcher in selector.matchers.matchers:
            if matcher.name == "le":
                assert f'le="{matcher.value}"' in text, str(selector)


async def test_every_label_value_that_an_alert_counts_from_the_first_event_is_there_before(redis_url: str) -> None:
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        text = await gateway.metrics()

    for series in (
        'problems_total{code="overloaded"}',
        'problems_total{code="credentials_refused"}',
        'token_fetches_total{result="refused"}',
        'token_fetches_total{result="unavailable"}',
        'recoveries_total{operation="submit_eligibility",result="not_found"}',
        "dedup_unusable_values_total",
        "dedup_lost_leases_total",
        "log_lines_skipped_total",
        'audit_entries_lost_total{reason="full"}',
    ):
        assert f"\n{PREFIX}{series} " in text, series


def test_names_of_what_is_recorded_say_level_metric_and_operations() -> None:
    for rule in rules():
        if not rule.is_alert:
            assert RECORDED.fullmatch(rule.name), rule.name


def test_nothing_is_recorded_twice_and_no_two_groups_share_a_name() -> None:
    names = [rule.name for rule in rules()]
    assert len(names) == len(set(names))
    groups = {(rule.group, rule.is_alert) for rule in rules()}
    assert len(groups) == len({name for name, _ in groups})


# --- what is said ----------------------------------------------------------------------------------------------------


@every_alert
def test_every_alert_says_how_urgent_it_is_what_is_so_and_what_to_do(alert: Rule) -> None:
    assert alert.name.startswith("EligibilityGateway")
    assert alert.labels["severity"] in {"page", "ticket", "info"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    for name in ("summary", "description"):
        assert alert.annotations[name].endswith(".")
        assert len(alert.annotations[name]) <= 120
    assert alert.annotations["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"


def test_the_runbook_has_a_section_for_every_alert_and_for_nothing_else() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (EligibilityGateway\w+)$", text, re.MULTILINE) == [alert.name for alert in alerts()]


@every_alert
def test_every_section_of_the_runbook_says_four_things(alert: Rule) -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    section = text.partition(f"\n## {alert.name}\n")[2].partition("\n## ")[0]
    for heading in ("Means", "See", "Do", "Do not"):
        assert f"**{heading}:**" in section, heading


def test_every_section_that_the_runbook_points_to_is_there() -> None:
    anchors = set(re.findall(r"\]\(#([\w-]+)\)", (ROOT / "docs" / "runbook.md").read_text()))
    assert anchors <= {alert.name.lower() for alert in alerts()}


@pytest.mark.parametrize("page", ["runbook.md", "slo.md"])
def test_what_a_page_quotes_in_promql_can_be_read_and_is_there(page: str) -> None:
    known = set(documented())
    recorded = {rule.name for rule in rules()}
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```promql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    spans = [
        span for span in re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", text)) if "eligibility_gateway_" in span
    ]
    assert blocks
    for quoted in (*blocks, *spans):
        for selector in selectors_of(quoted):
            name = str(selector.name)
            assert name in recorded | PROMETHEUS_OWN or family(name, known) in known, name


# --- what is tested --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [firing, quiet], ids=["fires", "is-quiet"])
def test_every_alert_has_a_unit_test_in_which_it(cases: Callable[[], set[str]]) -> None:
    assert cases() == {alert.name for alert in alerts()}
