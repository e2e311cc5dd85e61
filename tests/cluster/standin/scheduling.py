"""Where a pod may run: pure, with the words of kube-scheduler and of the kubelet's admission."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from .store import Object

_QUANTITY = re.compile(r"([+-]?[0-9.]+)(e[+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?", re.IGNORECASE)
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000 ** (power + 1)) for power, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Fraction(1024 ** (power + 1)) for power, letter in enumerate("KMGTPE")},
}
_FINISHED = ("Succeeded", "Failed")


def quantity(text: str) -> Fraction:
    """A resource quantity such as "100m" or "1Gi" as a number. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    suffix = match[2] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return Fraction(match[1]) * Fraction(10) ** int(suffix[1:])
    return Fraction(match[1]) * _SUFFIXES[suffix]


def requested(pod: Object, resource: str) -> Fraction:
    """What a pod's containers ask for, of one resource."""
    total = Fraction(0)
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        asked = resources.get("requests", {}).get(resource) or resources.get("limits", {}).get(resource)
        total += quantity(str(asked)) if asked else 0
    return total


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
    running = [other for other in others if other.get("status", {}).get("phase") not in _FINISHED]
    allocatable = node["status"]["allocatable"]
    if len(running) + 1 > quantity(allocatable["pods"]):
        return "pods", f"requested: 1, used: {len(running)}, capacity: {allocatable['pods']}"
    # The kubelet tells CPUs in thousandths.
    for resource, unit in (("cpu", 1000), ("memory", 1)):
        asked, capacity = requested(pod, resource), quantity(allocatable[resource])
        used = sum((requested(other, resource) for other in running), Fraction(0))
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
        if name in bound and other.get("status", {}).get("phase") not in _FINISHED:
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
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    if not nodes:
        return None, "no nodes available to schedule pods"
    return None, f"0/{len(nodes)} nodes are available: {told}. preemption: 0/{len(nodes)} nodes are available: " + (
        f"{len(nodes)} Preemption is not helpful for scheduling."
    )


def _misfit(pod: Object, node: Object, others: Sequence[Object]) -> str | None:
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    taint = untolerated(pod, node, ("NoSchedule", "NoExecute"))
    if taint is not None:
        value = f"{taint['key']}: {taint.get('value', '')}"
        return f"node(s) had untolerated taint {{{value}}}"
    if not is_selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    short = shortage(pod, node, others)
    if short is not None:
        return "Too many pods" if short[0] == "pods" else f"Insufficient {short[0]}"
    return None
