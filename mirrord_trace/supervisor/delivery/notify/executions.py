"""execve(2) and execveat(2) are notified too: before a program starts is when we can tell the user what it lacks.

The call itself always goes on. What cannot be looked at is the kernel's to refuse. A look may wait for a file system,
so a worker takes it, and once for each program that nothing was to be said of.
"""

from __future__ import annotations

import os
from typing import Final

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, Call, MemoryFault, MemoryHidden, TaskGone
from mirrord_trace.supervisor.executables import look_at_program
from mirrord_trace.supervisor.looks import is_there, sees_our_root

EXECUTING_CALLS: Final = ("execve", "execveat")
_SEEN_AT_MOST: Final = 4096


@attrs.frozen
class Execution:
    """A program that a task is about to become."""

    tid: int
    path: bytes
    """A path by which we reach it."""
    shown: str
    name: bytes | None
    """Its absolute path, if that means the same for us; it may have links in it."""


@attrs.define(eq=False)
class Executions:
    """Looks at programs before they start."""

    _abi: Abi
    _ordinary: set[bytes] = attrs.field(factory=set)
    """Programs that were looked at, by name: nothing is to be said of them, whoever starts them."""

    def to_be_seen(self, call: Call) -> Execution | None:
        """What is about to start, unless it was looked at already or is known not to be there."""
        index = 1 if call.name == "execveat" else 0
        try:
            path = call.memory.read_string(call.arguments[index])
        except (MemoryFault, MemoryHidden, TaskGone):
            return None
        descriptor = call.integer(0) if index else AT_FDCWD
        name = _absolute(call, descriptor, path) if sees_our_root(call.tid) else None
        if name is not None and (name in self._ordinary or is_there(call.tid, name) is False):
            return None
        return Execution(call.tid, _reachable(call.tid, descriptor, path), os.fsdecode(path), name)

    def complaint_about(self, execution: Execution) -> str | None:
        """A warning about it, or None. It may wait for a file system."""
        seen = look_at_program(execution.tid, execution.path, execution.shown, self._abi)
        if seen.is_ordinary and execution.name is not None:
            if len(self._ordinary) >= _SEEN_AT_MOST:
                self._ordinary.clear()
            self._ordinary.add(execution.name)
        return seen.complaint


def _absolute(call: Call, descriptor: int, path: bytes) -> bytes | None:
    """The path from the root that the task has in common with us; None where there is none."""
    if path.startswith(b"/"):
        return path
    directory = call.directory(descriptor)
    if not path or directory is None or not directory.startswith(b"/"):
        return None
    return directory + b"/" + path


def _reachable(tid: int, descriptor: int, path: bytes) -> bytes:
    """A path by which we reach what the task means."""
    if path.startswith(b"/"):
        return b"/proc/%d/root%s" % (tid, path)
    directory = b"/proc/%d/cwd" % tid if descriptor == AT_FDCWD else b"/proc/%d/fd/%d" % (tid, descriptor)
    return directory + b"/" + path if path else directory
