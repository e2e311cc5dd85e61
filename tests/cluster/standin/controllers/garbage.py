"""The garbage collector: deletes what belongs to something that is no longer there, and what is on no node."""

from __future__ import annotations

from mirrord_trace.cluster.resources import CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, STATEFUL_SETS

from ..deletion import delete_pod
from ..kinds import NODES
from ..store import Object, Store

_OWNERS = {
    "CronJob": CRON_JOBS,
    "DaemonSet": DAEMON_SETS,
    "Deployment": DEPLOYMENTS,
    "Job": JOBS,
    "ReplicaSet": REPLICA_SETS,
    "StatefulSet": STATEFUL_SETS,
}
WATCHED = (PODS, NODES, *_OWNERS.values())


class GarbageCollector:
    """Deletes orphans."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes_seen: set[str] = set()

    def work(self) -> None:
        """Looks at everything once."""
        for resource in (REPLICA_SETS, JOBS):
            for one in self._store.list(resource):
                if self._is_orphan(one):
                    self._store.delete(resource, one["metadata"]["namespace"], one["metadata"]["name"])
        nodes = {node["metadata"]["name"] for node in self._store.list(NODES)}
        self._nodes_seen |= nodes
        for pod in self._store.list(PODS):
            if pod["spec"].get("nodeName") in self._nodes_seen - nodes:
                # PodGC: nobody is there to confirm it.
                self._store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
            elif self._is_orphan(pod):
                delete_pod(self._store, pod)

    def _is_orphan(self, one: Object) -> bool:
        """Whether all the owners that it names, of kinds that are known here, are gone."""
        owners = [owner for owner in one["metadata"].get("ownerReferences", []) if owner["kind"] in _OWNERS]
        return bool(owners) and not any(self._exists(owner, one["metadata"]["namespace"]) for owner in owners)

    def _exists(self, owner: Object, namespace: str) -> bool:
        found = self._store.find(_OWNERS[owner["kind"]], namespace, owner["name"])
        return found is not None and found["metadata"]["uid"] == owner["uid"]
