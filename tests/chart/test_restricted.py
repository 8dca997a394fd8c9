"""Every pod of every values file keeps to Pod Security "restricted", and to what the chart promises beyond it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.engine import Object, every_values_file, read_values, render

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
PROFILES = {"RuntimeDefault", "Localhost"}


def pods(values: dict[str, Any]) -> Iterator[Object]:
    for one in render(values):
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] == "Deployment":
            yield one["spec"]["template"]["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod["containers"], *pod.get("initContainers", ()), *pod.get("ephemeralContainers", ())]


def contexts(pod: Object) -> list[Object]:
    """What holds for each container: its own word, else the pod's."""
    return [{**pod.get("securityContext", {}), **one.get("securityContext", {})} for one in containers(pod)]


Rule = Callable[[Object], bool]
RULES: dict[str, Rule] = {
    "it shares no namespace of its node": lambda pod: not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(),
    "it takes no port of its node": lambda pod: (
        not any("hostPort" in port for one in containers(pod) for port in one.get("ports", ()))
    ),
    "its volumes are of kinds that are its own": lambda pod: all(
        set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes", ())
    ),
    "nothing is privileged": lambda pod: not any(one.get("privileged") for one in contexts(pod)),
    "nothing gains privileges": lambda pod: all(one["allowPrivilegeEscalation"] is False for one in contexts(pod)),
    "nothing has a capability": lambda pod: all(one["capabilities"] == {"drop": ["ALL"]} for one in contexts(pod)),
    "nobody is root": lambda pod: all(one["runAsNonRoot"] is True and one["runAsUser"] > 0 for one in contexts(pod)),
    "system calls are filtered": lambda pod: all(one["seccompProfile"]["type"] in PROFILES for one in contexts(pod)),
    "neither sysctls, SELinux, AppArmor nor proc are touched": lambda pod: (
        not any(
            {"sysctls", "seLinuxOptions", "appArmorProfile", "procMount", "windowsOptions"} & one.keys()
            for one in contexts(pod)
        )
    ),
    "nothing is written beside what is mounted": lambda pod: all(
        one["readOnlyRootFilesystem"] is True for one in contexts(pod)
    ),
    "it has no token of Kubernetes": lambda pod: pod["automountServiceAccountToken"] is False,
    "no Service of its namespace sets a variable of it": lambda pod: pod["enableServiceLinks"] is False,
    "it says what it needs, and where its memory ends": lambda pod: all(
        {"cpu", "memory"} <= one["resources"]["requests"].keys() and "memory" in one["resources"]["limits"]
        for one in containers(pod)
    ),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@every_values_file
def test_of_every_pod_is_true_that(values_file: Path, rule: Rule) -> None:
    found = list(pods(read_values(values_file)))
    assert len(found) >= 2  # the gateway, and the test
    assert all(rule(pod) for pod in found)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_pod_that_breaks_every_rule_is_noticed_by(rule: Rule) -> None:
    broken: Object = {
        "hostNetwork": True,
        "volumes": [{"name": "node", "hostPath": {"path": "/"}}],
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
        "automountServiceAccountToken": True,
        "enableServiceLinks": True,
        "containers": [
            {
                "ports": [{"hostPort": 80}],
                "resources": {"requests": {}, "limits": {}},
                "securityContext": {
                    "privileged": True,
                    "allowPrivilegeEscalation": True,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                    "runAsNonRoot": True,
                    "runAsUser": 0,
                    "seccompProfile": {"type": "Unconfined"},
                    "readOnlyRootFilesystem": False,
                },
            }
        ],
    }
    assert not rule(broken)


@every_values_file
def test_a_service_account_has_no_token_either(values_file: Path) -> None:
    accounts = [one for one in render(read_values(values_file)) if one["kind"] == "ServiceAccount"]
    assert all(one["automountServiceAccountToken"] is False for one in accounts)
    names = {one["metadata"]["name"] for one in accounts} or {"shared"}
    (gateway,) = [pod for pod in pods(read_values(values_file)) if "serviceAccountName" in pod]
    assert gateway["serviceAccountName"] in names
