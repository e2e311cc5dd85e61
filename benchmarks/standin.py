"""The cluster that the section `cluster` measures in: `python -m benchmarks.standin DIRECTORY`, a process of its own.

It is the tests' stand-in: an API server over TLS and a node that runs pods as processes, with one Deployment, `web`,
whose container is `programs/far_side.c`. It says in JSON where it is; then each line read is a question:

    session   what was asked of the API server since the last such question, and how long the last agent's pod took
    memory    bytes of the agent that runs, by the kind of memory

It ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from benchmarks import building
from benchmarks.processes import MemoryUse
from benchmarks.world import PORT
from mirrord_trace.cluster.resources import POD_PORT_FORWARD, PODS
from mirrord_trace.targets.workloads.ownership import MANAGED_BY
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.interfaces import ControlPlane
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.pod_facts import is_ready
from tests.cluster.standin.shop import MACHINE_IMAGE, registry
from tests.cluster.standin.store import Object, Store
from tests.cluster.standin.workloads import owner, pod, selecting, template, workload

NAMESPACE = "shop"
POD = "web-5d8f7c9b4-k2x9p"


@attrs.define
class Starts:
    """When pods of agents were made, and when their containers ran."""

    created: dict[str, float] = attrs.field(factory=dict)
    running: dict[str, float] = attrs.field(factory=dict)

    def take(self, value: Object, now_s: float) -> None:
        """Looks at a pod as it is now, by a clock that only goes forward."""
        name = value["metadata"]["name"]
        if is_agent(value):
            self.created.setdefault(name, now_s)
            statuses = value.get("status", {}).get("containerStatuses", [])
            if any("running" in status.get("state", {}) for status in statuses):
                self.running.setdefault(name, now_s)

    def last_s(self) -> float | None:
        """How long the newest took; None if there is none."""
        return self.running[name] - self.created[name] if (name := next(reversed(self.running), None)) else None


class TimedNodes(Nodes):
    """Nodes, and a clock beside them."""

    starts = Starts()

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        """As `Nodes.run`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, control.store)
            await super().run(control, task_status)
            nursery.cancel_scope.cancel()

    async def _watch(self, store: Store) -> None:
        async for change in store.changes(PODS):
            self.starts.take(change.object, time.monotonic())


def is_agent(value: Object) -> bool:
    """Whether an object belongs to an agent."""
    labels: dict[str, str] = value["metadata"].get("labels", {})
    return MANAGED_BY.items() <= labels.items()


def objects(command: list[str]) -> list[Object]:
    """The Deployment and its pod."""
    container = {"name": "web", "image": MACHINE_IMAGE, "command": command}
    made_from = template("web", {"containers": [container]})
    spec = selecting("web", made_from, replicas=1)
    replica_set = POD.rpartition("-")[0]
    return [
        workload("Deployment", "web", NAMESPACE, spec),
        workload("ReplicaSet", replica_set, NAMESPACE, spec, owned_by=owner("Deployment", "web", NAMESPACE)),
        pod(POD, NAMESPACE, made_from, owned_by=owner("ReplicaSet", replica_set, NAMESPACE), node="node-1"),
    ]


def session(cluster: Cluster, seen: int, starts: Starts) -> Mapping[str, float | None]:
    """What was asked since so many requests, and the last start."""
    asked = cluster.requests[seen:]
    web_sockets = sum(one.resource == POD_PORT_FORWARD for one in asked)
    return {"requests": len(asked) - web_sockets, "web_sockets": web_sockets, "pod_start_s": starts.last_s()}


def memory(cluster: Cluster, nodes: Nodes) -> Mapping[str, int]:
    """The memory of the only agent that runs."""
    (agent,) = (one for one in cluster.list(PODS, NAMESPACE) if is_agent(one))
    container = agent["spec"]["containers"][0]["name"]
    pid = cluster.in_loop(lambda: nodes.pid(NAMESPACE, agent["metadata"]["name"], container))
    use = MemoryUse.of_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return {"RSS": use.rss, "PSS": use.pss}


def main() -> None:
    """Runs the cluster."""
    directory = Path(sys.argv[1])
    nodes = TimedNodes(directory / "nodes", registry(), names=["node-1"])
    with Cluster(directory / "cluster", nodes) as cluster, suppress(KeyboardInterrupt):
        for value in objects([str(building.program("far_side")), str(PORT)]):
            cluster.apply(value)
        address = cluster.wait_until(_address)
        pid = cluster.in_loop(lambda: nodes.pid(NAMESPACE, POD, "web"))
        say({"kubeconfig": str(cluster.kubeconfig), "address": address, "pid": pid})
        seen = 0
        for line in sys.stdin:
            if line == "session\n":
                say(session(cluster, seen, nodes.starts))
                seen = len(cluster.requests)
            else:
                say(memory(cluster, nodes))


def _address(store: Store) -> str | None:
    (web,) = store.list(PODS, NAMESPACE)
    return web["status"]["podIP"] if is_ready(web) else None


def say(facts: Mapping[str, object]) -> None:
    """One line of JSON."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
