"""What the pods are told, where they are asked, and how long they are given: held against the program itself."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.files import load
from gateway.settings import FILE_SUFFIX, PREFIX, Settings, read_settings, variable
from tests.chart.engine import CHART, Object, Refused, every_values_file, minimal, only, read_values, render
from tests.e2e.conftest import KEYS, environment, run_gateway
from tests.running import ROOT
from tests.scripted import ScriptedUpstream

DOCKERFILE = (ROOT / "Dockerfile").read_text()
NAME = "spring-eligibility-gateway"
SECRETS = "/etc/gateway/secrets"
SETTINGS = {
    "log_level": "warning",
    "log_requests_per_s": 50,
    "audit": "-",
    "otlp_endpoint": "http://collector:4318",
    "trace_sample_ratio": 0.0001,
    "max_in_flight": 12_345_678,
    "max_body_bytes": 2_097_152,
    "head_timeout_s": 3.5,
    "body_timeout_s": 7,
    "idle_timeout_s": 620,
    "redis_timeout_s": 0.125,
    "drain_grace_s": 2.5,
    "drain_timeout_s": 0,
    "policies_poll_s": 30,
    "allow_public_anonymous": True,
    "allow_plaintext": True,
}


def deployment(values: dict[str, Any]) -> Object:
    return only([one for one in render(values) if not one["metadata"]["name"].endswith("-valkey")], "Deployment")


def pod(values: dict[str, Any]) -> Object:
    spec: Object = deployment(values)["spec"]["template"]["spec"]
    return spec


def container(values: dict[str, Any]) -> Object:
    (found,) = pod(values)["containers"]
    return dict(found)


def variables(values: dict[str, Any]) -> dict[str, str]:
    """The program's variables among those of the container."""
    entries = container(values)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry["value"] for entry in entries if entry["name"].startswith(PREFIX)}


# --- what they are told ----------------------------------------------------------------------------------------------


@every_values_file
def test_every_variable_is_one_that_the_program_knows(values_file: Path) -> None:
    known = {variable(field) for field in Settings.model_fields}
    assert {name.removesuffix(FILE_SUFFIX) for name in variables(read_values(values_file))} - known == set()


def test_what_the_program_has_a_default_for_is_left_unset() -> None:
    assert set(variables(minimal())) == {
        "GATEWAY_UPSTREAM_URL",
        "GATEWAY_UPSTREAM_CLIENT_ID_FILE",
        "GATEWAY_UPSTREAM_CLIENT_SECRET_FILE",
        "GATEWAY_KEYS_FILE",
        "GATEWAY_REDIS_URL_FILE",
        "GATEWAY_POLICIES_LAST_GOOD",
    }


def test_settings_arrive_at_the_program_as_they_were_meant() -> None:
    told = variables(minimal(settings=SETTINGS))
    given = {"GATEWAY_REDIS_URL": "embedded", "GATEWAY_UPSTREAM_URL": "http://127.0.0.1:1"}
    given |= {"GATEWAY_UPSTREAM_CLIENT_ID": "id", "GATEWAY_UPSTREAM_CLIENT_SECRET": "secret", "GATEWAY_KEYS": KEYS}
    read = read_settings(given | {variable(name): told[variable(name)] for name in SETTINGS})
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["settings"]["properties"].keys() == SETTINGS.keys()
    assert {name: getattr(read, name) for name in SETTINGS} == SETTINGS


@every_values_file
def test_every_secret_is_a_file_of_an_existing_secret(values_file: Path) -> None:
    values = read_values(values_file)
    objects = render(values)
    assert [one for one in objects if one["kind"] == "Secret"] == []
    (volume,) = [volume for volume in pod(values)["volumes"] if volume["name"] == "secrets"]
    (mount,) = [mount for mount in container(values)["volumeMounts"] if mount["name"] == "secrets"]
    assert (mount["mountPath"], mount["readOnly"]) == (SECRETS, True)
    assert volume["secret"]["secretName"] == values["secret"]["name"]
    assert volume["secret"]["defaultMode"] == 0o440  # the image's group reads, by fsGroup
    files = {name: value for name, value in variables(values).items() if name.endswith(FILE_SUFFIX)}
    assert {f"{SECRETS}/{item['path']}" for item in volume["secret"]["items"]} == set(files.values())


def test_the_keys_of_the_secret_are_the_operators_to_name() -> None:
    values = read_values(CHART / "ci" / "everything-values.yaml")
    (volume,) = [volume for volume in pod(values)["volumes"] if volume["name"] == "secrets"]
    assert {item["path"]: item["key"] for item in volume["secret"]["items"]} == {
        "upstream-client-id": "id",
        "upstream-client-secret": "secret",
        "keys": "ring",
        "redis-url": "redis",
    }


# --- certificates ----------------------------------------------------------------------------------------------------


def test_certificates_are_directories_that_are_updated_and_variables_name_what_is_in_them() -> None:
    values = read_values(CHART / "ci" / "tls-values.yaml")
    mounts = {mount["name"]: mount for mount in container(values)["volumeMounts"]}
    items = {one["name"]: one.get("secret") or one.get("configMap") or {} for one in pod(values)["volumes"]}
    there = {f"{mounts[name]['mountPath']}/{item['path']}" for name in items for item in items[name].get("items", ())}
    told = variables(values)
    named = {name: told[name] for name in told if name.startswith(("GATEWAY_TLS_", "GATEWAY_UPSTREAM_"))}
    paths = {name: value for name, value in named.items() if value.startswith("/etc/gateway/")}
    assert set(paths.values()) <= there
    assert set(named) - set(paths) == {"GATEWAY_TLS_CLIENT_CERTIFICATE", "GATEWAY_UPSTREAM_URL"}
    fields = ("tls_certificate", "tls_key", "tls_client_ca", "upstream_ca", "upstream_certificate", "upstream_key")
    assert {variable(field) for field in fields} <= set(paths)
    assert items["tls"]["secretName"] == f"{NAME}-tls"  # which cert-manager writes
    assert not any("subPath" in mount for mount in mounts.values())


def test_the_certificate_of_the_pods_names_their_service() -> None:
    (certificate,) = [
        one for one in render(read_values(CHART / "ci" / "tls-values.yaml")) if one["kind"] == "Certificate"
    ]
    namespace = certificate["metadata"]["namespace"]
    assert certificate["spec"]["dnsNames"] == [NAME, f"{NAME}.{namespace}", f"{NAME}.{namespace}.svc"]


def test_a_secret_of_ones_own_takes_the_place_of_the_certificates() -> None:
    (volume,) = [
        one for one in pod(minimal(tls={"enabled": True, "secretName": "mine"}))["volumes"] if one["name"] == "tls"
    ]
    assert volume["secret"]["secretName"] == "mine"


# --- policies --------------------------------------------------------------------------------------------------------


@every_values_file
def test_the_policies_are_valid_and_say_who_may_call(values_file: Path, tmp_path: Path) -> None:
    values = read_values(values_file)
    (volume,) = [volume for volume in pod(values)["volumes"] if volume["name"] == "policies"]
    maps = [one for one in render(values) if one["metadata"]["name"] == volume["configMap"]["name"]]
    if values.get("existingPolicies"):
        assert (maps, volume["configMap"]["name"]) == ([], values["existingPolicies"]["configMap"])
        return
    for name, text in maps[0]["data"].items():
        (tmp_path / name).write_text(text)
    assert load(tmp_path).callers


def test_values_add_to_the_shipped_policies_take_their_place_and_leave_them_out() -> None:
    shipped = only(render(minimal()), "ConfigMap")["data"]
    given = only(render(read_values(CHART / "ci" / "everything-values.yaml")), "ConfigMap", f"{NAME}-policies")["data"]
    assert set(shipped) == {"callers.yaml", "discovery.yaml", "eligibility.yaml", "lookups.yaml"}
    assert set(given) == {"callers.yaml", "eligibility.yaml", "lookups.yaml"}
    assert (
        given["eligibility.yaml"] == shipped["eligibility.yaml"] == (ROOT / "policies" / "eligibility.yaml").read_text()
    )
    assert "callers: [scheduling]" in given["lookups.yaml"]


@pytest.mark.parametrize("nothing", ["", None])
def test_a_shipped_policy_is_left_out_by_an_empty_text_and_by_null(nothing: str | None) -> None:
    policies = {**minimal()["policies"], "discovery.yaml": nothing}
    assert "discovery.yaml" not in only(render(minimal(policies=policies)), "ConfigMap")["data"]


def test_the_shipped_policies_are_those_of_the_project_without_callers() -> None:
    ours = {file.name: file.read_bytes() for file in (ROOT / "policies").glob("*.yaml") if file.name != "callers.yaml"}
    assert {file.name: file.read_bytes() for file in (CHART / "policies").iterdir()} == ours


def test_a_policy_that_is_changed_restarts_nothing() -> None:
    changed = {**minimal()["policies"], "lookups.yaml": ""}
    assert deployment(minimal(policies=changed)) == deployment(minimal())


@every_values_file
def test_policies_are_mounted_as_the_directory_that_the_image_reads(values_file: Path) -> None:
    mounts = {mount["name"]: mount for mount in container(read_values(values_file))["volumeMounts"]}
    assert f"GATEWAY_POLICIES={mounts['policies']['mountPath']}\n" in DOCKERFILE
    assert not any("subPath" in mount for mount in mounts.values())  # what is mounted so is never updated
    assert mounts["last-good"]["mountPath"] == variables(read_values(values_file))["GATEWAY_POLICIES_LAST_GOOD"]
    assert "readOnly" not in mounts["last-good"]


# --- where they are asked --------------------------------------------------------------------------------------------


async def test_every_path_that_is_probed_or_scraped_is_there(redis_url: str) -> None:
    values = read_values(CHART / "ci" / "everything-values.yaml")
    paths = {container(values)[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    paths |= {one["path"] for one in only(render(values), "ServiceMonitor")["spec"]["endpoints"]}
    async with ScriptedUpstream() as upstream, run_gateway(environment(upstream.url, redis_url)) as gateway:
        for path in paths:
            async with gateway.session.get(f"{gateway.admin_url}{path}") as reply:
                assert reply.status == 200, path
    assert paths == {"/livez", "/readyz", "/metrics"}


def test_every_port_is_one_that_the_image_listens_on() -> None:
    ports = {port["name"]: port["containerPort"] for port in container(minimal())["ports"]}
    listens = {
        name: int(port) for name, port in re.findall(r"GATEWAY_(LISTEN|ADMIN_LISTEN)=0\.0\.0\.0:(\d+)", DOCKERFILE)
    }
    assert ports == {"http": listens["LISTEN"], "admin": listens["ADMIN_LISTEN"]}


@every_values_file
def test_every_port_that_is_used_is_one_of_the_pod(values_file: Path) -> None:
    values = read_values(values_file)
    ports = {port["name"]: port["containerPort"] for port in container(values)["ports"]}
    named = set(ports)
    for probe in ("startup", "liveness", "readiness"):
        assert container(values)[f"{probe}Probe"]["httpGet"]["port"] in named
    objects = [one for one in render(values) if not one["metadata"]["name"].endswith("-valkey")]
    for service in [one for one in objects if one["kind"] == "Service"]:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for policy in [one for one in objects if one["kind"] == "NetworkPolicy"]:
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == set(ports.values())


def test_the_traffic_service_does_not_show_the_admin_port() -> None:
    objects = render(minimal())
    assert [port["targetPort"] for port in only(objects, "Service", NAME)["spec"]["ports"]] == ["http"]
    admin = only(objects, "Service", f"{NAME}-admin")["spec"]
    assert ([port["targetPort"] for port in admin["ports"]], admin["type"]) == (["admin"], "ClusterIP")
    assert admin["publishNotReadyAddresses"] is True


def test_a_process_has_a_minute_to_start_and_half_a_minute_to_stand_still() -> None:
    probes = container(minimal())
    budget = {
        name: probes[f"{name}Probe"]["periodSeconds"] * probes[f"{name}Probe"]["failureThreshold"]
        for name in ("startup", "liveness")
    }
    assert budget == {"startup": 60, "liveness": 30}


def test_a_probe_is_the_operators_to_change() -> None:
    assert container(minimal(livenessProbe={"periodSeconds": 20}))["livenessProbe"] == {
        "httpGet": {"path": "/livez", "port": "admin"},
        "periodSeconds": 20,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


# --- how long they are given -----------------------------------------------------------------------------------------


@every_values_file
def test_the_time_to_end_fits_into_the_grace_period(values_file: Path) -> None:
    values = read_values(values_file)
    told = variables(values)
    drain_s = sum(
        float(told.get(variable(name), Settings.model_fields[name].default))
        for name in ("drain_grace_s", "drain_timeout_s")
    )
    pause_s = container(values).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pause_s + drain_s + 10 <= pod(values)["terminationGracePeriodSeconds"] >= 160


@pytest.mark.parametrize("pause_s", [16, 60])
def test_a_grace_period_that_is_too_short_is_refused_with_the_sum(pause_s: int) -> None:
    values = minimal(preStopSleepSeconds=pause_s, settings={"drain_timeout_s": 150.5})
    with pytest.raises(Refused) as refusal:
        render({**values, "terminationGracePeriodSeconds": 150})
    said = str(refusal.value)
    assert "terminationGracePeriodSeconds: found 150, expected at least" in said
    assert f"{pause_s} (preStopSleepSeconds) + " in said
    assert "150.5 (settings.drain_timeout_s) + 10 (to close) = " in said


def test_a_grace_period_that_just_suffices_is_taken_and_a_second_less_is_not() -> None:
    settings = {"drain_timeout_s": 100}
    least = 20 + int(Settings.model_fields["drain_grace_s"].default) + 100 + 10
    assert render(minimal(preStopSleepSeconds=20, settings=settings, terminationGracePeriodSeconds=least))
    with pytest.raises(Refused, match=f"= {least}: what is cut was paid for"):
        render(minimal(preStopSleepSeconds=20, settings=settings, terminationGracePeriodSeconds=least - 1))


def test_a_grace_of_nothing_counts_as_nothing() -> None:
    settings = {"drain_grace_s": 0, "drain_timeout_s": 100}
    assert render(minimal(preStopSleepSeconds=0, settings=settings, terminationGracePeriodSeconds=110))


def test_one_comes_before_one_goes() -> None:
    spec = deployment(minimal())["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert (spec["replicas"], spec["minReadySeconds"]) == (3, 10)
    assert "replicas" not in deployment(read_values(CHART / "ci" / "everything-values.yaml"))["spec"]


def test_pods_of_one_revision_spread_over_zones_and_nodes() -> None:
    constraints = pod(minimal())["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for one in constraints:
        assert one["labelSelector"] == deployment(minimal())["spec"]["selector"]
        assert one["matchLabelKeys"] == ["pod-template-hash"]
    own = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    assert pod(minimal(topologySpreadConstraints=[own]))["topologySpreadConstraints"] == [own]


def test_what_an_operator_adds_to_the_pods_arrives() -> None:
    values = read_values(CHART / "ci" / "everything-values.yaml")
    template = deployment(values)["spec"]["template"]
    assert template["metadata"]["annotations"] == values["podAnnotations"]
    assert values["podLabels"].items() | values["commonLabels"].items() <= template["metadata"]["labels"].items()
    assert values["extraEnv"][0] in container(values)["env"]
    assert values["extraVolumes"][0] in template["spec"]["volumes"]
    assert values["extraVolumeMounts"][0] in container(values)["volumeMounts"]
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert template["spec"][name] == values[name]
    assert (
        container(values)["image"] == f"registry.example.org/team/eligibility-gateway:0.1.0@{values['image']['digest']}"
    )


def test_there_is_a_limit_of_memory_and_none_of_cpu() -> None:
    resources = container(minimal())["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


def test_the_tests_pod_asks_whether_the_release_is_ready() -> None:
    objects = render(minimal(adminService={"port": 9191}))
    test = only(objects, "Pod")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (asks,) = test["spec"]["containers"]
    assert asks["args"] == ["healthcheck", "--url", f"http://{NAME}-admin:9191/readyz"]
    assert asks["image"] == container(minimal())["image"]
