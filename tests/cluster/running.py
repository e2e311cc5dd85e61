"""`mirrord-trace run` in a process of its own, while it runs, and what it leaves in the cluster and on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from mirrord_trace.cluster.resources import JOBS, PODS
from mirrord_trace.targets.workloads.ownership import MANAGED_BY
from tests.cluster.commands import COMMAND
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.store import Object, Store

TIMEOUT_S = 60
READY_THEN_WAIT = ("sh", "-c", "echo ready; exec sleep 1000")
"""A command that says when it runs, and goes on."""


@attrs.frozen
class Run:
    """A run under way. Standard output is read line by line, standard error when it is over."""

    process: subprocess.Popen[str]
    _stderr: IO[bytes]

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, self.told)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)

    @property
    def told(self) -> str:
        """What it has said on standard error until now."""
        return os.pread(self._stderr.fileno(), 1 << 20, 0).decode()


@contextmanager
def run(kubeconfig: Path, *arguments: str | Path) -> Iterator[Run]:
    """Starts `mirrord-trace run`; kills it when the block is left and it still runs."""
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [*COMMAND, "run", "--kubeconfig", str(kubeconfig), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield Run(process, stderr)
        finally:
            process.kill()


def is_ours(thing: Object) -> bool:
    labels: dict[str, str] = thing["metadata"].get("labels", {})
    return MANAGED_BY.items() <= labels.items()


def left_over(store: Store) -> list[str]:
    """The jobs and pods of agents that are in the cluster."""
    things = [("job", one) for one in store.list(JOBS)] + [("pod", one) for one in store.list(PODS)]
    return [f"{kind}/{one['metadata']['name']}" for kind, one in things if is_ours(one)]


def wait_until_nothing_is_left(cluster: Cluster, timeout_s: float = 20) -> None:
    """Jobs, pods and processes of agents. Raises TimeoutError."""
    cluster.wait_until(lambda store: None if left_over(store) else True, timeout_s)
    assert agent_processes(cluster) == []


def agent_processes(cluster: Cluster) -> list[int]:
    """The processes on this machine of agents that were asked for in this cluster, however long ago."""
    hashes = {
        argument
        for asked in cluster.requests
        if asked.body and b"--secret-hash" in asked.body
        for argument in _arguments(asked.object())
        if len(argument) == 64
    }
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "--secret-hash" in arguments and arguments[arguments.index("--secret-hash") + 1] in hashes:
            found.append(int(pid))
    return found


def _arguments(body: Object) -> list[str]:
    spec = body["spec"]
    containers = spec["template"]["spec"]["containers"] if "template" in spec else spec["ephemeralContainers"]
    arguments: list[str] = containers[0]["args"]
    at = arguments.index("--secret-hash")
    return arguments[at : at + 2]
