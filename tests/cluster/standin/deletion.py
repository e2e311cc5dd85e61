"""Deleting pods as the API does it for controllers: gracefully, and it is the pod's node that ends it."""

from __future__ import annotations

from mirrord_trace.cluster.resources import PODS

from .pod_facts import is_being_deleted, is_finished
from .store import Object, Store, now


def delete_pod(store: Store, pod: Object) -> None:
    """Begins to delete a pod; one that is on no node is gone at once. One that is being deleted stays as it is."""
    metadata = pod["metadata"]
    if is_being_deleted(pod):
        return
    grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30)
    if not pod["spec"].get("nodeName") or is_finished(pod):
        store.delete(PODS, metadata["namespace"], metadata["name"])
        return
    mark = {"deletionTimestamp": now(grace_s), "deletionGracePeriodSeconds": grace_s}
    store.patch(PODS, metadata["namespace"], metadata["name"], {"metadata": mark})
