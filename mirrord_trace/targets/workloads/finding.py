"""From a workload's name to its pods: two requests for most kinds, three for cron jobs and some rollouts."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import JOBS, PODS
from mirrord_trace.errors import Failure
from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.kinds import Kind, Object
from mirrord_trace.targets.workloads.path import WorkloadPath

_SUGGESTION_S: Final = 2.0
"""How long a search for names like the one that is not there may take."""


@attrs.frozen
class Found:
    """A workload and its pods, ready or not."""

    pods: Sequence[Object]
    workload: Object | None
    """None where the pods were named themselves, or by their labels."""
    selector: str = ""
    """The pods' label selector; "" for a pod that was named itself, and where nothing selects any."""


async def find_pods(api: ApiServer, path: WorkloadPath, namespace: str) -> Found:
    """The pods of a workload. Raises `Failure` when there is no such workload, or it cannot have pods."""
    if path.kind is None:
        return Found(await list_pods(api, namespace, path.name), None, path.name)
    workload = await _get(api, path.kind, namespace, path.name)
    if path.kind is kinds.POD:
        return Found([workload], None)
    selector = await _selector(api, path.kind, workload, namespace)
    return Found(await list_pods(api, namespace, selector), workload, selector)


async def find_selector(api: ApiServer, path: WorkloadPath, namespace: str) -> str:
    """The label selector of a workload's pods as it is now. Raises as `find_pods` does."""
    if path.kind is None:
        return path.name
    return await _selector(api, path.kind, await _get(api, path.kind, namespace, path.name), namespace)


async def _selector(api: ApiServer, kind: Kind, workload: Object, namespace: str) -> str:
    """The selector of a workload's pods; "" for a cron job without jobs. Raises `Failure` where there is none."""
    name = f"{kind.name}/{workload['metadata']['name']} in namespace {namespace}"
    if kind is kinds.CRON_JOB:
        jobs = await _asked(lambda: api.list(JOBS, namespace), f"list the jobs of {name}")
        return kinds.selector_of_jobs(workload, jobs)
    selector = kinds.selector_of(kind, workload)
    if selector:
        return selector
    if kind is kinds.SERVICE:
        raise Failure(
            f"{name} has no selector: where it leads is no matter of pods' labels",
            "Name a pod, or the workload that has the pods.",
        )
    referred = kinds.workload_of_rollout(workload) if kind is kinds.ROLLOUT else None
    if referred is not None:
        return await _selector(api, referred[0], await _get(api, referred[0], namespace, referred[1]), namespace)
    raise Failure(f"{name} has no selector, so it has no pods that one could tell", "Name a pod.")


async def list_pods(api: ApiServer, namespace: str, selector: str) -> Sequence[Object]:
    """The pods that a selector chooses; "" chooses none. Raises `Failure`."""
    if not selector:
        return []
    return await _asked(
        lambda: api.list(PODS, namespace, label_selector=selector), f"list the pods with {selector} in {namespace}"
    )


async def _get(api: ApiServer, kind: Kind, namespace: str, name: str) -> Object:
    try:
        return await api.get(kind.resource, namespace, name)
    except ApiRefusal as refusal:
        if refusal.status != 404:
            raise failure(refusal, f"find {kind.name}/{name}") from refusal
        if not refusal.details.get("name"):
            # Not the object is unknown, but the kind.
            advice = "Argo Rollouts is not installed there." if kind is kinds.ROLLOUT else None
            raise Failure(
                f"the cluster knows no {kind.resource}, so there is no {kind.name}/{name}", advice
            ) from refusal
        raise Failure(
            f"there is no {kind.name}/{name} in namespace {namespace}", await _suggestion(api, kind, namespace, name)
        ) from refusal


async def _suggestion(api: ApiServer, kind: Kind, namespace: str, name: str) -> str:
    """What may have been meant, if the user may list such objects."""
    names: list[str] = []
    with trio.move_on_after(_SUGGESTION_S):
        try:
            names = [one["metadata"]["name"] for one in await api.list(kind.resource, namespace)]
        except (ApiRefusal, Failure):
            names = []  # what failed is said anyway, this was to help
    alike = difflib.get_close_matches(name, names, n=3)
    meant = f"Is it {' or '.join(f'{kind.name}/{one}' for one in alike)}? " if alike else ""
    return (
        f"{meant}`mirrord-trace ls -n {namespace}` lists what there is; -n/--target-namespace names another namespace."
    )


async def _asked(ask: Callable[[], Awaitable[Sequence[Object]]], doing: str) -> Sequence[Object]:
    try:
        return await ask()
    except ApiRefusal as refusal:
        raise failure(refusal, doing) from refusal
