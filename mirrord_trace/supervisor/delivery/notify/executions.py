"""execve(2) and execveat(2) are notified too: before a program starts is when we can tell the user what it lacks.

The call itself always goes on. What cannot be looked at is the kernel's to refuse.
"""

from __future__ import annotations

import os
from typing import Final

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, Call, MemoryFault, MemoryHidden, TaskGone
from mirrord_trace.supervisor.executables import complaint_about_program

EXECUTING_CALLS: Final = ("execve", "execveat")


def complaint_about_execution(call: Call, abi: Abi) -> str | None:
    """A warning about the program that a task is about to become, or None."""
    index = 1 if call.name == "execveat" else 0
    try:
        path = call.memory.read_string(call.arguments[index])
    except (MemoryFault, MemoryHidden, TaskGone):
        return None
    descriptor = call.integer(0) if index else AT_FDCWD
    return complaint_about_program(call.tid, _reachable(call.tid, descriptor, path), os.fsdecode(path), abi)


def _reachable(tid: int, descriptor: int, path: bytes) -> bytes:
    """A path by which we reach what the task means."""
    if path.startswith(b"/"):
        return b"/proc/%d/root%s" % (tid, path)
    directory = b"/proc/%d/cwd" % tid if descriptor == AT_FDCWD else b"/proc/%d/fd/%d" % (tid, descriptor)
    return directory + b"/" + path if path else directory
