"""The scheduler: binds pods to nodes, and says why where it cannot."""

from __future__ import annotations

from mirrord_trace.cluster.resources import PODS

from ..events import Recorder
from ..kinds import NODES
from ..pod_facts import is_being_deleted
from ..scheduling import choose
from ..store import Object, Store, now

WATCHED = (PODS, NODES)


class Scheduler:
    """Gives a node to each pod that has none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recorder = Recorder(store, "default-scheduler")

    def work(self) -> None:
        """Looks at all pods once."""
        for pod in self._store.list(PODS):
            if not pod["spec"].get("nodeName") and not is_being_deleted(pod):
                self._schedule(pod)

    def _schedule(self, pod: Object) -> None:
        node, why_not = choose(pod, self._store.list(NODES), self._store.list(PODS))
        status = pod.setdefault("status", {})
        conditions = status.setdefault("conditions", [])
        known = next((condition for condition in conditions if condition["type"] == "PodScheduled"), None)
        if node is None and known is not None and known.get("message") == why_not:
            return
        told = {"status": "True"} if node else {"status": "False", "reason": "Unschedulable", "message": why_not}
        condition = {"type": "PodScheduled", "lastProbeTime": None, "lastTransitionTime": now(), **told}
        status["conditions"] = [*(one for one in conditions if one is not known), condition]
        status.setdefault("phase", "Pending")
        if node is not None:
            pod["spec"]["nodeName"] = node
        self._store.put(PODS, pod)
        if node is None:
            self._recorder.record(pod, "Warning", "FailedScheduling", why_not)
        else:
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            self._recorder.record(pod, "Normal", "Scheduled", f"Successfully assigned {name} to {node}")
