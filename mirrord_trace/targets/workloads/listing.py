"""What can be targeted in a cluster: workloads and pods with a container that can be served.

A workload can be a target when one of its pods is ready, so its pods are found first: all pods are listed once, and
selectors are matched here instead of by a request for each workload. What a controller of a listed kind has made (a
deployment's replica sets, a cron job's jobs) is left out, because its owner is the better name for the same pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.targets.workloads import choice, kinds
from mirrord_trace.targets.workloads.kinds import Kind, Object
from mirrord_trace.targets.workloads.ownership import MANAGED_BY

Objects = Mapping[Kind, Sequence[Object]]

_ORDER: Final = (
    kinds.DEPLOYMENT,
    kinds.ROLLOUT,
    kinds.STATEFUL_SET,
    kinds.DAEMON_SET,
    kinds.CRON_JOB,
    kinds.JOB,
    kinds.REPLICA_SET,
    kinds.SERVICE,
    kinds.POD,
)
_OWNERS: Final = frozenset({"Deployment", "Rollout", "CronJob"})
"""Kinds whose objects have workloads made for them."""


@attrs.frozen
class Listed:
    """A workload or a pod, and how much of it can be served."""

    namespace: str
    kind: Kind
    name: str
    ready: int
    """How many of its pods can be served; 0: it cannot be a target now."""
    pods: int
    containers: tuple[str, ...]
    """Of the pod that would be served, the container that would be chosen first."""
    created: datetime

    @property
    def target(self) -> str:
        """As `-t` takes it."""
        return f"{self.kind.name}/{self.name}"

    @property
    def targets(self) -> list[str]:
        """As mirrord lists it: of a pod with several containers, each container."""
        if self.kind is kinds.POD and len(self.containers) > 1:
            return [f"{self.target}/container/{container}" for container in self.containers]
        return [self.target]


@attrs.frozen
class Listing:
    """What was found."""

    all: list[Listed]
    """Sorted; also what cannot be a target now."""
    refused: list[ApiRefusal]
    """One for each kind that may not be listed."""


async def list_targets(api: ApiServer, namespace: str | None) -> Listing:
    """What there is in a namespace, or in all of them (None). Kinds that may not be listed are left out, but for pods.

    Raises ApiRefusal.
    """
    objects: dict[Kind, list[Object]] = {}
    refusals: dict[Kind, ApiRefusal] = {}

    async def fetch(kind: Kind) -> None:
        try:
            objects[kind] = list(await api.list(kind.resource, namespace))
        except ApiRefusal as refusal:
            refusals[kind] = refusal

    async with trio.open_nursery() as nursery:
        for kind in _ORDER:
            nursery.start_soon(fetch, kind)
    absent = kinds.ROLLOUT in refusals and not _has_rollouts(objects)
    refused = [refusals[kind] for kind in _ORDER if kind in refusals and not (absent and kind is kinds.ROLLOUT)]
    for refusal in refused:
        if refusal.status != 403 or refusal.resource == PODS:
            raise refusal
    return Listing(list(targets(objects)), refused)


def _has_rollouts(objects: Objects) -> bool:
    """Whether rollouts are installed, as their traces tell: who may not list them is refused also where they aren't."""
    return any(owner["kind"] == "Rollout" for each in objects.get(kinds.REPLICA_SET, ()) for owner in _owners(each))


def targets(objects: Objects) -> Iterator[Listed]:
    """What the objects of each kind are as targets."""
    pods_by_namespace: dict[str, list[Object]] = {}
    for pod in objects.get(kinds.POD, ()):
        pods_by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod)
    for kind in _ORDER:
        for workload in sorted(objects.get(kind, ()), key=_place):
            if not _is_ours(workload) and not any(owner["kind"] in _OWNERS for owner in _controllers(kind, workload)):
                neighbours = pods_by_namespace.get(workload["metadata"]["namespace"], ())
                yield _listed(kind, workload, list(_pods_of(kind, workload, neighbours, objects)))


def _place(thing: Object) -> tuple[str, str]:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _is_ours(thing: Object) -> bool:
    return MANAGED_BY.items() <= _labels(thing).items()


def _labels(thing: Object) -> Mapping[str, str]:
    return thing["metadata"].get("labels") or {}


def _owners(thing: Object) -> Sequence[Object]:
    return thing["metadata"].get("ownerReferences") or ()


def _controllers(kind: Kind, thing: Object) -> Sequence[Object]:
    """Pods are listed whatever made them: there may be reasons to want this one."""
    return () if kind is kinds.POD else _owners(thing)


def _listed(kind: Kind, workload: Object, pods: Sequence[Object]) -> Listed:
    metadata = workload["metadata"]
    candidates = choice.candidates(pods, None)
    containers: list[str] = []
    if candidates:
        chosen = candidates[0]
        [pod] = [pod for pod in pods if pod["metadata"]["uid"] == chosen.pod_uid]
        containers = sorted(choice.containers(pod), key=lambda name: name != chosen.container)
    return Listed(
        metadata["namespace"],
        kind,
        metadata["name"],
        len(candidates),
        len(pods),
        tuple(containers),
        datetime.fromisoformat(metadata["creationTimestamp"]),
    )


def _pods_of(kind: Kind, workload: Object, pods: Iterable[Object], objects: Objects) -> Iterator[Object]:
    if kind is kinds.POD:
        yield workload
    elif kind is kinds.CRON_JOB:
        uid = workload["metadata"]["uid"]
        jobs = {
            job["metadata"]["name"]
            for job in objects.get(kinds.JOB, ())
            if any(owner["uid"] == uid for owner in _owners(job))
        }
        yield from (pod for pod in pods if _labels(pod).get("job-name") in jobs)
    else:
        selector = _selector(kind, workload, objects)
        if selector:
            yield from (pod for pod in pods if matches(selector, _labels(pod)))


def _selector(kind: Kind, workload: Object, objects: Objects) -> Object:
    """The LabelSelector of a workload's pods; empty if it has none."""
    selector: Object = workload.get("spec", {}).get("selector") or {}
    if kind is kinds.SERVICE:
        return {"matchLabels": selector} if selector else {}
    if kind is kinds.ROLLOUT and not selector and (reference := kinds.workload_of_rollout(workload)) is not None:
        other, name = reference
        place = workload["metadata"]["namespace"], name
        return next((_selector(other, each, objects) for each in objects.get(other, ()) if _place(each) == place), {})
    return selector


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects what has these labels (LabelSelectorAsSelector in apimachinery)."""
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        _meets(labels, expression["key"], expression["operator"], expression.get("values") or ())
        for expression in selector.get("matchExpressions") or ()
    )


def _meets(labels: Mapping[str, str], key: str, operator: str, values: Sequence[str]) -> bool:
    match operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case _:  # DoesNotExist; the API knows no others
            return key not in labels
