"""What the API server says that it serves: groups, versions, and the kinds of each, with the names people type.

As k8s.io/apiserver/pkg/endpoints/discovery writes it, in the form that every client understands (not the aggregated
one, which a server may leave out). kubernetes/api/discovery has what a real server says; this one says what it serves
itself, so there are fewer kinds and verbs, and there is no storageVersionHash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

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
)

from .kinds import CONFIG_MAPS, KINDS, NAMESPACES, NODES, PRIORITY_CLASSES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, Kind
from .store import Object

_VERBS = ("create", "delete", "get", "list", "patch", "watch")
_SHORT_NAMES = {
    CONFIG_MAPS: "cm",
    CRON_JOBS: "cj",
    DAEMON_SETS: "ds",
    DEPLOYMENTS: "deploy",
    EVENTS: "ev",
    NAMESPACES: "ns",
    NODES: "no",
    PODS: "po",
    PRIORITY_CLASSES: "pc",
    REPLICA_SETS: "rs",
    RESOURCE_QUOTAS: "quota",
    ROLLOUTS: "ro",
    SERVICES: "svc",
    SERVICE_ACCOUNTS: "sa",
    STATEFUL_SETS: "sts",
}
_ALL = {CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, SERVICES, STATEFUL_SETS}
"""What `kubectl get all` shows: the category "all"."""
_SUBRESOURCES = {
    PODS: (
        ("ephemeralcontainers", "Pod", ("get", "patch")),
        ("log", "Pod", ("get",)),
        ("portforward", "PodPortForwardOptions", ("create", "get")),
    )
}
"""Their names, kinds, and verbs."""


def described(path: str, kinds: Collection[Kind], address: str) -> Object | None:
    """What is under a path, for a server of these kinds at that address; None if the path describes nothing."""
    match path.strip("/").split("/"):
        case ["api"]:
            everywhere = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [everywhere]}
        case ["apis"]:
            groups = dict.fromkeys(kind.resource.group for kind in kinds if kind.resource.group)
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, kinds) for name in groups]}
        case ["apis", name] if any(kind.resource.group == name for kind in kinds):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, kinds)}
        case ["api", "v1"]:
            # without apiVersion, as it was before there were groups (keepUnversioned)
            return {"kind": "APIResourceList", "groupVersion": "v1", "resources": _resources("v1", kinds)}
        case ["apis", name, version] if resources := _resources(f"{name}/{version}", kinds):
            about = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}"}
            return {**about, "resources": resources}
    return None


def _group(name: str, kinds: Collection[Kind]) -> Object:
    """A group; the version that we prefer is the first."""
    versions = dict.fromkeys(kind.resource.version for kind in kinds if kind.resource.group == name)
    described = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": described, "preferredVersion": described[0]}


def _resources(api_version: str, kinds: Collection[Kind]) -> list[Object]:
    """The resources of a version and their subresources, by name."""
    found = [resource for kind in kinds if kind.api_version == api_version for resource in _resource(kind)]
    return sorted(found, key=lambda resource: str(resource["name"]))


def _resource(kind: Kind) -> Iterator[Object]:
    resource = kind.resource
    verbs = _VERBS if resource in KINDS else ("create",)
    whole = _entry(resource.plural, kind.name.lower(), kind.name, verbs, namespaced=kind.namespaced)
    if resource in _SHORT_NAMES:
        whole["shortNames"] = [_SHORT_NAMES[resource]]
    if resource in _ALL:
        whole["categories"] = ["all"]
    yield whole
    for name, its_kind, its_verbs in _SUBRESOURCES.get(resource, ()):
        yield _entry(f"{resource.plural}/{name}", "", its_kind, its_verbs, namespaced=kind.namespaced)


def _entry(name: str, singular: str, kind: str, verbs: Sequence[str], *, namespaced: bool) -> Object:
    return {"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": list(verbs)}
