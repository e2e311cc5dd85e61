"""Events, as components record them: one object for each thing that happens to an object, counted when it repeats."""

from __future__ import annotations

import attrs

from mirrord_trace.cluster.resources import EVENTS

from .store import Object, Store, now


@attrs.frozen
class Recorder:
    """Records what one component has to say."""

    store: Store
    component: str
    host: str = ""

    def record(self, about: Object, kind: str, reason: str, message: str, *, field: str = "") -> None:
        """Records an event, of kind Normal or Warning, about an object or a field of it."""
        involved = {
            "kind": about["kind"],
            "apiVersion": about["apiVersion"],
            "name": about["metadata"]["name"],
            "uid": about["metadata"]["uid"],
            "resourceVersion": about["metadata"]["resourceVersion"],
        }
        # What is in no namespace has its events in this one.
        namespace = about["metadata"].get("namespace", "default")
        if "namespace" in about["metadata"]:
            involved["namespace"] = namespace
        if field:
            involved["fieldPath"] = field
        for known in self.store.list(EVENTS, namespace):
            same = known["involvedObject"]["uid"] == involved["uid"] and known["reason"] == reason
            if same and known["message"] == message and known["involvedObject"].get("fieldPath", "") == field:
                self.store.patch(
                    EVENTS,
                    namespace,
                    known["metadata"]["name"],
                    {"count": known["count"] + 1, "lastTimestamp": now()},
                )
                return
        source = {"component": self.component} | ({"host": self.host} if self.host else {})
        self.store.put(
            EVENTS,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": f"{involved['name']}.{self.store.version:016x}", "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "source": source,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "count": 1,
                "type": kind,
                "eventTime": None,
                "reportingComponent": self.component,
                "reportingInstance": self.host,
            },
        )
