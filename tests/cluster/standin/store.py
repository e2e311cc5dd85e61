"""What the cluster holds, in memory: every object in its last version, and the history that watches read.

All of it is synchronous and belongs to the loop of the stand-in, so nothing needs a lock: between two awaits the world
does not change. Objects go in and out as copies, so that what somebody does to theirs changes nothing here. Each change
has a number, the resource version, of one counter for the whole cluster, as etcd's revisions are.

The store knows no rules. What may be written is for the API (or for `apply`, which is past all rules) to decide.
"""

from __future__ import annotations

import copy
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import attrs
import trio

from mirrord_trace.cluster.resources import Resource

Object = dict[str, Any]
"""An API object as JSON."""

Objects = list[Object]

HISTORY = 10_000
"""So many changes of a resource can still be watched from; older ones are "gone"."""


def now(after_s: float = 0) -> str:
    """The time as the API writes it, so many seconds from now: UTC, whole seconds (metav1.Time)."""
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with a JSON merge patch applied: RFC 7396, section 2. Changes neither."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


@attrs.frozen
class Change:
    """One step of the history."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Object
    """As it is since; of a deleted object the last state, with the resource version of its deletion."""
    previous: Object | None
    """As it was before; None where it was not."""
    version: int


class Gone(Exception):
    """The history no longer reaches back to the version that was asked for."""


class Missing(Exception):
    """There is no such object."""


class Store:
    """The objects, by resource, namespace and name. A namespace of None stands for objects that are in none."""

    def __init__(self) -> None:
        self.version = 1
        self._objects: dict[Resource, dict[tuple[str | None, str], Object]] = {}
        self._histories: dict[Resource, deque[Change]] = {}
        self._forgotten: dict[Resource, int] = {}
        self.news = trio.Event()
        """Set with the next change of anything; then another one takes its place."""

    def find(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None."""
        held = self._held(resource).get((namespace, name))
        return copy.deepcopy(held)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object. Raises Missing."""
        held = self.find(resource, namespace, name)
        if held is None:
            raise Missing(f"{resource} {namespace}/{name}")
        return held

    def list(self, resource: Resource, namespace: str | None = None) -> Objects:
        """The objects of one namespace, or of all, in the order of their keys, which is etcd's."""
        held = self._held(resource)
        keys = sorted((key for key in held if namespace in (None, key[0])), key=lambda key: (key[0] or "", key[1]))
        return [copy.deepcopy(held[key]) for key in keys]

    def put(self, resource: Resource, value: Object) -> Object:
        """Creates the object, or replaces it; returns it with what the store adds.

        A new one gets a uid and a creation time. Each write gets a resource version, each change of anything but
        metadata and status a generation. A write that changes nothing is none, as with etcd3's storage.
        """
        value = copy.deepcopy(value)
        metadata = value.setdefault("metadata", {})
        key = (metadata.get("namespace"), metadata["name"])
        held = self._held(resource)
        before = held.get(key)
        if before is None:
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", now())
            metadata.setdefault("generation", 1)
        else:
            for name in ("uid", "creationTimestamp", "generation", "resourceVersion"):
                metadata[name] = before["metadata"][name]
            if value == before:
                return copy.deepcopy(before)
            if _wish(value) != _wish(before):
                metadata["generation"] += 1
        held[key] = value
        self._record(resource, "MODIFIED" if before else "ADDED", value, before)
        return copy.deepcopy(value)

    def change(
        self, resource: Resource, namespace: str | None, name: str, how: Callable[[Object], Object | None]
    ) -> Object:
        """Changes an object by a function, which alters what it is given or returns another. Raises Missing."""
        value = self.get(resource, namespace, name)
        return self.put(resource, how(value) or value)

    def patch(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object:
        """Changes an object by a JSON merge patch (RFC 7396). Raises Missing."""
        return self.change(resource, namespace, name, lambda value: merge_patch(value, patch))

    def delete(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Removes an object at once, whatever its finalizers; returns its last state. Raises Missing."""
        value = self._held(resource).pop((namespace, name), None)
        if value is None:
            raise Missing(f"{resource} {namespace}/{name}")
        last = copy.deepcopy(value)
        self._record(resource, "DELETED", last, value)
        return copy.deepcopy(last)

    async def changes(self, resource: Resource, since: int | None = None) -> AsyncIterator[Change]:
        """All that happens to a resource after a version, without end.

        Without a version it begins with what exists, as ADDED. Raises Gone where the history does not reach back so
        far, also later, for a reader that is too slow.
        """
        if since is None:
            since = self.version
            for value in self.list(resource):
                yield Change("ADDED", value, None, int(value["metadata"]["resourceVersion"]))
        while True:
            news = self.news
            for change in self.since(resource, since):
                since = change.version
                yield copy.deepcopy(change)
            await news.wait()

    def since(self, resource: Resource, version: int) -> Sequence[Change]:
        """What happened to a resource after a version; not to be altered. Raises Gone."""
        if version < self._forgotten.get(resource, 0):
            raise Gone(f"too old resource version: {version} ({self._forgotten[resource]})")
        fresh: deque[Change] = deque()
        for change in reversed(self._histories.get(resource, ())):
            if change.version <= version:
                break
            fresh.appendleft(change)
        return fresh

    def forget(self, resource: Resource) -> None:
        """Forgets the history of a resource, as etcd's compaction does: older versions are gone."""
        self.version += 1
        self._forgotten[resource] = self.version
        self._histories.pop(resource, None)
        self._announce()

    def _held(self, resource: Resource) -> dict[tuple[str | None, str], Object]:
        return self._objects.setdefault(resource, {})

    def _record(
        self, resource: Resource, kind: Literal["ADDED", "MODIFIED", "DELETED"], value: Object, before: Object | None
    ) -> None:
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        history = self._histories.setdefault(resource, deque())
        if len(history) == HISTORY:
            self._forgotten[resource] = history.popleft().version
        history.append(Change(kind, value, before, self.version))
        self._announce()

    def _announce(self) -> None:
        self.news.set()
        self.news = trio.Event()


def _wish(value: Object) -> Object:
    """What a generation counts the changes of: all but what describes the object."""
    return {key: part for key, part in value.items() if key not in ("metadata", "status")}
