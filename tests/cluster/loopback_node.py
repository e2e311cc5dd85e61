"""A cluster with one pod whose ports are those of this machine: services in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.interfaces import ControlPlane
from tests.cluster.standin.store import Object


class LoopbackNode:
    """Machinery that does nothing but connect."""

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        """Until it is cancelled."""
        task_status.started()
        await trio.sleep_forever()

    async def log(self, pod: Object, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Nothing is ever written."""
        yield b""

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        """A port of this machine. Raises OSError."""
        socket = trio.socket.socket()
        try:
            await socket.connect(("127.0.0.1", port))
        except OSError:
            socket.close()
            raise
        return trio.SocketStream(socket)


@contextmanager
def cluster_with_pod(directory: Path) -> Iterator[Cluster]:
    """Its pod is web-1 in the namespace shop, and runs."""
    with Cluster(directory / "cluster", LoopbackNode()) as cluster:
        cluster.apply(
            {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": "web-1", "namespace": "shop"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "web"}]},
                "status": {"phase": "Running"},
            }
        )
        yield cluster
