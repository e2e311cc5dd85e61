"""All that makes objects real: nodes with their kubelets, the scheduler, controllers, the cluster's name server.

    with Cluster(directory, Nodes(directory / "nodes", registry)) as cluster:
        cluster.apply(pod)      # …and it runs

A node is a process tree of its own on this machine (`containers.runtime`). Its methods belong to the stand-in's loop:
a test calls them with `cluster.in_loop`.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import trio

from mirrord_trace.cluster.resources import PODS

from . import name_server
from .containers.client import open_node
from .containers.network import PodNetwork, make_nodes_network
from .controllers import garbage, jobs, scheduler
from .controllers.reconcile import reconcile
from .deletion import delete_pod
from .events import Recorder
from .interfaces import ControlPlane
from .kinds import NODES
from .kubelet.images import Registry
from .kubelet.kubelet import Kubelet
from .kubelet.pod import PodWorker
from .kubelet.surroundings import Pace, Surroundings
from .scheduling import untolerated
from .store import Object, Store, now

_UNREACHABLE = [
    {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": ""},
    {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": ""},
]
_FIRST_POD = ipaddress.IPv4Address("198.18.1.1")
_FIRST_NODE = ipaddress.IPv4Address("198.18.0.100")


class Nodes:
    """The machinery of a cluster."""

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        *,
        names: Sequence[str] = ("node-1", "node-2"),
        pace: Pace | None = None,
    ) -> None:
        self.directory = directory
        self.registry = registry
        self.names = tuple(names)
        self.pace = pace or Pace()
        self._kubelets: dict[str, Kubelet] = {}
        self._numbers = itertools.count()
        self._store: Store | None = None

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        """Runs everything until it is cancelled; started once all nodes are ready."""
        assert os.geteuid() == 0, "nodes are made of namespaces and mounts, by root only"
        self._store = store = control.store
        network = make_nodes_network()
        try:
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as starting:
                    for number, name in enumerate(self.names):
                        starting.start_soon(nursery.start, self._run_node, name, str(_FIRST_NODE + number), network)
                await nursery.start(name_server.serve, store, network)
                for watched, work in (
                    (scheduler.WATCHED, scheduler.Scheduler(store).work),
                    (jobs.WATCHED, jobs.JobController(control).work),
                    (garbage.WATCHED, garbage.GarbageCollector(store).work),
                ):
                    nursery.start_soon(reconcile, store, watched, work)
                task_status.started()
        finally:
            os.close(network)

    async def log(self, pod: Object, container: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What a container has written since its last start."""
        kubelet = self._kubelets.get(pod["spec"].get("nodeName"))
        if kubelet is not None:
            async with aclosing(kubelet.log(pod, container, follow=follow)) as pieces:
                async for piece in pieces:
                    yield piece

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        """Connects to a port on the pod's loopback. Raises OSError."""
        kubelet = self._kubelets.get(pod["spec"].get("nodeName"))
        if kubelet is None:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return await kubelet.dial(pod, port)

    def pid(self, namespace: str, pod: str, container: str) -> int:
        """The first process of a container that runs, as this machine numbers it. Raises LookupError."""
        worker = self._worker(namespace, pod).container(container)
        if worker is None or worker.pid is None:
            raise LookupError(f"container {container} of pod {namespace}/{pod} does not run")
        return worker.pid

    def lose(self, name: str) -> None:
        """Lets a node lose its power; the cluster notices at once, and marks it and its pods as unreachable."""
        self._kubelets.pop(name).surroundings.runtime.switch_off()
        store = self._known_store()

        def mark(node: Object) -> None:
            node["spec"]["taints"] = [{**taint, "timeAdded": now()} for taint in _UNREACHABLE]
            for condition in node["status"]["conditions"]:
                condition |= {
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastTransitionTime": now(),
                }

        node = store.change(NODES, None, name, mark)
        recorder = Recorder(store, "node-controller")
        recorder.record(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self._pods_on(name):
            for condition in pod.get("status", {}).get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    condition |= {"status": "False", "lastTransitionTime": now()}
            recorder.record(store.put(PODS, pod), "Warning", "NodeNotReady", "Node is not ready")

    def evict(self, name: str) -> None:
        """What follows a loss after five minutes: pods that do not tolerate it are deleted; nobody confirms that."""
        store = self._known_store()
        node = store.get(NODES, None, name)
        recorder = Recorder(store, "taint-eviction-controller")
        for pod in self._pods_on(name):
            if untolerated(pod, node, ("NoExecute",)) is not None:
                told = f"Marking for deletion Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
                recorder.record(pod, "Normal", "TaintManagerEviction", told)
                delete_pod(store, pod)

    def remove(self, name: str) -> None:
        """Takes a node out of the cluster for good; its pods go with it."""
        if name in self._kubelets:
            self._kubelets.pop(name).surroundings.runtime.switch_off()
        self._known_store().delete(NODES, None, name)

    async def _run_node(
        self, name: str, address: str, network: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        store = self._known_store()
        async with open_node(name, str(self.directory / name / "runtime"), network) as runtime:
            volumes = str(self.directory / name / "volumes")
            recorder = Recorder(store, "kubelet", name)
            kubelet = Kubelet(
                Surroundings(
                    node=name,
                    address=address,
                    runtime=runtime,
                    store=store,
                    registry=self.registry,
                    recorder=recorder,
                    nodes_network=network,
                    directory=volumes,
                    allocate=self._allocate,
                    pace=self.pace,
                )
            )
            store.put(NODES, node_object(name, address))
            self._kubelets[name] = kubelet
            await kubelet.run(task_status)

    def _allocate(self) -> PodNetwork:
        number = next(self._numbers)
        return PodNetwork(_FIRST_POD + number, 10 + number)

    def _worker(self, namespace: str, pod: str) -> PodWorker:
        found = self._known_store().find(PODS, namespace, pod)
        kubelet = self._kubelets.get(found["spec"].get("nodeName")) if found is not None else None
        worker = kubelet.worker(found) if kubelet is not None and found is not None else None
        if worker is None:
            raise LookupError(f"pod {namespace}/{pod} is on no node")
        return worker

    def _pods_on(self, name: str) -> list[Object]:
        return [pod for pod in self._known_store().list(PODS) if pod["spec"].get("nodeName") == name]

    def _known_store(self) -> Store:
        assert self._store is not None, "the cluster runs only within its block"
        return self._store


def node_object(name: str, address: str) -> Object:
    """A node as its kubelet registers it."""
    resources = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "50Gi"}
    pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
    reasons = {kind: ("False", f"KubeletHasNo{kind}") for kind in pressures} | {"Ready": ("True", "KubeletReady")}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64" if os.uname().machine == "x86_64" else "arm64",
            },
        },
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": "",
                    "lastHeartbeatTime": now(),
                    "lastTransitionTime": now(),
                }
                for kind, (status, reason) in reasons.items()
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": os.uname().release,
                "kubeProxyVersion": "v1.36.0",
                "kubeletVersion": "v1.36.0",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
                "systemUUID": "",
            },
        },
    }
