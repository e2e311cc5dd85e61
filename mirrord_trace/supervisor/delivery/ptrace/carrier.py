"""Carries verdicts out on a task that is stopped before its call, and finishes the call when it returns.

Kernel fact. Results -512 to -516 mean that the kernel will make the call again after a signal: then the original
arguments must be back in the registers, and nothing was achieved yet. See `machine` for the registers.
"""

from __future__ import annotations

import errno

import attrs

from mirrord_trace.supervisor.delivery.base import (
    Call,
    Fail,
    MemoryFault,
    MemoryHidden,
    Pass,
    PresentAddresses,
    Return,
    UseAddress,
    UseAddresses,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.supervisor.delivery.ptrace import cloning, requests
from mirrord_trace.supervisor.delivery.ptrace.lowering import AtExit, plan, presenter
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers
from mirrord_trace.supervisor.delivery.ptrace.spaces import MAPPING
from mirrord_trace.supervisor.delivery.ptrace.tasks import FREE, InCall, Mapping, Task

_WILL_RESTART = range(-516, -511)


@attrs.frozen
class Carrier:
    """Register and memory surgery for one architecture."""

    machine: Machine

    def carry_out(self, task: Task, call: Call, slot: int | None, verdict: Verdict) -> None:
        """Does what the verdict says and lets the task run; `slot` was taken for the call.

        Raises TaskGone; and MemoryHidden, with the task still stopped and the slot given back.
        """
        if slot is not None and not isinstance(verdict, UseAddress | UseAddresses):
            task.space.give_back(slot)
        try:
            match verdict:
                case Pass():
                    requests.resume(task.tid)
                case Fail(number):
                    self._skip(task, -number)
                case Return(value, writes):
                    for address, data in writes:
                        call.memory.write(address, data)
                    self._skip(task, value)
                case PresentAddresses():
                    self._run_to_exit(task, presenter(call, verdict))
                case UseAddress() | UseAddresses() | UsePath() | UsePaths():
                    self._substitute(task, call, slot, verdict)
        except MemoryFault:
            self._skip(task, -errno.EFAULT)

    def keep_traced(self, task: Task, call: Call) -> None:
        """Makes a clone without the flag that would make the child escape the tracer."""
        registers = requests.get_registers(task.tid)
        if call.name == "clone":
            saved = requests.copy_registers(registers)
            self.machine.set_argument(registers, 0, call.arguments[0] & ~cloning.CLONE_UNTRACED)
            requests.set_registers(task.tid, registers)
            self._run_to_exit(task, lambda result: result, saved)
        else:
            self._skip(task, -errno.ENOSYS)  # callers of clone3 fall back to clone

    def finish(self, task: Task, phase: InCall) -> None:
        """The call returned: give the task its result and its registers back, and let it run. Raises TaskGone."""
        result = requests.exit_stop(task.tid).result
        shown = result
        if result not in _WILL_RESTART:
            try:
                shown = phase.at_exit(result)
            except MemoryFault:
                shown = -errno.EFAULT
        if phase.saved is not None or shown != result:
            registers = requests.get_registers(task.tid)
            if phase.saved is not None:
                self.machine.restore_arguments(registers, phase.saved)
            self.machine.set_result(registers, shown)
            requests.set_registers(task.tid, registers)
        task.leave_call()
        requests.resume(task.tid)

    def make_again(self, task: Task, saved: Registers) -> None:
        """Our mmap returned: keep the region and rewind to the call that it replaced. Raises TaskGone."""
        result = requests.exit_stop(task.tid).result
        task.phase = FREE
        if result < 0:
            self.machine.set_result(saved, -errno.ENOMEM)
        else:
            task.space.add_region(result)
            self.machine.rewind(saved)
        requests.set_registers(task.tid, saved)
        requests.resume(task.tid)

    def _skip(self, task: Task, result: int) -> None:
        registers = requests.get_registers(task.tid)
        self.machine.skip_call(registers)
        self.machine.set_result(registers, result)
        requests.set_registers(task.tid, registers)
        requests.resume(task.tid)

    def _substitute(
        self, task: Task, call: Call, slot: int | None, verdict: UseAddress | UseAddresses | UsePath | UsePaths
    ) -> None:
        if slot is None:
            slot = task.space.take_slot()
        if slot is None:
            self.map_region(task)
            return
        try:
            change = plan(call, verdict, slot)
            filled = task.space.fill_slot(slot, change.slot_data)
        except (MemoryFault, MemoryHidden):
            task.space.give_back(slot)
            if isinstance(verdict, UseAddress):
                verdict.done(-errno.EFAULT)
            raise
        if not filled:
            self.map_region(task)
            return
        registers = requests.get_registers(task.tid)
        saved = requests.copy_registers(registers)
        for index, value in change.arguments:
            self.machine.set_argument(registers, index, value)
        requests.set_registers(task.tid, registers)
        self._run_to_exit(task, change.at_exit, saved, slot)

    def map_region(self, task: Task) -> None:
        """Turns the call into an mmap of scratch room; it will be made again after that. Raises TaskGone."""
        registers = requests.get_registers(task.tid)
        saved = requests.copy_registers(registers)
        self.machine.set_call(registers, "mmap", MAPPING)
        requests.set_registers(task.tid, registers)
        task.phase = Mapping(saved)
        requests.resume_to_exit(task.tid)

    def _run_to_exit(
        self, task: Task, at_exit: AtExit, saved: Registers | None = None, slot: int | None = None
    ) -> None:
        task.phase = InCall(at_exit, saved, slot)
        requests.resume_to_exit(task.tid)
