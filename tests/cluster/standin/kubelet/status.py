"""A pod's status from the states of its containers: pure, as the kubelet computes it (pkg/kubelet/status)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ..store import Object, now


@attrs.define
class ContainerRecord:
    """What the kubelet knows of one container."""

    name: str
    image: str
    state: Object
    """`waiting`, `running` or `terminated`, with its details."""
    last_state: Object = attrs.field(factory=dict)
    restarts: int = 0
    container_id: str = ""
    """64 hexadecimal digits, once there is one."""
    image_status: Object | None = None
    """`image` and `imageID`, once it is there."""
    ready: bool = False

    @property
    def terminated(self) -> Object | None:
        """The details of its end, if it has ended and nothing has been said of a restart."""
        ended: Object | None = self.state.get("terminated")
        return ended

    def to_status(self) -> Object:
        """As a pod's status has it."""
        status: Object = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": "",
            "started": "running" in self.state,
        }
        if self.image_status is not None:
            status |= self.image_status
        if self.container_id:
            status["containerID"] = f"containerd://{self.container_id}"
        return status


def waiting(reason: str, message: str = "") -> Object:
    """A container's state before it runs."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def running() -> Object:
    """A container's state from now on."""
    return {"running": {"startedAt": now()}}


def terminated(status: int, started: str, container_id: str, *, reason: str = "", message: str = "") -> Object:
    """A container's state after its end; `status` is an exit code or the negative number of a signal."""
    details: Object = {
        # As a shell has it, and containerd.
        "exitCode": status if status >= 0 else 128 - status,
        "reason": reason or ("Completed" if status == 0 else "Error"),
        "startedAt": started,
        "finishedAt": now(),
        "containerID": f"containerd://{container_id}",
    }
    if message:
        details["message"] = message
    return {"terminated": details}


def phase(policy: str, init: Sequence[ContainerRecord], main: Sequence[ContainerRecord]) -> str:
    """The phase of a pod with this restartPolicy."""
    for record in init:
        if record.terminated is None or record.terminated["exitCode"] != 0:
            failed = record.terminated is not None and policy == "Never"
            return "Failed" if failed else "Pending"
    if any("waiting" in record.state and not record.last_state for record in main):
        return "Pending"
    if policy == "Always" or any("running" in record.state for record in main):
        return "Running"
    ends = [record.terminated or record.last_state["terminated"] for record in main]
    if all(end["exitCode"] == 0 for end in ends):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def conditions(
    before: Sequence[Object], pod_phase: str, init: Sequence[ContainerRecord], main: Sequence[ContainerRecord]
) -> list[Object]:
    """The kubelet's conditions, and those of others as they were; a condition that stays keeps its time."""
    uninitialized = [record.name for record in init if (record.terminated or {"exitCode": 1})["exitCode"] != 0]
    unready = [record.name for record in main if not record.ready]
    told: dict[str, Object] = {
        "Initialized": _condition(
            "ContainersNotInitialized" if uninitialized else "",
            f"containers with incomplete status: [{' '.join(uninitialized)}]",
        )
    }
    if pod_phase in ("Succeeded", "Failed"):
        why = _condition("PodCompleted" if pod_phase == "Succeeded" else "PodFailed", "")
    else:
        why = _condition(
            "ContainersNotReady" if unready else "", f"containers with unready status: [{' '.join(unready)}]"
        )
    told |= {"Ready": why, "ContainersReady": dict(why), "PodScheduled": _condition("", "")}
    known = {condition["type"]: condition for condition in before}
    for kind, condition in told.items():
        old = known.get(kind)
        unchanged = old is not None and old["status"] == condition["status"]
        time = old["lastTransitionTime"] if old is not None and unchanged else now()
        known[kind] = {"type": kind, **condition, "lastProbeTime": None, "lastTransitionTime": time}
    return list(known.values())


def _condition(reason: str, message: str) -> Object:
    if not reason:
        return {"status": "True"}
    return {"status": "False", "reason": reason} | ({"message": message} if message else {})


def quality_of_service(pod: Object) -> str:
    """The class by which a pod's cgroup is filed (pkg/apis/core/helper/qos)."""
    guaranteed, any_at_all = True, False
    for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
        resources = container.get("resources", {})
        limits = {name: resources.get("limits", {}).get(name) for name in ("cpu", "memory")}
        requests = {name: resources.get("requests", {}).get(name, limits[name]) for name in limits}
        any_at_all |= any([*limits.values(), *requests.values()])
        guaranteed &= all(limits.values()) and limits == requests
    return "BestEffort" if not any_at_all else "Guaranteed" if guaranteed else "Burstable"


def pod_cgroup(pod: Object) -> str:
    """The path of a pod's cgroup on its node, as the systemd driver names it."""
    uid = pod["metadata"]["uid"].replace("-", "_")
    service = quality_of_service(pod).lower()
    if service == "guaranteed":
        return f"kubepods.slice/kubepods-pod{uid}.slice"
    return f"kubepods.slice/kubepods-{service}.slice/kubepods-{service}-pod{uid}.slice"


def container_cgroup(pod: Object, container_id: str) -> str:
    """The path of a container's cgroup, as containerd names it."""
    return f"{pod_cgroup(pod)}/cri-containerd-{container_id}.scope"
