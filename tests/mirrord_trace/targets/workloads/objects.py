"""Pods and events as the API has them, with just what the decisions look at."""

from __future__ import annotations

from typing import Any

ID = "ab" * 32


def container_status(name: str, state: dict[str, Any] | None = None, *, ready: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "ready": ready,
        "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}} if state is None else state,
        "containerID": f"containerd://{ID}",
    }


def pod(
    name: str = "web-1",
    *,
    created: str = "2030-01-01T00:00:00Z",
    containers: tuple[str, ...] = ("app",),
    init_containers: tuple[dict[str, Any], ...] = (),
    annotations: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
    node: str | None = "n1",
    phase: str = "Running",
    ready: bool = True,
    conditions: tuple[dict[str, Any], ...] = (),
    statuses: tuple[dict[str, Any], ...] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A ready pod, unless it is told to be something else."""
    ready_condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "creationTimestamp": created,
            "annotations": annotations or {},
            **(metadata or {}),
        },
        "spec": {
            "containers": [{"name": one} for one in containers],
            "initContainers": list(init_containers),
            **({"nodeName": node} if node else {}),
        },
        "status": {
            "phase": phase,
            "conditions": list(conditions) or [ready_condition],
            "containerStatuses": [container_status(one) for one in containers] if statuses is None else list(statuses),
            **status,
        },
    }


def event(reason: str, message: str, *, at: int = 0, kind: str = "Normal", name: str = "e") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "type": kind,
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2030-01-01T00:00:{at:02}Z",
    }
