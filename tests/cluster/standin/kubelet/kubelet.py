"""A node's kubelet: takes the pods that are bound to it, and serves the API server's questions about them."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import trio

from mirrord_trace.cluster.resources import PODS, Resource

from ..kinds import CONFIG_MAPS, NODES, SECRETS
from ..pod_facts import is_being_deleted, is_finished
from ..scheduling import rejection
from ..store import Change, Gone, Object
from .pod import PodWorker
from .pod_state import PodState
from .surroundings import Surroundings


class Kubelet:
    """The kubelet of one node, while the node runs."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._workers: dict[str, PodWorker] = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Does its work until the node is gone."""
        async with trio.open_nursery() as nursery:
            for resource in (CONFIG_MAPS, SECRETS):
                nursery.start_soon(self._watch_configuration, resource)
            nursery.start_soon(self._watch_pods, nursery)
            task_status.started()
            await self.surroundings.runtime.gone.wait()
            nursery.cancel_scope.cancel()

    def worker(self, pod: Object) -> PodWorker | None:
        """The worker of a pod, if it is here."""
        return self._workers.get(pod["metadata"]["uid"])

    async def log(self, pod: Object, container: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What a container has written since its last start."""
        worker = self.worker(pod)
        found = worker.container(container) if worker is not None else None
        if found is not None:
            async with aclosing(found.log.read(follow=follow)) as pieces:
                async for piece in pieces:
                    yield piece

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        """Connects to a port on the pod's loopback. Raises OSError."""
        worker = self.worker(pod)
        if worker is None:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return await worker.dial(port)

    async def _watch_pods(self, nursery: trio.Nursery) -> None:
        store = self.surroundings.store
        while True:
            try:
                async for change in store.changes(PODS):
                    self._take(change, nursery)
            except Gone:
                present = {pod["metadata"]["uid"] for pod in store.list(PODS)}
                for uid, worker in self._workers.items():
                    if uid not in present:
                        worker.remove_at_once()

    async def _watch_configuration(self, resource: Resource) -> None:
        while True:
            with suppress(Gone):
                async for change in self.surroundings.store.changes(resource):
                    for worker in self._workers.values():
                        if worker.state.namespace == change.object["metadata"]["namespace"]:
                            worker.refresh_volumes()

    def _take(self, change: Change, nursery: trio.Nursery) -> None:
        pod = change.object
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.remove_at_once() if change.type == "DELETED" else worker.update(pod)
        elif change.type != "DELETED" and pod["spec"].get("nodeName") == self.surroundings.node:
            self._admit(pod, nursery)

    def _admit(self, pod: Object, nursery: trio.Nursery) -> None:
        if is_finished(pod):
            if is_being_deleted(pod):
                self.surroundings.store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
            return
        node = self.surroundings.store.find(NODES, None, self.surroundings.node)
        if node is None:  # it was taken out of the cluster, and is about to be switched off
            return
        state = PodState(self.surroundings, pod)
        others = [other.state.object for other in self._workers.values()]
        refused = rejection(pod, node, others)
        if refused is not None:
            state.reject(*refused)
            return
        worker = PodWorker(state)
        self._workers[state.uid] = worker
        nursery.start_soon(self._run, worker)
        if is_being_deleted(pod):
            worker.update(pod)

    async def _run(self, worker: PodWorker) -> None:
        await worker.run()
        del self._workers[worker.state.uid]
