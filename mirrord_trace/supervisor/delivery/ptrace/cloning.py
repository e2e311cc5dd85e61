"""New tasks: what they share with their maker, and clones that would escape the tracer.

CLONE_UNTRACED makes a child that no tracer follows (clone(2)); under our filter every intercepted call would then fail
with ENOSYS in it. `clone` carries its flags in the first argument, `clone3` in the first word of a structure.
"""

from __future__ import annotations

import struct
from typing import Final

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.subscription import AnyBit, Rule, Subscription
from mirrord_trace.supervisor.delivery.base import Call, MemoryFault, MemoryHidden
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.delivery.ptrace.tasks import Task

CLONE_VM: Final = 0x100
CLONE_THREAD: Final = 0x1_0000
CLONE_UNTRACED: Final = 0x0080_0000

CALLS: Final = frozenset({"clone", "clone3"})
SUBSCRIPTION: Final = Subscription.of((Rule("clone", (AnyBit(0, CLONE_UNTRACED),)), Rule("clone3")))

_flags = struct.Struct("=Q")


def escapes(call: Call) -> bool:
    """Whether a clone or clone3 asks for an untraced child."""
    flags = _clone_flags(call)
    return flags is not None and bool(flags & CLONE_UNTRACED)


def _clone_flags(call: Call) -> int | None:
    if call.name == "clone":
        return call.arguments[0]
    try:
        flags: int = _flags.unpack(call.memory.read(call.arguments[0], _flags.size))[0]
    except (MemoryFault, MemoryHidden, OSError):
        return None
    return flags


def flags_of_maker(maker: Task, abi: Abi) -> int | None:
    """The flags with which `maker` just made a task, inside of which call it is stopped; None when they are hidden."""
    registers = requests.get_registers(maker.tid)
    name = abi.names.get(getattr(registers, abi.number_register))
    if name == "vfork":
        return CLONE_VM
    if name not in CALLS:
        return 0
    arguments = tuple(getattr(registers, register) for register in abi.argument_registers)
    return _clone_flags(Call(maker.tid, name, arguments, maker.space.memory, abi))
