"""What the kubelet knows of one pod, and the status that it reports."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from mirrord_trace.cluster.resources import PODS, Resource

from ..store import Object, now
from .environment import ConfigurationTrouble
from .status import ContainerRecord, conditions, phase, quality_of_service
from .surroundings import Surroundings


@attrs.define(eq=False)
class PodState:
    """A pod on its node; its workers share it."""

    surroundings: Surroundings
    object: Object
    """The pod as the API server has it."""
    sandbox: str = ""
    """64 hexadecimal digits, once it has one."""
    network: int = -1
    """A descriptor of its network namespace, while it has one."""
    address: str = ""
    volumes: dict[str, str] = attrs.field(factory=dict)
    init: list[ContainerRecord] = attrs.field(factory=list)
    sidecars: list[ContainerRecord] = attrs.field(factory=list)
    """Init containers that are restarted always."""
    main: list[ContainerRecord] = attrs.field(factory=list)
    ephemeral: list[ContainerRecord] = attrs.field(factory=list)

    @property
    def namespace(self) -> str:
        """Of the pod."""
        return str(self.object["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Of the pod."""
        return str(self.object["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Of the pod."""
        return str(self.object["metadata"]["uid"])

    @property
    def full_name(self) -> str:
        """As the kubelet's messages have it."""
        return f"{self.name}_{self.namespace}({self.uid})"

    @property
    def restart_policy(self) -> str:
        """Of the pod's containers."""
        return str(self.object["spec"].get("restartPolicy", "Always"))

    def find(self, resource: Resource, name: str) -> Object | None:
        """An object of the pod's namespace, or None."""
        return self.surroundings.store.find(resource, self.namespace, name)

    def identity_of(self, container: str) -> str:
        """The id of a container that runs. Raises ConfigurationTrouble."""
        for record in self.main:
            if record.name == container and "running" in record.state:
                return record.container_id
        raise ConfigurationTrouble(f'target container "{container}" is not running')

    def tell(self, kind: str, reason: str, message: str, *, field: str = "") -> None:
        """Records an event about the pod, or about a field of it."""
        self.surroundings.recorder.record(self.object, kind, reason, message, field=field)

    def publish(self) -> None:
        """Writes the pod's status, if the pod is still there."""
        self._change(self._describe)

    def reject(self, reason: str, message: str) -> None:
        """Writes that the node does not take the pod."""
        self.tell("Warning", reason, message)

        def describe(pod: Object) -> None:
            pod.setdefault("status", {}).update(phase="Failed", reason=reason, message=message, startTime=now())

        self._change(describe)

    def _change(self, how: Callable[[Object], None]) -> None:
        store = self.surroundings.store
        found = store.find(PODS, self.namespace, self.name)
        if found is not None and found["metadata"]["uid"] == self.uid:
            how(found)
            self.object = store.put(PODS, found)

    def _describe(self, pod: Object) -> None:
        status = pod.setdefault("status", {})
        status["phase"] = phase(self.restart_policy, self.init, self.main)
        status["conditions"] = conditions(status.get("conditions", []), status["phase"], self.init, self.main)
        status["hostIP"] = self.surroundings.address
        status["hostIPs"] = [{"ip": self.surroundings.address}]
        if self.address:
            status["podIP"] = self.address
            status["podIPs"] = [{"ip": self.address}]
        status.setdefault("startTime", now())
        status["qosClass"] = quality_of_service(pod)
        for field, records in (
            ("initContainerStatuses", [*self.init, *self.sidecars]),
            ("containerStatuses", self.main),
            ("ephemeralContainerStatuses", self.ephemeral),
        ):
            if records:
                status[field] = [record.to_status() for record in records]
