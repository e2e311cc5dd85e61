"""What a pod's object says, in single words."""

from __future__ import annotations

from .store import Object


def phase(pod: Object) -> str:
    """Its phase; Pending before anybody has said anything."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_finished(pod: Object) -> bool:
    """Whether its containers have ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def is_being_deleted(pod: Object) -> bool:
    """Whether its end has been asked for."""
    return "deletionTimestamp" in pod["metadata"]


def is_ready(pod: Object) -> bool:
    """Whether its Ready condition is true."""
    conditions: list[Object] = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
