"""An API server without a server: what there is, what it refuses and how long it takes is a script.

For what needs a clock of its own: `tests/cluster` has the real flows. `api` is a `ScriptedApi` where an `ApiServer` is
wanted.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.refusals import Request
from mirrord_trace.cluster.resources import EVENTS, POD_LOGS, PODS, Resource
from mirrord_trace.errors import Failure

Object = dict[str, Any]
Objects = list[Object]
Warnings = list[str]


def refusal(
    verb: str, resource: Resource, status: int, message: str = "no", *, repeated: bool = False, **details: Any
) -> ApiRefusal:
    reason = {403: "Forbidden", 404: "NotFound", 409: "AlreadyExists"}.get(status, "InternalError")
    return ApiRefusal(Request(verb, resource, "shop", "x"), status, reason, message, details, repeated=repeated)


@attrs.define(eq=False)
class ScriptedApi:
    """Objects by kind and name, in one namespace."""

    namespace: str = "shop"
    objects: dict[tuple[Resource, str], Object] = attrs.field(factory=dict)
    refuses: dict[tuple[str, Resource], ApiRefusal | Failure] = attrs.field(factory=dict)
    """By verb and kind."""
    takes_s: dict[str, float] = attrs.field(factory=dict)
    """By verb: how long until it is done."""
    answers_after_s: dict[str, float] = attrs.field(factory=dict)
    """By verb: how long from then to the answer."""
    selectors: list[str] = attrs.field(factory=list)
    """Of the lists."""
    log_lines: list[str] = attrs.field(factory=list)
    log_ends: bool = False
    asked: int = 0
    creations: int = 0
    """How often something was to be made."""
    _abandoned: list[tuple[float, Resource, Object]] = attrs.field(factory=list)
    """What is made at a time, and nobody waits for."""
    _changes: Any = attrs.field(factory=lambda: trio.open_memory_channel[tuple[str, Object]](math.inf))

    @property
    def api(self) -> ApiServer:
        return cast(ApiServer, self)

    def has(self, kind: Resource, *objects: Object) -> None:
        for one in objects:
            self.objects[kind, one["metadata"]["name"]] = one

    def tell(self, kind: str, pod: Object) -> None:
        """A change of a pod, for who watches."""
        self.has(PODS, pod)
        self._changes[0].send_nowait((kind, pod))

    async def _begin(self, verb: str, kind: Resource) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        for made_at, made, body in self._abandoned:
            if made_at <= trio.current_time():
                self.has(made, body)
        self._abandoned = [one for one in self._abandoned if one[0] > trio.current_time()]
        if (verb, kind) in self.refuses:
            raise self.refuses[verb, kind]
        await trio.sleep(self.takes_s.get(verb, 0))

    async def _answer(self, verb: str) -> None:
        await trio.sleep(self.answers_after_s.get(verb, 0))

    async def get(self, kind: Resource, namespace: str, name: str) -> Object:
        await self._begin("get", kind)
        if (kind, name) not in self.objects:
            raise refusal("get", kind, 404, f'{kind} "{name}" not found', name=name)
        return self.objects[kind, name]

    async def list(
        self, kind: Resource, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        await self._begin("list", kind)
        self.selectors.append(label_selector or field_selector)
        return [one for (of, _), one in self.objects.items() if of == kind]

    async def create(self, kind: Resource, namespace: str, body: Object) -> tuple[Object, Warnings]:
        self.creations += 1
        began = trio.current_time()
        try:
            await self._begin("create", kind)
        except trio.Cancelled:
            self._abandoned.append((began + self.takes_s.get("create", 0), kind, body))
            raise
        self.has(kind, body)
        await self._answer("create")
        return body, ["a warning"]

    async def patch(self, kind: Resource, namespace: str, name: str, body: Object, **_: str) -> Object:
        await self._begin("patch", kind)
        self.objects[kind, name] = body
        await self._answer("patch")
        return body

    async def delete(self, kind: Resource, namespace: str, name: str) -> bool:
        await self._begin("delete", kind)
        return self.objects.pop((kind, name), None) is not None

    @asynccontextmanager
    async def watch(self, kind: Resource, namespace: str, **_: str) -> AsyncIterator[Any]:
        await self._begin("watch", kind)
        yield self._changes[1]

    @asynccontextmanager
    async def log(self, namespace: str, pod: str, container: str, *, follow: bool) -> AsyncIterator[AsyncIterator[str]]:
        async def lines() -> AsyncIterator[str]:
            for line in self.log_lines:
                await trio.lowlevel.checkpoint()
                yield line
            if not self.log_ends:
                await trio.sleep_forever()

        await self._begin("get", POD_LOGS)
        yield lines()

    def event(self, event: Object) -> None:
        self.has(EVENTS, event)


class Told:
    """A reporter that keeps what it is told; also its own only step."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.reasons: list[str] = []

    def waiting(self, reason: str) -> None:
        self.reasons.append(reason)

    def detail(self, text: str) -> None:
        self.reasons.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)
