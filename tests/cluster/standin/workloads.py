"""Builders for the objects of workloads, as a cluster's controllers have made them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from .store import Object

LONG_AGO = "2026-01-01T08:00:00Z"
LATER = "2026-01-01T09:00:00Z"
API_VERSIONS = {
    "CronJob": "batch/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "Pod": "v1",
    "ReplicaSet": "apps/v1",
    "Rollout": "argoproj.io/v1alpha1",
    "Service": "v1",
    "StatefulSet": "apps/v1",
}


def metadata(kind: str, name: str, namespace: str, **fields: Any) -> Object:
    """An object's metadata; its uid follows from its name, so that others can refer to it."""
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{namespace}/{name}"))
    return {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": LONG_AGO, **fields}


def owner(kind: str, name: str, namespace: str) -> Object:
    """A reference to a controller that `metadata` has described."""
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        "name": name,
        "uid": metadata(kind, name, namespace)["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def workload(kind: str, name: str, namespace: str, spec: Object, *, owned_by: Object | None = None) -> Object:
    """An object of a kind of workload."""
    owners = {"ownerReferences": [owned_by]} if owned_by else {}
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        "metadata": metadata(kind, name, namespace, **owners),
        "spec": spec,
    }


def selecting(app: str, template: Object, **fields: Any) -> Object:
    """The spec of a workload that has the pods of an app."""
    return {"selector": {"matchLabels": {"app": app}}, "template": template, **fields}


def template(app: str, spec: Object, annotations: Mapping[str, str] | None = None) -> Object:
    """A pod template."""
    described: Object = {"labels": {"app": app}}
    if annotations:
        described["annotations"] = dict(annotations)
    return {"metadata": described, "spec": spec}


def pod(
    name: str,
    namespace: str,
    made_from: Object,
    *,
    owned_by: Object | None = None,
    created: str = LONG_AGO,
    node: str | None = None,
) -> Object:
    """A pod from a template."""
    fields = {**made_from["metadata"], "creationTimestamp": created}
    if owned_by is not None:
        fields["ownerReferences"] = [owned_by]
    spec = {**made_from["spec"], **({"nodeName": node} if node else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata("Pod", name, namespace, **fields),
        "spec": spec,
    }
