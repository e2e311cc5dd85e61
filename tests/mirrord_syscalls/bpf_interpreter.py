"""A small interpreter of the classic BPF that seccomp(2) accepts.

It checks a program as the kernel does when it is installed (bpf_check_classic in net/core/filter.c and
seccomp_check_filter in kernel/seccomp.c): known instructions only, aligned loads inside struct seccomp_data, jumps
inside the program, a return at its end.
"""

import struct
from collections.abc import Sequence

import attrs

_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
_BRANCHES = (_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT)
_SECCOMP_DATA = struct.Struct("<IIQ6Q")

Instruction = tuple[int, int, int, int]


def seccomp_data(number: int, arch: int, args: Sequence[int], instruction_pointer: int = 0) -> bytes:
    """Return what the kernel lets a seccomp program see of a call."""
    return _SECCOMP_DATA.pack(number, arch, instruction_pointer, *args)


@attrs.frozen
class Outcome:
    """What a program answered, and how many instructions it took."""

    answer: int
    steps: int


@attrs.frozen
class Program:
    """A checked program."""

    instructions: tuple[Instruction, ...]

    @classmethod
    def load(cls, raw: bytes) -> "Program":
        """Check the program as the kernel would. Raises ValueError for what it would refuse."""
        instructions = tuple(struct.iter_unpack("<HBBI", raw))
        if not 1 <= len(instructions) <= 4096:
            raise ValueError(f"a program of {len(instructions)} instructions")
        for position, (code, if_true, if_false, operand) in enumerate(instructions):
            following = len(instructions) - position - 1
            if code in _BRANCHES:
                valid = max(if_true, if_false) < following
            elif code == _JUMP:
                valid = operand < following
            elif code == _LOAD:
                valid = operand % 4 == 0 and operand < _SECCOMP_DATA.size
            else:
                valid = code in (_AND, _RETURN)
            if not valid:
                raise ValueError(f"instruction {position} is invalid: {code:#x} {if_true} {if_false} {operand:#x}")
        if instructions[-1][0] != _RETURN:
            raise ValueError("the program does not end with a return")
        return cls(instructions)

    def run(self, data: bytes) -> Outcome:
        """Return what the program answers to a call."""
        accumulator = position = steps = 0
        while True:
            code, if_true, if_false, operand = self.instructions[position]
            position += 1
            steps += 1
            if code == _LOAD:
                accumulator = int.from_bytes(data[operand : operand + 4], "little")
            elif code == _AND:
                accumulator &= operand
            elif code == _JUMP:
                position += operand
            elif code == _IF_EQUAL:
                position += if_true if accumulator == operand else if_false
            elif code == _IF_AT_LEAST:
                position += if_true if accumulator >= operand else if_false
            elif code == _IF_ANY_BIT:
                position += if_true if accumulator & operand else if_false
            else:
                return Outcome(operand, steps)
