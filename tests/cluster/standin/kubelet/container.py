"""One container of a pod, from waiting for its image to its last end: pulls, starts, probes, restarts."""

from __future__ import annotations

import os
import secrets
import signal

import attrs
import trio

from ..containers.client import RuntimeRefused
from ..containers.specification import Container
from ..store import Object, now
from .environment import ConfigurationTrouble
from .images import ImageTrouble, image_status
from .logs import Log
from .pod_state import PodState
from .probes import probe
from .status import ContainerRecord, running, terminated, waiting
from .translation import translate

_NEVER_RAN = 128
"""The exit code of a container that could not be started."""
_RUNC = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: "
)


@attrs.define(eq=False)
class ContainerWorker:
    """Runs one container as its policy says."""

    pod: PodState
    specification: Object
    field: str
    """Which list of the pod's spec it is in."""
    policy: str
    """Always, OnFailure or Never."""
    record: ContainerRecord
    log: Log = attrs.field(factory=Log)
    """Of its last start."""
    started: trio.Event = attrs.field(factory=trio.Event)
    """Set once it has run, or never will."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when it will not run again."""
    pid: int | None = None
    """Of its first process, as this process sees it, while it runs."""
    _stopped: bool = False
    _unstarted: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Runs until the container has ended for good."""
        back_off_s = 0.0
        try:
            while not self._stopped:
                reading = -1
                self._unstarted = trio.CancelScope()
                with self._unstarted:
                    if back_off_s:
                        await self._back_off(back_off_s)
                    reading = await self._start()
                if self._unstarted.cancelled_caught:
                    return
                failed = reading < 0 or await self._live(reading) != 0
                if self.policy == "Never" or (self.policy == "OnFailure" and not failed):
                    return
                if self.record.restarts:
                    back_off_s = back_off_s * 2 or self.pod.surroundings.pace.crash_back_off_s
        finally:
            self.log.end()
            self.started.set()
            self.ended.set()

    async def stop(self) -> None:
        """Asks it to end: SIGTERM where it runs, and no further start."""
        self._stopped = True
        self._unstarted.cancel()
        if "running" in self.record.state:
            self._tell("Normal", "Killing", f"Stopping container {self.record.name}")
            await self.pod.surroundings.runtime.signal(self.record.container_id, signal.SIGTERM)

    async def remove(self) -> None:
        """Ends it with all that it has left."""
        self._stopped = True
        self._unstarted.cancel()
        if self.record.container_id:
            await self.pod.surroundings.runtime.remove(self.record.container_id)

    async def _back_off(self, seconds: float) -> None:
        name = self.record.name
        message = f"back-off {seconds:g}s restarting failed container={name} pod={self.pod.full_name}"
        self.record.last_state = self.record.state
        self._say(waiting("CrashLoopBackOff", message))
        self._tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {self.pod.full_name}")
        await trio.sleep(seconds)

    async def _start(self) -> int:
        """Starts it once: the pipe of its output, or -1 where its program cannot be started."""
        await self._pull()
        identity = secrets.token_hex(32)
        container = await self._translate(identity)
        if self.record.container_id:
            self.record.restarts += 1
        # Known before it is there, so that whoever takes the pod down meanwhile finds it.
        self.record.container_id = identity
        self._tell("Normal", "Created", "Container created")
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = (await self.pod.surroundings.runtime.start(container, writing, writing)).pid
        except BaseException as error:
            os.close(reading)
            if not isinstance(error, RuntimeRefused):
                raise
            self._tell("Warning", "Failed", f"Error: {_RUNC}{error}")
            self._say(terminated(_NEVER_RAN, now(), identity, reason="StartError", message=f"{_RUNC}{error}"))
            return -1
        finally:
            os.close(writing)
        return reading

    async def _live(self, reading: int) -> int:
        """Waits for its end while it runs: its exit code, or the negative number of a signal."""
        runtime, identity = self.pod.surroundings.runtime, self.record.container_id
        self.log = Log()
        self._tell("Normal", "Started", "Container started")
        if "terminated" in self.record.state:
            self.record.last_state = self.record.state
        asked = self.specification.get("readinessProbe")
        self.record.ready = asked is None
        self._say(running())
        self.started.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.log.take, reading)
            with trio.CancelScope() as probing:
                async with trio.open_nursery() as probes:
                    if asked is not None:
                        probes.start_soon(self._probe, asked)
                    status = await runtime.wait(identity)
                    probing.cancel()
            # What it has left behind holds its output.
            await runtime.remove(identity)
        self.record.ready = False
        self.pid = None
        self._say(terminated(status, self.record.state["running"]["startedAt"], identity))
        return status

    async def _probe(self, asked: Object) -> None:
        surroundings = self.pod.surroundings
        period_s = asked.get("periodSeconds", 10)
        pause_s = min(surroundings.pace.first_probe_s, period_s)
        while True:
            trouble = await probe(surroundings.nodes_network, self.pod.address, self.specification, asked)
            if trouble is not None:
                self._tell("Warning", "Unhealthy", f"Readiness probe failed: {trouble}")
            if self.record.ready != (trouble is None):
                self.record.ready = trouble is None
                self.pod.publish()
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, period_s)

    async def _pull(self) -> None:
        """Waits until the image is on the node."""
        registry, pace = self.pod.surroundings.registry, self.pod.surroundings.pace
        name = self.record.image
        policy = self.specification.get("imagePullPolicy", "IfNotPresent")
        secrets_named = {entry["name"] for entry in self.pod.object["spec"].get("imagePullSecrets", [])}
        while True:
            try:
                if registry.needs_pull(name, policy):
                    self._tell("Normal", "Pulling", f'Pulling image "{name}"')
                    await registry.pull(name, secrets_named)
                    self._tell("Normal", "Pulled", f'Successfully pulled image "{name}"')
                else:
                    self._tell("Normal", "Pulled", f'Container image "{name}" already present on machine')
            except ImageTrouble as trouble:
                await self._report_image(trouble)
                await trio.sleep(pace.image_back_off_s)
            else:
                self.record.image_status = image_status(name)
                return

    async def _report_image(self, trouble: ImageTrouble) -> None:
        name = self.record.image
        self._say(waiting(trouble.reason, trouble.message))
        if trouble.reason != "ErrImagePull":
            self._tell("Warning", "Failed", trouble.message)
            self._tell("Warning", "Failed", f"Error: {trouble.reason}")
            return
        self._tell("Warning", "Failed", f'Failed to pull image "{name}": {trouble.message}')
        self._tell("Warning", "Failed", "Error: ErrImagePull")
        await trio.sleep(self.pod.surroundings.pace.image_error_s)
        self._say(waiting("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: {trouble.message}'))
        self._tell("Normal", "BackOff", f'Back-off pulling image "{name}"')
        self._tell("Warning", "Failed", "Error: ImagePullBackOff")

    async def _translate(self, identity: str) -> Container:
        """Waits until all that the container's configuration names is there."""
        pod, container = self.pod, self.specification
        image = pod.surroundings.registry.images[self.record.image]
        while True:
            try:
                target = container.get("targetContainerName")
                return translate(
                    pod.object,
                    container,
                    image,
                    identity=identity,
                    sandbox=pod.sandbox,
                    target=pod.identity_of(target) if target else None,
                    volumes=pod.volumes,
                    find=pod.find,
                )
            except ConfigurationTrouble as trouble:
                self._say(waiting("CreateContainerConfigError", str(trouble)))
                self._tell("Warning", "Failed", f"Error: {trouble}")
                await trio.sleep(pod.surroundings.pace.retry_s)

    def _say(self, state: Object) -> None:
        self.record.state = state
        self.pod.publish()

    def _tell(self, kind: str, reason: str, message: str) -> None:
        self.pod.tell(kind, reason, message, field=f"spec.{self.field}{{{self.record.name}}}")
