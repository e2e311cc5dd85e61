"""One pod on its node: sandbox, volumes, containers in their order, ephemeral ones as they come, and the end."""

from __future__ import annotations

import os
import secrets
import shutil

import trio

from mirrord_trace.cluster.resources import PODS

from ..containers.network import within
from ..containers.specification import Processes, Sandbox
from ..pod_facts import is_being_deleted
from ..store import Object
from . import volumes
from .container import ContainerWorker
from .environment import ConfigurationTrouble, hostname
from .pod_state import PodState
from .status import ContainerRecord, container_cgroup, waiting


class PodWorker:
    """Makes a pod real, and takes it down again."""

    def __init__(self, state: PodState) -> None:
        self.state = state
        self._workers: dict[str, ContainerWorker] = {}
        self._launched: list[ContainerWorker] = []
        self._deleted = trio.Event()
        self._changed = trio.Event()
        self._grace_s = 0.0
        spec = state.object["spec"]
        first = waiting("PodInitializing" if spec.get("initContainers") else "ContainerCreating")
        self._init = [self._make_worker(one, "initContainers", first) for one in spec.get("initContainers", [])]
        self._main = [self._make_worker(one, "containers", first) for one in spec["containers"]]
        state.init = [worker.record for worker in self._init if worker.policy != "Always"]
        state.sidecars = [worker.record for worker in self._init if worker.policy == "Always"]
        state.main = [worker.record for worker in self._main]

    def container(self, name: str) -> ContainerWorker | None:
        """The worker of a container, of whatever kind."""
        return self._workers.get(name)

    def update(self, pod: Object) -> None:
        """Takes note of the pod as it is now: its end, more ephemeral containers, what its volumes show."""
        self.state.object = pod
        if is_being_deleted(pod):
            self._end(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        self.refresh_volumes()
        self._wake()

    def refresh_volumes(self) -> None:
        """Brings the volumes up to date. What is missing now stays as it was, as in reality."""
        if self.state.volumes:
            try:
                volumes.set_up(self.state.object, self._directory, self.state.find)
            except ConfigurationTrouble as trouble:
                self.state.tell("Warning", "FailedMount", str(trouble))

    def remove_at_once(self) -> None:
        """Takes note that the pod is no longer in the cluster."""
        self._end(0)

    async def dial(self, port: int) -> trio.SocketStream:
        """Connects to a port on the pod's loopback. Raises OSError."""
        trouble: OSError | None = None
        for family, address in ((trio.socket.AF_INET, "127.0.0.1"), (trio.socket.AF_INET6, "::1")):
            if self.state.network < 0:
                raise ConnectionError("the pod has no network: its sandbox is gone")
            with within(self.state.network):
                socket = trio.socket.socket(family)
            try:
                await socket.connect((address, port))
            except OSError as error:
                socket.close()
                trouble = trouble or error
            else:
                return trio.SocketStream(socket)
        assert trouble is not None
        raise trouble

    async def run(self) -> None:
        """Runs the pod until it has been deleted and is gone."""
        self.state.publish()
        try:
            async with trio.open_nursery() as background:
                background.start_soon(self._live, background)
                await self._deleted.wait()
                await self._stop()
                background.cancel_scope.cancel()
            await self._take_down()
            self._forget()
        finally:
            # Also where the node is gone: the descriptor alone would keep the namespace.
            self._close_network()

    async def _live(self, background: trio.Nursery) -> None:
        await self._make_sandbox()
        await self._set_up_volumes()
        background.start_soon(self._start_ephemeral, background)
        if await self._initialize(background):
            for worker in self._main:
                self._launch(worker, background)
            for worker in self._main:
                await worker.ended.wait()
        for worker in self._launched:
            await worker.stop()
            await worker.remove()
        self.state.publish()
        await self._take_down()

    async def _initialize(self, background: trio.Nursery) -> bool:
        """Runs the init containers, one after the other: whether all succeeded."""
        for worker in self._init:
            self._launch(worker, background)
            if worker.policy == "Always":
                await worker.started.wait()
                continue
            await worker.ended.wait()
            if worker.record.terminated is None or worker.record.terminated["exitCode"] != 0:
                return False
        return True

    async def _start_ephemeral(self, background: trio.Nursery) -> None:
        while True:
            changed = self._changed
            for one in self.state.object["spec"].get("ephemeralContainers", []):
                if one["name"] not in self._workers:
                    worker = self._make_worker(one, "ephemeralContainers", waiting("ContainerCreating"))
                    self.state.ephemeral.append(worker.record)
                    self.state.publish()
                    self._launch(worker, background)
            await changed.wait()

    async def _stop(self) -> None:
        """SIGTERM, grace, SIGKILL."""
        for worker in self._launched:
            await worker.stop()
        with trio.move_on_after(self._grace_s):
            for worker in self._launched:
                await worker.ended.wait()
        for worker in self._launched:
            await worker.remove()
            await worker.ended.wait()

    async def _make_sandbox(self) -> None:
        state, around = self.state, self.state.surroundings
        spec = state.object["spec"]
        place = None if spec.get("hostNetwork") else around.allocate()
        state.sandbox = secrets.token_hex(32)
        shared = Processes.NODE if spec.get("hostPID") else Processes.OWN
        state.network = await around.runtime.make_sandbox(
            Sandbox(state.sandbox, container_cgroup(state.object, state.sandbox), hostname(state.object), place, shared)
        )
        state.address = str(place.address) if place is not None else around.address
        state.publish()

    async def _set_up_volumes(self) -> None:
        while True:
            try:
                self.state.volumes = volumes.set_up(self.state.object, self._directory, self.state.find)
            except ConfigurationTrouble as trouble:
                self.state.tell("Warning", "FailedMount", str(trouble))
                await trio.sleep(self.state.surroundings.pace.retry_s)
            else:
                return

    async def _take_down(self) -> None:
        """Removes the sandbox and the volumes; harmless when done before."""
        state = self.state
        self._close_network()
        if state.sandbox:
            await state.surroundings.runtime.remove(state.sandbox)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _close_network(self) -> None:
        if self.state.network >= 0:
            os.close(self.state.network)
            self.state.network = -1

    def _forget(self) -> None:
        """Confirms the pod's deletion to the API server."""
        state = self.state
        found = state.surroundings.store.find(PODS, state.namespace, state.name)
        if found is not None and found["metadata"]["uid"] == state.uid:
            state.surroundings.store.delete(PODS, state.namespace, state.name)

    def _make_worker(self, specification: Object, field: str, first: Object) -> ContainerWorker:
        policy = self.state.restart_policy
        if field == "initContainers":
            # They need not run for ever, unless they say so themselves.
            policy = specification.get("restartPolicy") or ("OnFailure" if policy == "Always" else policy)
        elif field == "ephemeralContainers":
            policy = "Never"
        record = ContainerRecord(specification["name"], specification["image"], first)
        worker = ContainerWorker(self.state, specification, field, policy, record)
        self._workers[record.name] = worker
        return worker

    def _launch(self, worker: ContainerWorker, background: trio.Nursery) -> None:
        self._launched.append(worker)
        background.start_soon(worker.run)

    def _end(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._deleted.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @property
    def _directory(self) -> str:
        return f"{self.state.surroundings.directory}/{self.state.uid}"
