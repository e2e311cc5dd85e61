"""Which pods of a workload can be served, and which container of a pod is meant.

A pod is served only when it is ready, like for a service, and when the container runs: an agent beside one that is
about to start or to end would show half a world. The newest comes first, because after an update it is the new version.
Where no pod will do, the reasons are told as the API gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from mirrord_trace.errors import Failure, UsageFailure
from mirrord_trace.targets.workloads.kinds import Object
from mirrord_trace.targets.workloads.probes import warnings_of_probes

SIDECARS: Final = frozenset(
    {
        "kuma-sidecar",
        "kuma-init",
        "istio-proxy",
        "istio-init",
        "linkerd-proxy",
        "linkerd-init",
        "vault-agent",
        "vault-agent-init",
        "queue-proxy",
        "traffic-agent",
    }
)
"""Containers that meshes and injectors add; they are no one's target unless asked for."""
_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_MOST_SHOWN: Final = 5


@attrs.frozen
class Candidate:
    """A pod that can be served, and the container of it that is meant."""

    namespace: str
    pod: str
    pod_uid: str
    node: str
    container: str
    container_id: str
    """As the node's processes know it: without the runtime's name in front."""
    warnings: Mapping[int, str] = attrs.field(factory=dict, eq=False)
    """See `AgentLink.told_when_stolen`."""


def candidates(pods: Sequence[Object], container: str | None) -> list[Candidate]:
    """The pods that can be served, the newest first. With `container` only that one will do, else see `default`."""
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return [found for pod in newest_first if not why_not(pod) and (found := _candidate(pod, container)) is not None]


def still_runs(pod: Object, candidate: Candidate) -> bool:
    """Whether a candidate of this pod is what it was, ready or not: the same container in the same pod runs."""
    status = _status_of(pod, candidate.container) or {}
    return (
        pod["metadata"]["uid"] == candidate.pod_uid
        and "running" in (status.get("state") or {})
        and _plain_id(status) == candidate.container_id
    )


def _candidate(pod: Object, container: str | None) -> Candidate | None:
    name = container or default_container(pod)
    status = _status_of(pod, name)
    if status is None or not _runs(status):
        return None
    metadata = pod["metadata"]
    return Candidate(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        pod["spec"]["nodeName"],
        name,
        _plain_id(status),
        warnings_of_probes(pod),
    )


def _plain_id(status: Object) -> str:
    return str(status.get("containerID") or "").partition("://")[2]


def containers(pod: Object) -> list[str]:
    """The containers that a pod has while it runs: its own, then init containers that stay (restartPolicy Always)."""
    spec = pod["spec"]
    staying = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    return [one["name"] for one in (*spec["containers"], *staying)]


def default_container(pod: Object) -> str:
    """The container that is meant when none is named: the annotated one, else the first that is no known sidecar."""
    known = containers(pod)
    annotated = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if annotated in known:
        return str(annotated)
    return next((name for name in known if name not in SIDECARS), known[0])


def why_not(pod: Object) -> str:
    """Why a pod is not ready, in the API's words; "" for one that is."""
    metadata, status = pod["metadata"], pod.get("status", {})
    phase = status.get("phase", "Unknown")
    reasons = [phase if "reason" not in status else f"{phase} ({_reason(status)})"]
    if metadata.get("deletionTimestamp"):
        reasons.append("being deleted")
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    is_ready = conditions.get("Ready", {}).get("status") == "True"
    if phase == "Running" and is_ready and len(reasons) == 1:
        return ""
    reasons += [
        f"not {kind} ({_reason(conditions[kind])})" if _reason(conditions[kind]) else f"not {kind}"
        # The others follow from these.
        for kind in ("PodScheduled", "Initialized", "Ready")
        if kind in conditions and conditions[kind]["status"] != "True"
    ]
    reasons += [f"container {one['name']} {what}" for one in _statuses(pod) if (what := _trouble_of(one))]
    return ", ".join(reasons)


def no_candidate(what: str, pods: Sequence[Object], container: str | None, workload: Object | None = None) -> Failure:
    """Why none of a workload's pods can be served; `what` names the workload ("deployment/web in namespace shop")."""
    if not pods:
        return Failure(f"{what} has no pods", "\n".join(_why_no_pods(workload)) or None)
    if container is not None and not any(container in containers(pod) for pod in pods):
        known = dict.fromkeys(name for pod in pods for name in containers(pod))
        return UsageFailure(f"{what} has no container {container!r}", f"It has {', '.join(known)}.")
    shown = [f"{pod['metadata']['name']}: {_why_not_served(pod, container)}" for pod in pods[:_MOST_SHOWN]]
    if len(pods) > _MOST_SHOWN:
        shown.append(f"and {len(pods) - _MOST_SHOWN} more")
    return Failure(f"{what} has no ready pod", "\n".join(shown))


def _why_not_served(pod: Object, container: str | None) -> str:
    reason = why_not(pod)
    if reason:
        return reason
    name = container or default_container(pod)
    if name not in containers(pod):
        return f"has no container {name}"
    return f"container {name} {_trouble_of(_status_of(pod, name) or {}) or 'does not run'}"


def _why_no_pods(workload: Object | None) -> Iterator[str]:
    if workload is None:
        return
    spec, status = workload.get("spec", {}), workload.get("status", {})
    if spec.get("replicas") == 0:
        yield "It is scaled to 0."
    if "schedule" in spec and not status.get("lastScheduleTime"):
        yield f"It has not run yet; its schedule is {spec['schedule']}."
    for condition in status.get("conditions") or ():
        good = "False" if condition["type"] in ("ReplicaFailure", "Failed") else "True"
        if condition["status"] != good and _reason(condition):
            yield f"{condition['type']} is {condition['status']}: {_reason(condition)}"


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _status_of(pod: Object, container: str) -> Object | None:
    return next((one for one in _statuses(pod) if one["name"] == container), None)


def _runs(status: Object) -> bool:
    return bool(status.get("ready")) and "running" in status.get("state", {}) and bool(status.get("containerID"))


def _trouble_of(status: Object) -> str:
    """What keeps a container from running, or being ready; "" when nothing does."""
    state = status.get("state") or {}
    if "waiting" in state:
        return f"waits ({_reason(state['waiting'])})" if _reason(state["waiting"]) else "waits"
    if "terminated" in state:
        ended = state["terminated"]
        # Init containers end, and that is well.
        how = f"ended with exit code {ended['exitCode']}" if ended["exitCode"] else ""
        return f"{how} ({_reason(ended)})" if how and _reason(ended) else how
    return "is not ready" if "running" in state and not status.get("ready") else ""


def _reason(of: Object) -> str:
    return ": ".join(filter(None, (of.get("reason", ""), of.get("message", ""))))
