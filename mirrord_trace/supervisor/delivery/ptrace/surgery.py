"""Calls of our own, made by a task that is stopped before a call of its program.

At the seccomp stop the call is exchanged for ours; when that returns the task is sent back to make its own call, which
brings it to the same stop again, with the same registers. Meanwhile it blocks all signals, so that they stay pending:
no handler runs in between, and none is lost. What cannot be blocked: SIGSTOP, which is sent again afterwards, and a
stop of the whole process, which the task joins afterwards.

The program's own seccomp filters see our calls too; one that forbids them makes them fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs

from mirrord_trace.supervisor.delivery.base import TaskGone
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers
from mirrord_trace.supervisor.delivery.ptrace.stops import Stops

_ALL_SIGNALS = 0xFFFF_FFFF_FFFF_FFFF


@attrs.define(eq=False)
class Operation:
    """A task under surgery."""

    tid: int
    _machine: Machine
    _stops: Stops
    _saved: Registers
    signals: list[int] = attrs.field(factory=list)
    """Signals that came although they were blocked."""
    was_stopped: bool = False
    """Whether its process was stopped meanwhile."""

    def call(self, name: str, *arguments: int) -> int:
        """Lets the task make a call; its result, a negative errno on failure. Raises TaskGone."""
        registers = requests.copy_registers(self._saved)
        self._machine.set_call(registers, name, arguments)
        requests.set_registers(self.tid, registers)
        requests.resume_to_exit(self.tid)
        self._await(0, requests.SYSCALL_STOP)
        result = requests.exit_stop(self.tid).result
        registers = requests.copy_registers(self._saved)
        self._machine.rewind(registers)
        requests.set_registers(self.tid, registers)
        requests.resume(self.tid)
        self._await(requests.PTRACE_EVENT_SECCOMP)
        return result

    def _await(self, wanted_event: int, wanted_signal: int | None = None) -> None:
        while True:
            status = self._stops.wait_for(self.tid)
            event, number = status >> 16, os.WSTOPSIG(status)
            if not os.WIFSTOPPED(status) or event == requests.PTRACE_EVENT_EXEC:
                self._stops.keep(self.tid, status)
                raise TaskGone(f"task {self.tid} ended while it worked for us")
            if event == wanted_event and wanted_signal in (None, number):
                return
            if event == requests.PTRACE_EVENT_STOP:
                self.was_stopped = True
            elif event == 0:
                self.signals.append(number)
            requests.resume(self.tid)


@contextmanager
def operate(tid: int, machine: Machine, stops: Stops) -> Iterator[Operation]:
    """Begins at a seccomp stop and ends at the same one.

    Raises TaskGone; `stops` will then tell of the end of the task.
    """
    operation = Operation(tid, machine, stops, requests.get_registers(tid))
    blocked = requests.signal_mask(tid)
    requests.set_signal_mask(tid, _ALL_SIGNALS)
    try:
        yield operation
    finally:
        with suppress(TaskGone):
            requests.set_signal_mask(tid, blocked)
            if operation.was_stopped:
                requests.interrupt(tid)
        with suppress(ProcessLookupError):
            for number in operation.signals:
                os.kill(tid, number)
