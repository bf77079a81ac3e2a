"""Every pod of every rendering passes the restricted pod security standard, and does a little more.

The controls are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/, baseline and restricted.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from charts import MATRIX, render

Pod = dict[str, Any]
Check = Callable[[Pod], bool]

ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def containers(pod: Pod) -> list[dict[str, Any]]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [container for kind in kinds for container in pod["spec"].get(kind, [])]


def contexts(pod: Pod) -> list[dict[str, Any]]:
    return [container.get("securityContext", {}) for container in containers(pod)]


def effective(pod: Pod, key: str) -> list[Any]:
    """A container's own setting, or the pod's where it has none."""
    return [context.get(key, pod["spec"].get("securityContext", {}).get(key)) for context in contexts(pod)]


CONTROLS: dict[str, Check] = {
    "no host namespaces": lambda pod: not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod["spec"].keys(),
    "no host ports": lambda pod: (
        not any("hostPort" in port for container in containers(pod) for port in container.get("ports", []))
    ),
    "not privileged": lambda pod: not any(context.get("privileged") for context in contexts(pod)),
    "only harmless volumes": lambda pod: all(
        set(volume) - {"name"} <= ALLOWED_VOLUMES for volume in pod["spec"].get("volumes", [])
    ),
    "no privilege escalation": lambda pod: all(
        context.get("allowPrivilegeEscalation") is False for context in contexts(pod)
    ),
    "never root": lambda pod: all(effective(pod, "runAsNonRoot")) and 0 not in effective(pod, "runAsUser"),
    "a seccomp profile": lambda pod: all(
        profile and profile["type"] in ("RuntimeDefault", "Localhost") for profile in effective(pod, "seccompProfile")
    ),
    "no capability": lambda pod: all(
        context.get("capabilities", {}).get("drop") == ["ALL"] and not context["capabilities"].get("add")
        for context in contexts(pod)
    ),
    "no SELinux, procMount, sysctl or AppArmor of its own": lambda pod: (
        not (
            {"seLinuxOptions", "sysctls", "appArmorProfile"} & pod["spec"].get("securityContext", {}).keys()
            or any({"seLinuxOptions", "procMount", "appArmorProfile"} & context.keys() for context in contexts(pod))
        )
    ),
    "read-only root": lambda pod: all(context.get("readOnlyRootFilesystem") for context in contexts(pod)),
    "no token": lambda pod: pod["spec"].get("automountServiceAccountToken") is False,
    "bounded scratch space": lambda pod: all(
        "sizeLimit" in volume["emptyDir"] for volume in pod["spec"].get("volumes", []) if "emptyDir" in volume
    ),
    "bounded memory": lambda pod: all("memory" in container["resources"]["limits"] for container in containers(pod)),
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)
def test_pods_are_restricted(values: Path, control: str) -> None:
    pods = render(values).pods()
    assert pods
    assert all(CONTROLS[control](pod) for pod in pods)


def test_controls_can_fail() -> None:
    """A pod that asks for everything fails every control: none of them is decoration."""
    greedy: Pod = {
        "spec": {
            "hostNetwork": True,
            "securityContext": {"sysctls": []},
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}, {"name": "scratch", "emptyDir": {}}],
            "containers": [
                {
                    "ports": [{"hostPort": 80}],
                    "securityContext": {"privileged": True},
                    "resources": {"limits": {}},
                }
            ],
        }
    }
    assert [name for name, control in CONTROLS.items() if control(greedy)] == []
