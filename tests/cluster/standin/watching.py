"""Watches: what happens to the objects of a resource, as a stream of JSON, one event a line.

After k8s.io/apiserver's watch cache. Without a version, or from "0", a watch begins with what exists. An object that
begins to be selected is added to the watcher, one that ceases to be is deleted, whatever really happened to it.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import attrs
import trio

from .http import Request
from .kinds import Kind
from .selectors import Selection, selection
from .status import Refused, expired, invalid
from .store import Change, Gone, Object, Store

BOOKMARKS_EVERY_S = 60.0
"""About so often a watcher that wants bookmarks gets one (bookmarkFrequency)."""
LEAST_TIMEOUT_S = 1800
"""Without a timeout a watch lasts between this and twice as long (--min-request-timeout)."""


@attrs.frozen
class Watch:
    """What a watcher asks for."""

    kind: Kind
    namespace: str | None
    selected: Selection
    since: int | None
    """None: begin with what exists."""
    timeout_s: float
    bookmarks: bool
    marks_initial: bool
    """Whether a bookmark marks the end of what existed (sendInitialEvents)."""

    @classmethod
    def of(cls, kind: Kind, namespace: str | None, request: Request) -> Watch:
        """Reads a request. Raises Refused."""
        version = request.parameter("resourceVersion")
        if version and not version.isdigit():
            error = invalid("resourceVersion", version, f'strconv.ParseUint: parsing "{version}": invalid syntax')
            raise Refused(400, "BadRequest", str(error))
        initial = request.flag("sendInitialEvents")
        timeout = request.parameter("timeoutSeconds")
        return cls(
            kind=kind,
            namespace=namespace,
            selected=selection(kind.resource, request.parameter("labelSelector"), request.parameter("fieldSelector")),
            since=None if initial or version in ("", "0") else int(version),
            timeout_s=float(timeout) if timeout else LEAST_TIMEOUT_S * (1 + random.random()),
            bookmarks=request.flag("allowWatchBookmarks"),
            marks_initial=initial,
        )

    async def events(self, store: Store) -> AsyncGenerator[bytes, None]:
        """The stream, until its time is over."""
        resource = self.kind.resource
        ends = trio.current_time() + self.timeout_s
        version = store.version if self.since is None else self.since
        if self.since is None:
            for value in store.list(resource, self.namespace):
                if self.selected.holds(value):
                    yield _line("ADDED", value)
            if self.marks_initial:
                yield self._bookmark(version, {"k8s.io/initial-events-end": "true"})
        marked = trio.current_time()
        while True:
            news = store.news
            try:
                changes = store.since(resource, version)
            except Gone as error:
                yield _line("ERROR", expired(str(error)).body)
                return
            for change in changes:
                version = change.version
                for line in self._told(change):
                    yield line
            with trio.move_on_at(min(ends, marked + BOOKMARKS_EVERY_S)) as waiting:
                await news.wait()
            if waiting.cancelled_caught:
                marked = trio.current_time()
                if self.bookmarks:
                    yield self._bookmark(store.version if news is store.news else version)
                if marked >= ends:
                    return

    def _told(self, change: Change) -> Iterator[bytes]:
        if self.namespace not in (None, change.object["metadata"].get("namespace")):
            return
        before = change.previous is not None and self.selected.holds(change.previous)
        after = change.type != "DELETED" and self.selected.holds(change.object)
        if before and not after and change.type != "DELETED":
            last = {**(change.previous or {})}
            version = change.object["metadata"]["resourceVersion"]
            yield _line("DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": version}})
        elif before or after:
            yield _line("DELETED" if not after else "MODIFIED" if before else "ADDED", change.object)

    def _bookmark(self, version: int, annotations: dict[str, str] | None = None) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        return _line("BOOKMARK", {"kind": self.kind.name, "apiVersion": self.kind.api_version, "metadata": metadata})


def _line(kind: str, value: Object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"
