"""How a system call looks in the registers of a stopped task, for one architecture.

Kernel facts (x86-64). At a seccomp stop the call's number may be changed; -1 skips the call, and the result register is
what the task sees. The `syscall` instruction takes the number from the result register, so making a call again means:
instruction pointer back by one instruction, number in that register. While the number register holds a call's number a
signal looks at the result and may restart the call; with -1 there it does not.
"""

from __future__ import annotations

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_NO_CALL = _WORD


@attrs.frozen
class Machine:
    """Changes registers that were read from a task; nothing takes effect before they are written back."""

    abi: Abi

    def set_argument(self, registers: Registers, index: int, value: int) -> None:
        """Argument `index` of the call."""
        setattr(registers, self.abi.argument_registers[index], value & _WORD)

    def set_call(self, registers: Registers, name: str, arguments: tuple[int, ...]) -> None:
        """Another call instead."""
        setattr(registers, self.abi.number_register, self.abi.numbers[name])
        for index, value in enumerate(arguments):
            self.set_argument(registers, index, value)

    def set_result(self, registers: Registers, result: int) -> None:
        """What the task sees when the call is over."""
        setattr(registers, self.abi.result_register, result & _WORD)

    def skip_call(self, registers: Registers) -> None:
        """The call is not made."""
        setattr(registers, self.abi.number_register, _NO_CALL)

    def restore_arguments(self, registers: Registers, saved: Registers) -> None:
        """The arguments and the number as the task had them; the result stays."""
        for name in (*self.abi.argument_registers, self.abi.number_register):
            if name != self.abi.result_register:
                setattr(registers, name, getattr(saved, name))

    def rewind(self, registers: Registers) -> None:
        """Registers as they were before the call, so that the task makes it again; a signal may come before that."""
        pointer = getattr(registers, self.abi.instruction_pointer)
        setattr(registers, self.abi.instruction_pointer, pointer - self.abi.instruction_length)
        if self.abi.result_register not in self.abi.argument_registers:
            setattr(registers, self.abi.result_register, getattr(registers, self.abi.number_register))
        setattr(registers, self.abi.number_register, _NO_CALL)
