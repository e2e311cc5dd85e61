"""What tests of commands share: the command in a process of its own, and a web shop in the stand-in to ask about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.standin.cluster import Cluster
from tests.mirrord_trace.targets.workloads.objects import pod

TIMEOUT_S = 30
COMMAND = [sys.executable, "-m", "mirrord_trace"]
LONG_AGO = "2020-01-01T00:00:00Z"


def mirrord_trace(kubeconfig: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), **environment},
    )


def template(app: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "app:1"}]},
    }


def selecting(app: str) -> dict[str, Any]:
    """The spec of a workload with this app's pods."""
    return {"selector": {"matchLabels": {"app": app}}, "template": template(app)}


def apply(
    cluster: Cluster, api_version: str, kind: str, name: str, spec: dict[str, Any] | None = None, **metadata: Any
) -> None:
    cluster.apply(
        {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": LONG_AGO, **metadata},
            "spec": spec or {},
        }
    )


def apply_pod(cluster: Cluster, name: str, app: str, namespace: str = "shop", **arguments: Any) -> None:
    """A ready pod, unless it is told to be something else."""
    value = pod(name, metadata={"labels": {"app": app}, "namespace": namespace}, **arguments)
    for container in value["spec"]["containers"]:
        container["image"] = "app:1"
    for status in value["status"]["containerStatuses"]:
        status |= {"image": "app:1", "imageID": "", "restartCount": 0}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", **value})


def apply_shop(api_server: Cluster) -> None:
    """A namespace with a web shop, whose pods are there without running."""
    api_server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    apply(api_server, "apps/v1", "Deployment", "web", selecting("web"))
    apply(api_server, "apps/v1", "StatefulSet", "db", selecting("db"))
    apply(api_server, "apps/v1", "Deployment", "broken", selecting("broken"))
    apply(api_server, "v1", "Service", "web", {"selector": {"app": "web"}})
    apply_pod(api_server, "web-1", "web")
    apply_pod(api_server, "web-2", "web", containers=("istio-proxy", "app"), created="2030-01-02T00:00:00Z")
    apply_pod(api_server, "db-0", "db")
    apply_pod(api_server, "broken-1", "broken", ready=False)
