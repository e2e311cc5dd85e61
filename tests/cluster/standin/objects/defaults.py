"""What the server fills in where an object says nothing (SetDefaults_… and the strategies' PrepareForCreate)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mirrord_trace.cluster.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

from ..kinds import NAMESPACES, Kind
from ..store import Object
from .quantities import amount

_JOB_LABELS = {"controller-uid": "uid", "job-name": "name"}
_FILE_MODE = 0o644
_HALF_AND_HALF = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
_WORKLOADS: Mapping[Resource, Object] = {
    DEPLOYMENTS: {
        "replicas": 1,
        "strategy": _HALF_AND_HALF,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    STATEFUL_SETS: {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    DAEMON_SETS: {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "revisionHistoryLimit": 10,
    },
    REPLICA_SETS: {"replicas": 1},
    CRON_JOBS: {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
}
"""What the specs of workloads say where they say nothing (pkg/apis/apps/v1 and batch/v1, defaults.go)."""
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def fill_in(kind: Kind, value: Object) -> None:
    """Fills in what a new object leaves open. Its uid must be set."""
    if kind.resource in (PODS, JOBS):
        value.setdefault("spec", {})
    spec = value.get("spec", {})
    if kind.resource == PODS:
        _pod_spec(spec)
        spec.setdefault("enableServiceLinks", True)
        for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
            _requests(container)
    elif kind.resource == JOBS:
        _job(value)
    elif kind.resource in _WORKLOADS:
        _complete(spec, copy.deepcopy(_WORKLOADS[kind.resource]))
        holder = spec.get("jobTemplate", {}).get("spec", {}) if kind.resource == CRON_JOBS else spec
        _pod_spec(holder.get("template", {}).get("spec", {}))
    elif kind.resource == SERVICES:
        _complete(spec, {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
    elif kind.resource == NAMESPACES:
        metadata = value["metadata"]
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
        value.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])


def first_status(kind: Kind, value: Object) -> Object | None:
    """The status of an object that was just created: what the request says of it does not count."""
    if kind.resource == PODS:
        return {"phase": "Pending", "qosClass": quality_of_service(value.get("spec", {}))}
    if kind.resource == NAMESPACES:
        return {"phase": "Active"}
    return {} if kind.resource == JOBS else None


def quality_of_service(spec: Object) -> str:
    """A pod's class, from its containers' resources (kubernetes/pkg/apis/core/helper/qos)."""
    containers = [*spec.get("containers", []), *spec.get("initContainers", [])]
    resources = [container.get("resources", {}) for container in containers]
    named = [part for one in resources for part in (one.get("requests", {}), one.get("limits", {}))]
    if not any((amount(part[name]) or 0) > 0 for part in named for name in ("cpu", "memory") if name in part):
        return "BestEffort"
    guaranteed = all(
        name in one.get("limits", {}) and one.get("requests", {}).get(name, one["limits"][name]) == one["limits"][name]
        for one in resources
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def fill_in_container(container: Object) -> None:
    """Fills in what a container leaves open."""
    image = container.get("image", "")
    tagged = ":" in image.rpartition("/")[2] and not image.endswith(":latest")
    container.setdefault("imagePullPolicy", "IfNotPresent" if tagged or "@" in image else "Always")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _complete(container[name], _PROBE)
            if "httpGet" in container[name]:
                _complete(container[name]["httpGet"], {"path": "/", "scheme": "HTTP"})


def _complete(value: Object, defaults: Mapping[str, Any]) -> None:
    """Fills in what a part of an object leaves open."""
    for name, default in defaults.items():
        value.setdefault(name, default)


def _pod_spec(spec: Object) -> None:
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(group, []):
            fill_in_container(container)
            if group != "ephemeralContainers":
                container.setdefault("resources", {})
    for volume in spec.get("volumes", []):
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", _FILE_MODE)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]


def _requests(container: Object) -> None:
    """Where a pod has limits and no requests, these are the requests (SetDefaults_Pod)."""
    limits = container.get("resources", {}).get("limits", {})
    if limits:
        requests = container["resources"].setdefault("requests", {})
        for name, quantity in limits.items():
            requests.setdefault(name, quantity)


def _job(job: Object) -> None:
    """A Job's defaults, and the selector and labels that tie its pods to it (jobStrategy.generateSelector)."""
    spec = job["spec"]
    for name, value in (("completions", 1), ("parallelism", 1), ("backoffLimit", 6), ("suspend", False)):
        spec.setdefault(name, value)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    template = spec.setdefault("template", {})
    _pod_spec(template.setdefault("spec", {}))
    if not spec["manualSelector"]:
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        for label, source in _JOB_LABELS.items():
            labels[label] = labels[f"batch.kubernetes.io/{label}"] = job["metadata"][source]
        uid = job["metadata"]["uid"]
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    job["metadata"].setdefault("labels", dict(template.get("metadata", {}).get("labels", {})))
