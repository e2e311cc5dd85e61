"""What the API needs of the rest of a cluster, and what the rest may ask of the API.

The API server keeps objects and nothing else. That a Job gets pods, that pods run, log and listen is the work of
controllers and kubelets: the machinery. It runs in the same Trio loop, reads and writes the store, and where it acts in
a user's stead asks the API, which may refuse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio

from mirrord_trace.cluster.resources import Resource

from .http import Connection, Request, Response
from .store import Object, Store

Dial = Callable[[int], Awaitable[trio.SocketStream]]
"""Connects to a port on a pod's loopback. Raises OSError."""


class PortForward(Protocol):
    """Serves a request for `pods/portforward` that is authorized and whose pod exists."""

    async def __call__(self, connection: Connection, request: Request, pod: Object, dial: Dial) -> Response | None:
        """Answers the upgrade on `connection.stream` and pumps until an end; or returns the answer that refuses it.

        What `connection.trailing` holds came after the request. It is cancelled where a fault cuts the connection.
        """
        ...


class Kubelet(Protocol):
    """What the API server asks of the node on which a pod runs."""

    def log(self, pod: Object, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """What a container has written, in pieces of any size; with `follow` also what it writes until it ends."""
        ...

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        """Connects to a port on the pod's loopback. Raises OSError."""
        ...


class ControlPlane(Protocol):
    """The API server as the machinery sees it, from within."""

    store: Store
    """Everything, with no rules. What controllers and kubelets report goes straight into it."""

    def create(self, resource: Resource, namespace: str | None, value: Object, *, user: str) -> Object:
        """Creates an object in a component's name: with schema, defaults, validation and admission, without RBAC.

        Raises `status.Refused`, whose message is what a controller puts into its FailedCreate events.
        """
        ...


class Machinery(Kubelet, Protocol):
    """Controllers, scheduler and nodes."""

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        """Does their work until it is cancelled; reports as started when it watches the store."""
        ...
