"""The chart's README: what it shows is taken, and what it names is there."""

import re
from pathlib import Path

from gateway.policy.files import load
from tests.chart.engine import CHART, only, read, render

README = (CHART / "README.md").read_text()
VALUES = read((CHART / "values.yaml").read_text())


def shown() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_values_that_are_shown_are_enough_and_their_policies_are_valid(tmp_path: Path) -> None:
    text, _ = shown()
    objects = render(read(text), "eligibility-gateway")
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.org/team/eligibility-gateway:")
    for name, policy in only(objects, "ConfigMap")["data"].items():
        (tmp_path / name).write_text(policy)
    assert set(load(tmp_path).callers) == {"scheduling"}


def test_what_a_pod_needs_to_fetch_a_clusters_keys_is_mounted_where_the_policies_say() -> None:
    text, more = shown()
    objects = render(read(text) | read(more), "eligibility-gateway")
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "/var/run/secrets/cluster" in {one["mountPath"] for one in container["volumeMounts"]}
    assert pod["automountServiceAccountToken"] is False
    policies = (CHART.parent / "docs" / "policies.md").read_text()
    assert "/var/run/secrets/cluster/ca.crt" in policies
    assert "/var/run/secrets/cluster/token" in policies


def test_the_secret_that_is_made_has_the_keys_that_are_read() -> None:
    text, _ = shown()
    made = re.search(r"kubectl create secret generic (\S+) (.*)", README)
    assert made is not None
    assert made[1] == read(text)["secret"]["name"]
    assert set(re.findall(r"--from-file=(\S+)", made[2])) == set(VALUES["secret"]["keys"].values())


def test_the_switches_that_are_listed_are_those_that_there_are() -> None:
    table = README.partition("## What is switched on by values")[2].partition("\n## ")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == {name for name, value in VALUES.items() if isinstance(value, dict) and "enabled" in value}
    on = {name for name in listed if VALUES[name]["enabled"]}
    assert {f"`{name}` (on)" for name in on} == set(re.findall(r"`\w+` \(on\)", table))


def test_the_trial_stores_address_is_the_one_that_is_told() -> None:
    text, _ = shown()
    values = {**read(text), "valkey": {"enabled": True}, "settings": {"allow_plaintext": True}}
    objects = render(values, "eligibility-gateway")
    (service,) = [one for one in objects if one["kind"] == "Service" and one["metadata"]["name"].endswith("-valkey")]
    assert f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}`" in README
