"""Who reaches the pods and whom they reach: NetworkPolicies, Ingress, HTTPRoute, certificate, and Valkey's own."""

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.chart.engine import CHART, Object, every_values_file, minimal, only, read_values, render

NAME = "spring-eligibility-gateway"
LONGEST_S = 130  # 5 s to connect and 125 s for the answer: policies/eligibility.yaml


def everything() -> dict[str, Any]:
    return read_values(CHART / "ci" / "everything-values.yaml")


def gateway_api() -> dict[str, Any]:
    return read_values(CHART / "ci" / "gateway-api-values.yaml")


def trial() -> dict[str, Any]:
    return read_values(CHART / "ci" / "trial-values.yaml")


def by_port(rules: list[Object], side: str) -> dict[Any, list[Object]]:
    """The peers of each port."""
    found: dict[Any, list[Object]] = {}
    for rule in rules:
        for port in rule["ports"]:
            found.setdefault(port["port"], []).extend(rule[side])
    return found


# --- NetworkPolicy ---------------------------------------------------------------------------------------------------


def test_callers_reach_the_traffic_port_and_monitoring_the_admin_port() -> None:
    values = everything()
    peers = by_port(only(render(values), "NetworkPolicy")["spec"]["ingress"], "from")
    assert set(peers) == {8080, 9090}
    assert peers[8080] == values["networkPolicy"]["callers"]
    assert peers[9090][1:] == values["networkPolicy"]["monitoring"]
    assert peers[9090][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_pods_reach_dns_redis_the_upstream_and_the_collector() -> None:
    values = everything()
    peers = by_port(only(render(values), "NetworkPolicy")["spec"]["egress"], "to")
    assert set(peers) == {53, 6379, 26379, 443, 4318}
    assert peers[6379] == peers[26379] == values["networkPolicy"]["redis"]["to"]
    assert peers[4318] == values["networkPolicy"]["otlp"]["to"]


@every_values_file
def test_no_rule_lets_everybody_in_or_out_to_everywhere(values_file: Path) -> None:
    for one in render(read_values(values_file)):
        if one["kind"] == "NetworkPolicy":
            assert one["spec"]["policyTypes"] == ["Ingress", "Egress"]
            for side, rules in (("from", "ingress"), ("to", "egress")):
                for rule in one["spec"].get(rules, ()):
                    assert rule[side]
                    assert rule["ports"]


@pytest.mark.parametrize(
    ("address", "is_reached"),
    [
        ("198.51.100.7", True),
        ("10.0.0.1", False),
        ("172.20.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),  # a cloud's metadata: credentials of the node
        ("2001:db8::1", True),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_the_upstream_is_sought_everywhere_but_in_private_networks(address: str, *, is_reached: bool) -> None:
    peers = by_port(only(render(everything()), "NetworkPolicy")["spec"]["egress"], "to")[443]
    blocks = [peer["ipBlock"] for peer in peers]
    wanted = ip_address(address)
    reached = [
        block
        for block in blocks
        if wanted in ip_network(block["cidr"]) and not any(wanted in ip_network(net) for net in block["except"])
    ]
    assert bool(reached) is is_reached


def test_the_trial_store_answers_the_gateway_alone_and_calls_nobody() -> None:
    objects = render(trial())
    policy = only(objects, "NetworkPolicy", f"{NAME}-valkey")["spec"]
    (rule,) = policy["ingress"]
    gateway = only(objects, "Deployment", NAME)["spec"]["selector"]
    assert rule == {"from": [{"podSelector": gateway}], "ports": [{"protocol": "TCP", "port": 6379}]}
    assert "egress" not in policy
    store = only(objects, "Deployment", f"{NAME}-valkey")["spec"]["selector"]
    assert by_port(only(objects, "NetworkPolicy", NAME)["spec"]["egress"], "to")[6379] == [{"podSelector": store}]


def test_there_is_no_trial_store_unless_it_is_asked_for() -> None:
    assert not [one for one in render(everything()) if "valkey" in one["metadata"]["name"]]
    (store,) = only(render(trial()), "Deployment", f"{NAME}-valkey")["spec"]["template"]["spec"]["containers"]
    assert store["image"].count(":") == 1  # a tag: what a trial shows today it shows tomorrow
    assert "noeviction" in store["args"]


# --- the way in ------------------------------------------------------------------------------------------------------


def test_an_ingress_leads_to_callers_port_under_the_certificate_that_is_asked_for() -> None:
    objects = render(everything())
    ingress, certificate = only(objects, "Ingress"), only(objects, "Certificate")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": NAME, "port": {"name": "http"}}
    assert ingress["spec"]["tls"] == [{"secretName": f"{NAME}-tls", "hosts": ["eligibility.example.org"]}]
    assert certificate["spec"]["secretName"] == f"{NAME}-tls"
    assert certificate["spec"]["dnsNames"] == ["eligibility.example.org"]


def test_an_ingress_has_no_tls_of_its_own_and_takes_a_secret_that_is_named() -> None:
    ingress = {"enabled": True, "hosts": ["eligibility.example.org"]}
    plain = only(render(minimal(ingress=ingress)), "Ingress")
    assert "tls" not in plain["spec"]
    assert "annotations" not in plain["metadata"]
    named = only(render(minimal(ingress={**ingress, "tlsSecretName": "wildcard"})), "Ingress")
    assert named["spec"]["tls"][0]["secretName"] == "wildcard"


def test_a_route_waits_for_longer_than_a_request_may_last() -> None:
    (rule,) = only(render(gateway_api()), "HTTPRoute")["spec"]["rules"]
    for timeout in rule["timeouts"].values():
        assert int(timeout.removesuffix("s")) > LONGEST_S
    assert rule["backendRefs"] == [{"name": "insurance", "port": 8080}]


def test_a_certificate_is_not_for_the_gateway_itself() -> None:
    objects = render(gateway_api())
    assert only(objects, "Certificate")["spec"]["secretName"] == "listener"
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    assert "listener" not in str(pod)
