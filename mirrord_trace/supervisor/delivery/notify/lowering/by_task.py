"""Calls that only the task itself can make: chdir, execve, execveat, opens with O_PATH, and what may kill it.

They are made by it in `surgery`.

A task that a debugger traces has no place for us. Then the call fails, and the user is told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from mirrord_syscalls.abi import path_arguments
from mirrord_trace.supervisor.delivery.base import AT_FDCWD
from mirrord_trace.supervisor.delivery.notify.replies import ANSWERED, NotifiedCall, Reply, Result
from mirrord_trace.supervisor.delivery.notify.surgery import make_in_task, why_not_traced

TASKS_OWN_CALLS: Final = frozenset(("chdir", "execve", "execveat"))


def make_by_task(call: NotifiedCall, paths: Sequence[bytes]) -> OSError | None:
    """The task makes its call with these paths, and has its result then; or why it cannot. Raises TaskGone.

    They are absolute, so the directories of the call do not count.
    """
    arguments = list(call.arguments)
    placed = {}
    for place, path in zip(path_arguments(call.name), paths, strict=True):
        placed[place.index] = path
        if place.directory is not None:
            arguments[place.directory] = AT_FDCWD & 0xFFFF_FFFF_FFFF_FFFF
    try:
        make_in_task(
            call.tid,
            call.abi,
            call.name,
            arguments,
            placed,
            call.release,
            check=call.check,
            under_surgery=call.under_surgery,
        )
    except OSError as error:
        return error
    return None


def lower_by_task(call: NotifiedCall, paths: Sequence[bytes]) -> Reply:
    """The answer to a call that nobody else makes. Raises TaskGone."""
    error = make_by_task(call, paths)
    if error is None:
        return ANSWERED
    names = ", ".join(map(os.fsdecode, paths))
    call.warn(f"{call.name} of {names} failed, for nobody can do it for a process: {why_not_traced(call.tid)}")
    return Result(-(error.errno or errno.EIO))
