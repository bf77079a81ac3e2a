"""A rendered Deployment, as far as `podman play kube` can run one."""

import copy
from typing import Any


def playable(config: dict[str, Any], secret: dict[str, Any], deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The same pod, less what this podman cannot do.

    Secrets become config maps (podman 4.3 does not read `stringData`), ports go with the host's network, and probes
    go because nothing schedules them without systemd. The worker listens on any free port of the loopback.
    """
    deployment, config = copy.deepcopy(deployment), copy.deepcopy(config)
    config["data"]["WORKER_HTTP_PORT"] = "0"
    spec = deployment["spec"]["template"]["spec"]
    for container in spec["containers"]:
        for part in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(part)
        for variable in container["env"]:
            if "valueFrom" in variable:
                source = variable["valueFrom"].pop("secretKeyRef")
                variable["valueFrom"]["configMapKeyRef"] = {**source, "name": _plain(source["name"])}
    for volume in spec["volumes"]:
        if "secret" in volume:
            source = volume.pop("secret")
            volume["configMap"] = {"name": _plain(source["secretName"]), "items": source["items"]}
    metadata = {"name": _plain(secret["metadata"]["name"])}
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": secret["stringData"]}
    return [plain, config, deployment]


def _plain(secret: str) -> str:
    return f"{secret}-plain"
