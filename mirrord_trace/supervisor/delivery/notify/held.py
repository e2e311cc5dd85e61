"""Calls that wait for a verdict: whether anybody still waits for them, and whether natively a signal would end them.

Kernel facts. Under WAIT_KILLABLE_RECV a task that waits for our answer acts on no signal but SIGKILL. A signal that it
would act on natively stays pending, and we must let the call go: the kernel then finds the signal and interrupts or
restarts the call as ever. Which thread a signal for the whole process is meant for is the kernel's choice: the first
thread, unless that blocks it (signal(7); complete_signal in kernel/signal.c). A stop of the process waits until every
thread has taken part; and a debugger that attaches waits likewise, with nothing pending that /proc would show.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import trio

from mirrord_trace.supervisor.delivery.base import Verdict
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall, Reply


@attrs.define(eq=False)
class Held:
    """One call, and the scope of the Trio task that finds its answer."""

    identity: int
    call: NotifiedCall
    decide: Coroutine[Any, Any, Verdict] | None
    """A handler's; None when it has decided."""
    lower: Coroutine[Any, Any, Reply] | None
    """What carries the verdict out, when that takes time."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def drop(self) -> None:
        """It will not be answered."""
        for coroutine in (self.decide, self.lower):
            if coroutine is not None:
                coroutine.close()


def interruption(tid: int) -> Callable[[], bool]:
    """What tells, now and later, whether natively a task's call would end now.

    A tracer counts if it has come since that was first asked.
    """
    first_tracer: int | None = None

    def is_interrupted() -> bool:
        nonlocal first_tracer
        task = Status.of(tid)
        if task is None:
            return False
        if first_tracer is None:
            first_tracer = task.tracer
        leader = None if task.process == task.tid else Status.of(task.process)
        return task.tracer not in (0, first_tracer) or acts_on_signal(task, leader)

    return is_interrupted


def acts_on_signal(task: Status, leader: Status | None) -> bool:
    """Whether a signal waits that `task` would act on. `leader` is its process's first thread: None if that is itself.

    A signal for the whole process is the first thread's if that does not block it. A thread that is stopped already
    shows that the whole process is to stop.
    """
    acted_on = ~(task.blocked | task.ignored)
    if task.pending & acted_on:
        return True
    shared = task.shared_pending & acted_on
    if leader is None or leader.state in "ZX":
        return bool(shared)
    return leader.state in "Tt" or bool(shared & leader.blocked)


@attrs.frozen
class Status:
    """What /proc/TID/status says (proc_pid_status(5)); signals are bit sets."""

    tid: int
    process: int
    state: str
    tracer: int
    pending: int
    shared_pending: int
    blocked: int
    ignored: int

    @classmethod
    def of(cls, tid: int) -> Status | None:
        """None when the task is gone."""
        try:
            with open(f"/proc/{tid}/status", "rb") as status:
                fields = dict(line.split(b":", 1) for line in status)
            signals = (int(fields[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn"))
            state = fields[b"State"].split()[0].decode()
            return cls(tid, int(fields[b"Tgid"]), state, int(fields[b"TracerPid"]), *signals)
        except (OSError, KeyError, ValueError):
            return None
