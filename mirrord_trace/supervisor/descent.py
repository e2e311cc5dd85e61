"""Processes by descent, as /proc tells it: proc_pid_task_children(5), with proc_pid_stat(5) where that is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

_FLAGS: Final = 6
"""The kernel's flags of a task, of the fields of /proc/PID/stat behind the command's name."""
_PF_EXITING: Final = 0x4


def children_of(pid: int) -> list[int]:
    """The children of a process, whichever of its threads made or adopted them; zombies too. Empty when it is gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as children:
                found.extend(map(int, children.read().split()))
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):  # the kernel was built without CONFIG_PROC_CHILDREN
                return [child for child, parent in _parents() if parent == pid]
        except OSError:
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    """All processes below one, parents before their children."""
    found = children_of(pid)
    for descendant in found:  # grows while it is walked
        found.extend(children_of(descendant))
    return found


def living_task_of(pid: int) -> int:
    """A task of the process that still runs: another than the first when that one has ended alone."""
    if _state(f"/proc/{pid}/stat") != "Z":
        return pid
    try:
        tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return pid
    return next((task for task in tasks if _state(f"/proc/{pid}/task/{task}/stat") not in ("Z", "X", "")), pid)


def is_ending(pid: int) -> bool:
    """Whether a process's first task is on its way out, or gone already (PF_EXITING, include/linux/sched.h)."""
    try:
        fields = _read_fields(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:  # nobody knows
        return False
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            fields = _fields(f"/proc/{name}/stat")
            if fields:
                yield int(name), int(fields[1])


def _state(path: str) -> str:
    return (_fields(path) or [""])[0]


def _fields(path: str) -> list[str]:
    """Empty where nothing can be read."""
    try:
        return _read_fields(path)
    except OSError:
        return []


def _read_fields(path: str) -> list[str]:
    """What follows the command's name, which may contain anything. Raises OSError."""
    with open(path) as stat:
        return stat.read().rpartition(") ")[2].split()
