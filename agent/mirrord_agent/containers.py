"""A container's first process, found by the container's id as the API server tells it.

Container runtimes name a cgroup after the container, so the id is in `/proc/PID/cgroup` of each of its processes,
whatever the runtime; no socket of a runtime is needed, and none of the node's folders. The agent sees those processes
in the node's pid namespace (`hostPID`) or in the container's own (an ephemeral container with `targetContainerName`).
From a cgroup namespace of its own it sees others as relative paths (`/../cri-containerd-ID.scope`): only names count,
not where they begin.

Processes that `kubectl exec` started are in the cgroup too, and their parent, like the first one's, is not; so the
oldest counts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

import attrs

from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind

#: How long a container's process may take to show: its status can be a moment ahead of it.
APPEARANCE_TIMEOUT_S = 3.0
_LOOK_INTERVAL_S = 0.05

#: What runtimes put before the id: `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, or, with containerd's
#: own cgroup driver under a kubelet that uses systemd's, `kubepods-….slice:cri-containerd:ID`. CRI-O's `crio-conmon-ID`
#: is the monitor's cgroup, outside the container.
_SCOPE = re.compile(r"(?:.*[-:])?(?P<id>[^-:]+?)(?:\.scope)?")
_MONITOR = "-conmon-"
_ANY_ID = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class Process:
    """What of a process decides whether it is a container's first one."""

    pid: int
    parent: int
    started: int
    """Clock ticks after boot (proc_pid_stat(5), field 22)."""


def parse_container_id(text: str) -> str:
    """A container's id; a runtime's name before it, as in a pod's status (`containerd://ID`), is taken off.

    Raises ValueError for what cannot be one.
    """
    container_id = text.rpartition("://")[2]
    if not re.fullmatch(r"[0-9A-Za-z_.]{8,}", container_id):
        raise ValueError(f"{text!r} is not a container's id")
    return container_id


def is_in_container(cgroups: str, container_id: str) -> bool:
    """Whether a process with these cgroups (the text of `/proc/PID/cgroup`) is one of the container's."""
    for line in cgroups.splitlines():
        for name in line.split(":", 2)[-1].split("/"):
            scope = _SCOPE.fullmatch(name)
            if scope is not None and scope["id"] == container_id and _MONITOR not in name:
                return True
    return False


def first_process(processes: Iterable[Process]) -> Process | None:
    """Of a container's processes the one that it was started with: the oldest whose parent is not of the container."""
    members = {process.pid: process for process in processes}
    roots = [process for process in members.values() if process.parent not in members]
    return min(roots, key=lambda process: (process.started, process.pid), default=None)


def open_first_process(
    container_id: str, *, or_pid: int | None = None, timeout_s: float = APPEARANCE_TIMEOUT_S
) -> Target:
    """Takes hold of a container's first process; if there is none, of process `or_pid`.

    Waits a moment for the process to show. Raises TargetUnusable.
    """
    give_up = time.monotonic() + timeout_s
    while (target := _open_now(container_id)) is None:
        if or_pid is not None:
            return _open_instead(or_pid, container_id)
        if _sees_only_itself() or time.monotonic() > give_up:
            raise _not_seen(container_id)
        time.sleep(_LOOK_INTERVAL_S)
    return target


def _open_now(container_id: str) -> Target | None:
    """The container's first process, if it is there now. Raises TargetUnusable when it may not be examined."""
    found = first_process(_members(container_id))
    if found is None:
        return None
    try:
        target = Target.open(found.pid)
    except TargetUnusable as unusable:
        if unusable.goodbye.kind is GoodbyeKind.TARGET_GONE:
            return None
        raise
    # Between the search and the hold the number may have passed to another process.
    if is_in_container(_cgroups("cgroup", dir_fd=target.directory), container_id):
        return target
    target.close()
    return None


def _open_instead(pid: int, container_id: str) -> Target:
    """Takes hold of the process that stands for a container whose cgroup says nothing. Raises TargetUnusable.

    In a pod with a shared pid namespace, or where the runtime has ignored targetContainerName, that process is another
    container's or our own: those are no substitute.
    """
    if pid == os.getpid() or _ANY_ID.search(_cgroups(f"/proc/{pid}/cgroup")):
        raise _not_seen(container_id)
    return Target.open(pid)


def _members(container_id: str) -> list[Process]:
    """The container's living processes, without the agent itself, which may be in it by mistake."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    members = (pid for pid in pids if pid != os.getpid() and _is_member(pid, container_id))
    return [process for process in map(_examine, members) if process is not None]


def _is_member(pid: int, container_id: str) -> bool:
    return is_in_container(_cgroups(f"/proc/{pid}/cgroup"), container_id)


def _examine(pid: int) -> Process | None:
    """What decides about a process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in parentheses, may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, parent, started = fields[0], int(fields[1]), int(fields[19])
    return None if state in "ZX" else Process(pid, parent, started)


def _cgroups(path: str, *, dir_fd: int | None = None) -> str:
    """A process's cgroups; nothing when it is gone."""
    try:
        with open(os.open(path, os.O_RDONLY, dir_fd=dir_fd), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _sees_only_itself() -> bool:
    """Whether the agent's pid namespace is its own container's."""
    return os.getpid() == 1 or _cgroups("/proc/1/cgroup") == _cgroups("/proc/self/cgroup")


def _not_seen(container_id: str) -> TargetUnusable:
    short = container_id[:12]
    if _sees_only_itself():
        return TargetUnusable(
            GoodbyeKind.PERMISSION,
            f"container {short} cannot be seen: the agent sees no processes but its own. Its pod needs hostPID on the "
            "target's node, or it has to be an ephemeral container with targetContainerName",
        )
    return TargetUnusable(
        GoodbyeKind.TARGET_GONE, f"container {short} has no process here: it has ended, or runs on another node"
    )
