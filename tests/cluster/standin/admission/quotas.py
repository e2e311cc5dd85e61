"""Resource quotas: how much the pods of a namespace may ask for, after k8s.io/apiserver's admission plugin."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ..objects.quantities import amount, written
from ..store import Object

_MUST_BE_STATED = ("cpu", "memory")
_COMPUTED = (*_MUST_BE_STATED, "ephemeral-storage")


def refusal(quotas: Sequence[Object], pods: Sequence[Object], pod: Object) -> str | None:
    """Why a namespace's quotas don't allow one more pod beside those that it has; None if they do."""
    for quota in quotas:
        name, hard = quota["metadata"]["name"], quota["spec"].get("hard", {})
        unsaid = _unsaid(hard, pod)
        if unsaid:
            return f"failed quota: {name}: must specify {unsaid}"
        requested = {one: asked for one in sorted(hard) if (asked := _asked(pod, one)) is not None}
        used = {one: sum((_asked(other, one) or Decimal() for other in pods), Decimal()) for one in requested}
        above = [one for one in requested if used[one] + requested[one] > (amount(hard[one]) or 0)]
        if above:
            told = (
                f"requested: {_listed(above, requested)}, used: {_listed(above, used)}, "
                f"limited: {','.join(f'{one}={hard[one]}' for one in above)}"
            )
            return f"exceeded quota: {name}, {told}"
    return None


def _asked(pod: Object, resource: str) -> Decimal | None:
    """How much of a quota's resource a pod takes; None where the quota's resource is none of a pod's."""
    if resource == "count/pods":
        return Decimal(1)
    is_over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    if resource == "pods":
        return Decimal(0 if is_over else 1)
    kind, name = _part(resource)
    if name not in _COMPUTED:
        return None
    asked = [one.get("resources", {}).get(kind, {}).get(name, "0") for one in pod["spec"]["containers"]]
    return Decimal() if is_over else sum((amount(text) or Decimal() for text in asked), Decimal())


def _part(resource: str) -> tuple[str, str]:
    kind, dot, name = resource.partition(".")
    return (kind, name) if dot else ("requests", resource)


def _unsaid(hard: Object, pod: Object) -> str:
    """What the quota counts and containers do not state: "limits.cpu for: agent; limits.memory for: agent"."""
    silent = {}
    for resource in sorted(hard):
        kind, name = _part(resource)
        if name in _MUST_BE_STATED:
            containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
            silent[resource] = [one["name"] for one in containers if name not in one.get("resources", {}).get(kind, {})]
    return "; ".join(f"{resource} for: {','.join(sorted(names))}" for resource, names in silent.items() if names)


def _listed(names: Sequence[str], amounts: dict[str, Decimal]) -> str:
    return ",".join(f"{name}={written(amounts[name])}" for name in names)
