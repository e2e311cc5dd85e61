"""The kinds that the stand-in serves: names, scope, and which model of the official client describes each."""

from __future__ import annotations

import attrs

from mirrord_trace.cluster.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

NAMESPACES = Resource("", "v1", "namespaces")
NODES = Resource("", "v1", "nodes")
CONFIG_MAPS = Resource("", "v1", "configmaps")
SECRETS = Resource("", "v1", "secrets")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas")
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")


@attrs.frozen
class Kind:
    """One kind of object."""

    resource: Resource
    name: str
    """As `kind:` has it."""
    model: str | None
    """The class in kubernetes.client.models; None for a custom resource, whose schema we do not check."""
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As `apiVersion:` has it."""
        return f"{self.resource.group}/{self.resource.version}" if self.resource.group else self.resource.version


KINDS = {
    kind.resource: kind
    for kind in (
        Kind(NAMESPACES, "Namespace", "V1Namespace", namespaced=False),
        Kind(NODES, "Node", "V1Node", namespaced=False),
        Kind(PRIORITY_CLASSES, "PriorityClass", "V1PriorityClass", namespaced=False),
        Kind(PODS, "Pod", "V1Pod"),
        Kind(SERVICES, "Service", "V1Service"),
        Kind(EVENTS, "Event", "CoreV1Event"),
        Kind(CONFIG_MAPS, "ConfigMap", "V1ConfigMap"),
        Kind(SECRETS, "Secret", "V1Secret"),
        Kind(SERVICE_ACCOUNTS, "ServiceAccount", "V1ServiceAccount"),
        Kind(RESOURCE_QUOTAS, "ResourceQuota", "V1ResourceQuota"),
        Kind(DEPLOYMENTS, "Deployment", "V1Deployment"),
        Kind(STATEFUL_SETS, "StatefulSet", "V1StatefulSet"),
        Kind(DAEMON_SETS, "DaemonSet", "V1DaemonSet"),
        Kind(REPLICA_SETS, "ReplicaSet", "V1ReplicaSet"),
        Kind(JOBS, "Job", "V1Job"),
        Kind(CRON_JOBS, "CronJob", "V1CronJob"),
        Kind(ROLES, "Role", "V1Role"),
        Kind(ROLE_BINDINGS, "RoleBinding", "V1RoleBinding"),
        Kind(ROLLOUTS, "Rollout", None),
    )
}
"""All kinds, by the resource of their objects. Rollouts are served only where they are installed."""


def kind_of(api_version: str, name: str) -> Kind | None:
    """The kind of that name, as an object states it."""
    return next((kind for kind in KINDS.values() if (kind.api_version, kind.name) == (api_version, name)), None)
