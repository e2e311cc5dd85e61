"""How controllers work: look at everything, do what is missing, wait until something changes or is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from mirrord_trace.cluster.resources import Resource

from ..store import Gone, Store


async def reconcile(
    store: Store,
    resources: Sequence[Resource],
    work: Callable[[], float | None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Does the work now, at each change of these resources, and in so many seconds as it says itself; without end."""
    task_status.started()
    while True:
        seen = store.version
        due_s = work()
        with trio.move_on_after(float("inf") if due_s is None else due_s):
            while not any(_has_changed(store, resource, seen) for resource in resources):
                await store.news.wait()
        # Other tasks have their turn even when the work itself changes something each time.
        await trio.lowlevel.checkpoint()


def _has_changed(store: Store, resource: Resource, since: int) -> bool:
    try:
        return bool(store.since(resource, since))
    except Gone:
        return True
