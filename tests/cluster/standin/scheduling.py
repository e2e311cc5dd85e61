"""Where a pod may run: pure, with the words of kube-scheduler and of the kubelet's admission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from .objects.quantities import amount
from .pod_facts import is_finished
from .store import Object

_CROWDED = ("Insufficient cpu", "Insufficient memory", "Too many pods")
_NO_VICTIMS = "No preemption victims found for incoming pod"


def requested(pod: Object, resource: str) -> Decimal:
    """What a pod's containers ask for, of one resource."""
    total = Decimal(0)
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        asked = resources.get("requests", {}).get(resource) or resources.get("limits", {}).get(resource)
        total += _amount(asked or "0")
    return total


def _amount(text: str) -> Decimal:
    value = amount(text)
    assert value is not None, f"{text!r} is no quantity"
    return value


def tolerates(pod: Object, taint: Object) -> bool:
    """Whether the pod has a toleration for a node's taint."""
    return any(
        toleration.get("effect", taint["effect"]) in ("", taint["effect"])
        and (
            (toleration.get("operator") == "Exists" and toleration.get("key", "") in ("", taint["key"]))
            or (
                toleration.get("operator", "Equal") == "Equal"
                and toleration.get("key") == taint["key"]
                and toleration.get("value", "") == taint.get("value", "")
            )
        )
        for toleration in pod["spec"].get("tolerations", [])
    )


def untolerated(pod: Object, node: Object, effects: Sequence[str]) -> Object | None:
    """The first taint of the node with one of these effects that the pod does not tolerate."""
    taints: list[Object] = node["spec"].get("taints", [])
    return next((taint for taint in taints if taint["effect"] in effects and not tolerates(pod, taint)), None)


def is_selected(pod: Object, node: Object) -> bool:
    """Whether the node has the labels that the pod's nodeSelector asks for."""
    labels = node["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in pod["spec"].get("nodeSelector", {}).items())


def shortage(pod: Object, node: Object, others: Iterable[Object]) -> tuple[str, str] | None:
    """The first resource of which the node has too little, with the kubelet's figures; None if all fits."""
    running = [other for other in others if not is_finished(other)]
    allocatable = node["status"]["allocatable"]
    if len(running) + 1 > _amount(allocatable["pods"]):
        return "pods", f"requested: 1, used: {len(running)}, capacity: {allocatable['pods']}"
    # The kubelet tells CPUs in thousandths.
    for resource, unit in (("cpu", 1000), ("memory", 1)):
        asked, capacity = requested(pod, resource), _amount(allocatable[resource])
        used = sum((requested(other, resource) for other in running), Decimal(0))
        if asked and used + asked > capacity:
            figures = (int(value * unit) for value in (asked, used, capacity))
            return resource, "requested: {}, used: {}, capacity: {}".format(*figures)
    return None


def rejection(pod: Object, node: Object, others: Iterable[Object]) -> tuple[str, str] | None:
    """Why the kubelet does not take a pod that is bound to its node: reason and message; None if it does."""
    if not is_selected(pod, node):
        return (
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    short = shortage(pod, node, others)
    if short is not None:
        resource, figures = short
        return f"OutOf{resource}", f"Pod was rejected: Node didn't have enough resource: {resource}, {figures}"
    return None


def choose(pod: Object, nodes: Sequence[Object], pods: Iterable[Object]) -> tuple[str | None, str]:
    """The node for a pod, the emptiest that fits; or None, and the scheduler's message that says why not."""
    bound: dict[str, list[Object]] = {node["metadata"]["name"]: [] for node in nodes}
    for other in pods:
        name = other["spec"].get("nodeName")
        if name in bound and not is_finished(other):
            bound[name].append(other)
    reasons: Counter[str] = Counter()
    fitting = []
    for node in nodes:
        name = node["metadata"]["name"]
        reason = _misfit(pod, node, bound[name])
        if reason is None:
            fitting.append(name)
        else:
            reasons[reason] += 1
    if fitting:
        return min(fitting, key=lambda name: (len(bound[name]), name)), ""
    if not nodes:
        return None, "no nodes available to schedule pods"
    none = f"0/{len(nodes)} nodes are available: "
    # Other pods could make way only where there are too many.
    crowded = sum(count for reason, count in reasons.items() if reason in _CROWDED)
    preemption = {"Preemption is not helpful for scheduling": len(nodes) - crowded, _NO_VICTIMS: crowded}
    return None, f"{none}{_counted(reasons)}. no new claims to deallocate, preemption: {none}{_counted(preemption)}."


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items() if count))


def _misfit(pod: Object, node: Object, others: Sequence[Object]) -> str | None:
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    if untolerated(pod, node, ("NoSchedule", "NoExecute")) is not None:
        return "node(s) had untolerated taint(s)"
    if not is_selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    short = shortage(pod, node, others)
    if short is not None:
        return "Too many pods" if short[0] == "pods" else f"Insufficient {short[0]}"
    return None
