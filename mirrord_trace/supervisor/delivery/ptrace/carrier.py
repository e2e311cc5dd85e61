"""Carries verdicts out on a task that is stopped before its call, and finishes the call when it returns.

Kernel facts (x86-64). At a seccomp stop the call's number may be changed; -1 skips the call, and the result register is
what the task sees. Results -512 to -516 mean that the kernel will make the call again after a signal: then the original
arguments must be back in the registers, and nothing was achieved yet. The `syscall` instruction takes the number from
the result register, so making a call again means: instruction pointer back by one instruction, number in that register.
"""

from __future__ import annotations

import errno
import mmap

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.base import (
    Call,
    Fail,
    MemoryFault,
    Pass,
    PresentAddresses,
    Return,
    UseAddress,
    UseAddresses,
    UsePath,
    Verdict,
)
from mirrord_trace.supervisor.delivery.ptrace import cloning, requests
from mirrord_trace.supervisor.delivery.ptrace.lowering import AtExit, plan, presenter
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers
from mirrord_trace.supervisor.delivery.ptrace.spaces import REGION_SIZE
from mirrord_trace.supervisor.delivery.ptrace.tasks import FREE, InCall, Mapping, Task

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_WILL_RESTART = range(-516, -511)
_NO_CALL = _WORD

SUBSTITUTED_CALLS = frozenset({"connect", "sendto", "sendmsg", "sendmmsg"})
"""Calls for which room is there before they are handled, for handling them twice has effects: a connection, say."""


@attrs.frozen
class Carrier:
    """Register and memory surgery for one architecture."""

    abi: Abi

    def carry_out(self, task: Task, call: Call, slot: int | None, verdict: Verdict) -> None:
        """Does what the verdict says and lets the task run; `slot` was taken for the call. Raises TaskGone."""
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
                case UseAddress() | UseAddresses() | UsePath():
                    self._substitute(task, call, slot, verdict)
        except MemoryFault:
            self._skip(task, -errno.EFAULT)

    def keep_traced(self, task: Task, call: Call) -> None:
        """Makes a clone without the flag that would make the child escape the tracer."""
        registers = requests.get_registers(task.tid)
        if call.name == "clone":
            saved = requests.copy_registers(registers)
            self._set_argument(registers, 0, call.arguments[0] & ~cloning.CLONE_UNTRACED)
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
                for name in (*self.abi.argument_registers, self.abi.number_register):
                    if name != self.abi.result_register:
                        setattr(registers, name, getattr(phase.saved, name))
            setattr(registers, self.abi.result_register, shown & _WORD)
            requests.set_registers(task.tid, registers)
        task.leave_call()
        requests.resume(task.tid)

    def make_again(self, task: Task, saved: Registers) -> None:
        """Our mmap returned: keep the region and rewind to the call that it replaced. Raises TaskGone."""
        result = requests.exit_stop(task.tid).result
        task.phase = FREE
        if result < 0:
            setattr(saved, self.abi.result_register, result & _WORD)
        else:
            task.space.add_region(result)
            pointer = getattr(saved, self.abi.instruction_pointer)
            setattr(saved, self.abi.instruction_pointer, pointer - self.abi.instruction_length)
            if self.abi.result_register not in self.abi.argument_registers:
                setattr(saved, self.abi.result_register, getattr(saved, self.abi.number_register))
            setattr(saved, self.abi.number_register, _NO_CALL)  # a signal now must not look like a restart
        requests.set_registers(task.tid, saved)
        requests.resume(task.tid)

    def _skip(self, task: Task, result: int) -> None:
        registers = requests.get_registers(task.tid)
        setattr(registers, self.abi.number_register, _NO_CALL)
        setattr(registers, self.abi.result_register, result & _WORD)
        requests.set_registers(task.tid, registers)
        requests.resume(task.tid)

    def _substitute(
        self, task: Task, call: Call, slot: int | None, verdict: UseAddress | UseAddresses | UsePath
    ) -> None:
        if slot is None:
            slot = task.space.take_slot()
        if slot is None:
            self.map_region(task)
            return
        try:
            change = plan(call, verdict, slot)
        except MemoryFault:
            task.space.give_back(slot)
            raise
        try:
            call.memory.write(slot, change.slot_data)
        except MemoryFault:  # the program unmapped what it does not know
            task.space.forget_regions()
            self.map_region(task)
            return
        registers = requests.get_registers(task.tid)
        saved = requests.copy_registers(registers)
        for index, value in change.arguments:
            self._set_argument(registers, index, value)
        requests.set_registers(task.tid, registers)
        self._run_to_exit(task, change.at_exit, saved, slot)

    def map_region(self, task: Task) -> None:
        """Turns the call into an mmap of scratch room; it will be made again after that. Raises TaskGone."""
        registers = requests.get_registers(task.tid)
        saved = requests.copy_registers(registers)
        setattr(registers, self.abi.number_register, self.abi.numbers["mmap"])
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        for index, value in enumerate((0, REGION_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, _WORD, 0)):
            self._set_argument(registers, index, value)
        requests.set_registers(task.tid, registers)
        task.phase = Mapping(saved)
        requests.resume_to_exit(task.tid)

    def _run_to_exit(
        self, task: Task, at_exit: AtExit, saved: Registers | None = None, slot: int | None = None
    ) -> None:
        task.phase = InCall(at_exit, saved, slot)
        requests.resume_to_exit(task.tid)

    def _set_argument(self, registers: Registers, index: int, value: int) -> None:
        setattr(registers, self.abi.argument_registers[index], value & _WORD)
