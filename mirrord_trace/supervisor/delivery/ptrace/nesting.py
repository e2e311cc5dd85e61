"""Debuggers inside the tree: tasks that want a tracer, or want to be one of somebody who has one.

A process has one tracer (ptrace(2)), and under this delivery that is us. So PTRACE_TRACEME of a task of the tree, and
PTRACE_ATTACH and PTRACE_SEIZE of one, fail with EPERM. The kernel says so itself; here is what the user is told, once,
because gdb and strace do not know the reason.
"""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Final

from mirrord_syscalls.subscription import Equals, Rule, Subscription
from mirrord_trace.supervisor.delivery.base import Call

PTRACE_TRACEME: Final = 0
PTRACE_ATTACH: Final = 16
PTRACE_SEIZE: Final = 0x4206

CALLS: Final = frozenset({"ptrace"})
SUBSCRIPTION: Final = Subscription.of(
    Rule("ptrace", (Equals(0, request),)) for request in (PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE)
)


def is_refused(call: Call, tree: Container[int]) -> bool:
    """Whether one of these requests fails because of us. `tree` holds the ids of the tasks that have us as tracer.

    A process outside of the tree may be traced. From a pid namespace of its own the tree cannot be told from others.
    """
    if call.arguments[0] == PTRACE_TRACEME:
        return True
    return call.integer(1) in tree and call.shares_namespace("pid")


def warning(call: Call, notify_is_missing: str | None) -> str:
    """What to tell the user; `notify_is_missing` says why the notify delivery, the remedy, cannot be had, if so."""
    try:
        program = os.fsdecode(os.path.basename(os.readlink(f"/proc/{call.tid}/exe")))
    except OSError:
        program = "a program"
    problem = f"{program} cannot debug or trace here (EPERM): a process has one tracer, and mirrord-trace is it"
    if notify_is_missing is None:
        return f"{problem}; use --delivery notify, which traces nothing"
    return f"{problem}; --delivery notify, which traces nothing, cannot be had: {notify_is_missing}"
