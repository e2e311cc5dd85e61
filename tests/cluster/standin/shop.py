"""A small web shop in namespace "shop", of every kind of workload that can be targeted, with pods that really run.

| workload | its pods |
|---|---|
| Deployment and Service `web` | two, on both nodes, one newer (`NEWER_WEB`); variables, ConfigMap, Secret, token |
| Deployment and Service `cart` | one |
| StatefulSet `db`, DaemonSet `logger`, Rollout `checkout` | `db-0`; one on each node; one |
| Job `import`, CronJob `report` | one, made by the Job controller; the CronJob's by its Job `report-29000000` |
| Deployment `payments` | one with a mesh's container first: `istio-proxy`, `payments` |
| Deployment `orders` | one whose annotation names its default container: `helper`, `orders` |
| Deployment `broken` | one whose readiness probe fails for ever |
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from mirrord_trace import __version__
from mirrord_trace.cluster.resources import PODS

from .cluster import Cluster
from .kubelet.images import Image, Registry
from .node import Nodes
from .pod_facts import is_finished, is_ready
from .store import Object, Store
from .workloads import LATER, LONG_AGO, metadata, owner, pod, selecting, template, workload

NAMESPACE = "shop"
AGENT_ROOT = Path(__file__).resolve().parents[3] / "build/agent-rootfs"
AGENT_IMAGE = f"mirrord-trace-agent:{__version__}"
SHOP_IMAGE = "registry.shop.test/service:1"
MACHINE_IMAGE = "registry.shop.test/machine:1"
"""This machine's own root, to run whatever it has."""

PORT = 8080
OLDER_WEB, NEWER_WEB = "web-5d8f7c9b4-k2x9p", "web-5d8f7c9b4-z7m4t"
MESH_CONTAINER = "istio-proxy"
CONFIGURATION = {"colour": "green", "shop.ini": "[shop]\nname = Stand-in\n"}
PASSWORD = "correct horse"

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def agent_root() -> Path:
    """The agent's image, unpacked. Raises AssertionError where it is missing."""
    assert (AGENT_ROOT / "usr/bin/mirrord-agent").exists(), "the agent's root file system is missing: make agent-rootfs"
    return AGENT_ROOT


def registry() -> Registry:
    """The images of the shop and of the agent. Raises AssertionError where the agent's is missing."""
    root = agent_root()
    program = Path(__file__).with_name("shop_service.py").read_bytes()
    return Registry(
        {
            AGENT_IMAGE: Image(root, entrypoint=("mirrord-agent",), environment={"PATH": "/usr/bin"}),
            SHOP_IMAGE: Image(
                root,
                entrypoint=("/usr/bin/python3.11", "-I", "/shop_service.py"),
                files={"/shop_service.py": program},
            ),
            MACHINE_IMAGE: Image(Path("/")),
        }
    )


@attrs.frozen
class Shop:
    """The shop, in a cluster that runs it."""

    cluster: Cluster
    nodes: Nodes
    namespace: str = NAMESPACE

    def pid(self, pod: str, container: str) -> int:
        """The first process of a container, as this machine numbers it. Raises LookupError."""
        return self.cluster.in_loop(lambda: self.nodes.pid(self.namespace, pod, container))

    def run_in(
        self, pod: str, container: str, arguments: Sequence[str], *, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program natively in a container, with the container's environment."""
        pid = self.pid(pod, container)
        variables = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
        command = ["nsenter", "--target", str(pid), "--all", "--root", "--wd", "--", *arguments]
        environment = dict(variable.split(b"=", 1) for variable in variables)
        # nsenter itself must be found here.
        program = next(found for place in os.get_exec_path() if os.access(found := f"{place}/nsenter", os.X_OK))
        return subprocess.run(
            command, executable=program, env=environment, capture_output=True, timeout=timeout_s, check=False
        )

    def pod_of(self, app: str) -> Object:
        """The only pod of an app."""
        (found,) = (one for one in self.cluster.list(PODS, self.namespace) if one["metadata"]["labels"]["app"] == app)
        return found


def open_up(cluster: Cluster, nodes: Nodes) -> Shop:
    """Makes the shop and waits until all that shall be ready is."""
    for value in objects():
        cluster.apply(value)
    expected = {one["metadata"]["name"] for one in objects() if one["kind"] == "Pod"} - {"broken-6c4d-xvb7n"}

    def ready(store: Store) -> bool | None:
        pods = store.list(PODS, NAMESPACE)
        settled = {one["metadata"]["name"] for one in pods if is_ready(one) or is_finished(one)}
        by_jobs = [one for one in pods if "job-name" in one["metadata"]["labels"] and is_ready(one)]
        return True if expected <= settled and len(by_jobs) == 2 else None

    cluster.wait_until(ready)
    return Shop(cluster, nodes)


def objects() -> list[Object]:
    """All that the shop consists of; the pods of Jobs are the Job controller's work."""
    return [
        *_configuration(),
        *_web(),
        *_deployment("cart", "cart-7b6d", "cart-7b6d-lw8qz", [_container("cart")]),
        *_with_service("cart"),
        *_controlled("StatefulSet", "db", ["db-0"], serviceName="db"),
        *_controlled("DaemonSet", "logger", ["logger-4tz7f", "logger-9c2md"]),
        *_controlled("Rollout", "checkout", ["checkout-84c9-p5d2x"]),
        workload("Job", "import", NAMESPACE, _job("import")),
        workload("CronJob", "report", NAMESPACE, {"schedule": "0 6 * * *", "jobTemplate": {"spec": _job("report")}}),
        workload("Job", "report-29000000", NAMESPACE, _job("report"), owned_by=owner("CronJob", "report", NAMESPACE)),
        *_deployment(
            "payments",
            "payments-5f9c",
            "payments-5f9c-d6hkj",
            [_container(MESH_CONTAINER, port=15021), _container("payments")],
        ),
        *_deployment(
            "orders",
            "orders-66b8",
            "orders-66b8-n4rts",
            [_container("helper", port=8081), _container("orders")],
            {"kubectl.kubernetes.io/default-container": "orders"},
        ),
        *_deployment(
            "broken",
            "broken-6c4d",
            "broken-6c4d-xvb7n",
            [{**_container("broken"), "readinessProbe": {"tcpSocket": {"port": 1}}}],
        ),
    ]


def _configuration() -> list[Object]:
    secret = {"password": base64.b64encode(PASSWORD.encode()).decode()}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata("ConfigMap", "web", NAMESPACE),
            "data": CONFIGURATION,
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata("Secret", "web", NAMESPACE),
            "type": "Opaque",
            "data": secret,
        },
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata("ServiceAccount", "default", NAMESPACE),
        },
    ]


def _container(name: str, *, port: int = PORT) -> Object:
    probe = {"httpGet": {"path": "/healthy", "port": port}}
    return {
        "name": name,
        "image": SHOP_IMAGE,
        "args": [str(port)],
        "env": [{"name": "SERVICE", "value": name}],
        "readinessProbe": probe,
    }


def _web() -> list[Object]:
    container = _container("web")
    container["ports"] = [{"name": "http", "containerPort": PORT}]
    container["env"] += [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "colour"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "web", "key": "password"}}},
        {"name": "GREETING", "value": "$(SERVICE) of $(POD_NAME)"},
    ]
    container["volumeMounts"] = [
        {"name": "configuration", "mountPath": "/etc/shop", "readOnly": True},
        {"name": "secret", "mountPath": "/etc/shop-secret", "readOnly": True},
        {"name": "token", "mountPath": _SERVICE_ACCOUNT, "readOnly": True},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
    volumes = [
        {"name": "configuration", "configMap": {"name": "web"}},
        {"name": "secret", "secret": {"secretName": "web"}},
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "scratch", "emptyDir": {}},
    ]
    made_from = template("web", {"containers": [container], "volumes": volumes})
    replicas = owner("ReplicaSet", "web-5d8f7c9b4", NAMESPACE)
    return [
        workload("Deployment", "web", NAMESPACE, selecting("web", made_from, replicas=2)),
        workload(
            "ReplicaSet",
            "web-5d8f7c9b4",
            NAMESPACE,
            selecting("web", made_from, replicas=2),
            owned_by=owner("Deployment", "web", NAMESPACE),
        ),
        pod(OLDER_WEB, NAMESPACE, made_from, owned_by=replicas, created=LONG_AGO, node="node-1"),
        pod(NEWER_WEB, NAMESPACE, made_from, owned_by=replicas, created=LATER, node="node-2"),
        *_with_service("web"),
    ]


def _with_service(app: str) -> list[Object]:
    spec = {"clusterIP": "None", "selector": {"app": app}, "ports": [{"port": PORT}]}
    return [{"apiVersion": "v1", "kind": "Service", "metadata": metadata("Service", app, NAMESPACE), "spec": spec}]


def _deployment(
    name: str,
    replica_set: str,
    pod_name: str,
    containers: list[Object],
    annotations: Mapping[str, str] | None = None,
) -> list[Object]:
    made_from = template(name, {"containers": containers}, annotations)
    spec = selecting(name, made_from, replicas=1)
    return [
        workload("Deployment", name, NAMESPACE, spec),
        workload("ReplicaSet", replica_set, NAMESPACE, spec, owned_by=owner("Deployment", name, NAMESPACE)),
        pod(pod_name, NAMESPACE, made_from, owned_by=owner("ReplicaSet", replica_set, NAMESPACE)),
    ]


def _controlled(kind: str, name: str, pods: Sequence[str], **fields: str) -> list[Object]:
    """A workload that owns its pods itself; the pods lie on the nodes in turn."""
    made_from = template(name, {"containers": [_container(name)]})
    return [
        workload(kind, name, NAMESPACE, selecting(name, made_from, **fields)),
        *(
            pod(one, NAMESPACE, made_from, owned_by=owner(kind, name, NAMESPACE), node=f"node-{1 + number % 2}")
            for number, one in enumerate(pods)
        ),
    ]


def _job(name: str) -> Object:
    return {"template": template(name, {"restartPolicy": "Never", "containers": [_container(name)]})}
