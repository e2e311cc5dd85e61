"""`mirrord-trace run` in a process of its own, while it runs, and what it leaves in the cluster and on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirrord_trace.cluster.resources import JOBS, PODS
from mirrord_trace.targets.workloads.ownership import MANAGED_BY
from tests.cluster.commands import COMMAND
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.store import Object, Store

TIMEOUT_S = 60
READY_THEN_WAIT = ("sh", "-c", "echo ready; exec sleep 1000")
"""A command that says when it runs, and goes on."""


class Run:
    """A run under way. Standard output is read line by line; standard error is kept as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, self.told)

    def wait_told(self, part: str) -> None:
        """Until it has said something on standard error."""
        with self._news:
            assert self._news.wait_for(lambda: part in "".join(self._lines), TIMEOUT_S), self._lines

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)

    @property
    def told(self) -> str:
        """What it has said on standard error until now; all of it, once it has ended."""
        if self.process.poll() is not None:
            self._reader.join(TIMEOUT_S)
        return "".join(self._lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()


@contextmanager
def run(kubeconfig: Path, *arguments: str | Path) -> Iterator[Run]:
    """Starts `mirrord-trace run`; kills it when the block is left and it still runs."""
    with subprocess.Popen(
        [*COMMAND, "run", "--kubeconfig", str(kubeconfig), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        running = Run(process)
        try:
            yield running
        finally:
            process.kill()
            process.wait()
            assert running.told is not None  # its reader has ended before the pipe is closed


def is_ours(thing: Object) -> bool:
    labels: dict[str, str] = thing["metadata"].get("labels", {})
    return MANAGED_BY.items() <= labels.items()


def left_over(store: Store) -> list[str]:
    """The jobs and pods of agents that are in the cluster."""
    things = [("job", one) for one in store.list(JOBS)] + [("pod", one) for one in store.list(PODS)]
    return [f"{kind}/{one['metadata']['name']}" for kind, one in things if is_ours(one)]


def wait_until_nothing_is_left(cluster: Cluster, timeout_s: float = 20) -> None:
    """Jobs, their pods and their processes. Raises TimeoutError.

    What is in ephemeral containers is not looked for: it leaves by itself, which takes its time.
    """
    cluster.wait_until(lambda store: None if left_over(store) else True, timeout_s)
    assert processes_of_jobs(cluster) == []


def processes_of_jobs(cluster: Cluster) -> list[int]:
    """The processes on this machine of agents for which jobs were asked for in this cluster, however long ago."""
    asked = [one.object() for one in cluster.requests if one.verb == "create" and one.resource == JOBS]
    specs = [job["spec"]["template"]["spec"]["containers"][0]["args"] for job in asked if is_ours(job)]
    hashes = {arguments[arguments.index("--secret-hash") + 1] for arguments in specs}
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if hashes & set(_arguments(pid))]


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has just ended
        return []
