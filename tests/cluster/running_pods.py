"""What tests of running pods share: pods of Python programs, and ways to wait for what becomes of them."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from functools import partial

import attrs
import trio

from mirrord_trace.cluster.resources import EVENTS, PODS
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.shop import SHOP_IMAGE
from tests.cluster.standin.store import Object, Store

_PATIENCE_S = 20.0
PYTHON = ["/usr/bin/python3.11", "-c"]
WAIT = "import signal; print('ready', flush=True); signal.pause()"


def pod(program: str = WAIT, *, name: str = "web", containers: list[Object] | None = None, **spec: object) -> Object:
    """A pod in namespace shop whose only container runs a Python program, or with these containers."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": containers or [container("web", program)], **spec},
    }


def container(name: str, program: str = WAIT, **fields: object) -> Object:
    return {"name": name, "image": SHOP_IMAGE, "command": PYTHON, "args": [program], **fields}


def wait_for_pod(cluster: Cluster, check: Callable[[Object], object], name: str = "web") -> Object:
    """The pod, once the check is true of it."""

    def look(store: Store) -> Object | None:
        found = store.find(PODS, "shop", name)
        return found if found is not None and check(found) else None

    return cluster.wait_until(look)


def state_of(pod: Object, name: str = "web") -> Object:
    """The state of a container, of whatever kind; {} before there is one."""
    lists = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    statuses = [status for one in lists for status in pod.get("status", {}).get(one, [])]
    state: Object = next((status["state"] for status in statuses if status["name"] == name), {})
    return state


def waits_for(reason: str) -> Callable[[Object], bool]:
    return lambda pod: state_of(pod).get("waiting", {}).get("reason") == reason


def events(cluster: Cluster, name: str = "web") -> list[tuple[str, str]]:
    """Reasons and messages of what happened to an object."""
    found = [one for one in cluster.list(EVENTS, "shop") if one["involvedObject"]["name"] == name]
    return [(one["reason"], one["message"]) for one in sorted(found, key=lambda one: one["metadata"]["name"])]


def wait_for_event(cluster: Cluster, reason: str) -> None:
    """Waits until something has happened, to whatever object."""
    cluster.wait_until(lambda store: True if any(one["reason"] == reason for one in store.list(EVENTS)) else None)


def wait_until_gone(cluster: Cluster, name: str = "web") -> None:
    """Waits until the API server no longer knows a pod."""
    cluster.wait_until(lambda store: True if store.find(PODS, "shop", name) is None else None)


def hold_process(cluster: Cluster, nodes: Nodes, name: str = "web") -> int:
    """A pidfd of the first process of a pod's container web."""
    return os.pidfd_open(cluster.in_loop(partial(nodes.pid, "shop", name, "web")))


def wait_for_end(process: int) -> None:
    """Waits until the process of a pidfd has ended, and closes it."""

    async def wait() -> None:
        with trio.fail_after(_PATIENCE_S):
            await trio.lowlevel.wait_readable(process)

    trio.run(wait)
    os.close(process)


@attrs.define
class Log:
    """What a container writes, read while it does."""

    _pieces: queue.Queue[bytes | None]
    _unread: bytes = b""

    @classmethod
    def of(cls, cluster: Cluster, nodes: Nodes, pod: Object, container: str = "web") -> Log:
        """Begins to read."""
        pieces: queue.Queue[bytes | None] = queue.Queue()

        async def read() -> None:
            async for piece in nodes.log(pod, container, follow=True):
                pieces.put(piece)
            pieces.put(None)

        cluster.in_loop(lambda: trio.lowlevel.spawn_system_task(read))
        return cls(pieces)

    def line(self) -> str:
        """The next line."""
        while b"\n" not in self._unread:
            piece = self._pieces.get(timeout=_PATIENCE_S)
            assert piece is not None, f"the container ended: {self._unread!r}"
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def rest(self) -> str:
        """All that comes, up to the container's end."""
        while (piece := self._pieces.get(timeout=_PATIENCE_S)) is not None:
            self._unread += piece
        rest, self._unread = self._unread, b""
        return rest.decode()
