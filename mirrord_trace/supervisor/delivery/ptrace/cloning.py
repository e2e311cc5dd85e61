"""New tasks: whether they share their maker's memory, and clones that would escape the tracer.

CLONE_UNTRACED makes a child that no tracer follows (clone(2)); under our filter every intercepted call would then fail
with ENOSYS in it. `clone` carries its flags in the first argument, `clone3` in the first word of a structure.
"""

from __future__ import annotations

import struct
from typing import Final

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.subscription import AnyBit, Rule, Subscription
from mirrord_trace.supervisor.delivery.base import Call, MemoryFault
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.delivery.ptrace.tasks import Task

CLONE_VM: Final = 0x100
CLONE_UNTRACED: Final = 0x0080_0000

CALLS: Final = frozenset({"clone", "clone3"})
SUBSCRIPTION: Final = Subscription.of((Rule("clone", (AnyBit(0, CLONE_UNTRACED),)), Rule("clone3")))

_flags = struct.Struct("=Q")


def escapes(call: Call) -> bool:
    """Whether a clone or clone3 asks for an untraced child."""
    try:
        return bool(_clone_flags(call) & CLONE_UNTRACED)
    except MemoryFault:
        return False


def _clone_flags(call: Call) -> int:
    if call.name == "clone":
        return call.arguments[0]
    flags: int = _flags.unpack(call.memory.read(call.arguments[0], _flags.size))[0]
    return flags


def shares_memory(parent: Task, abi: Abi) -> bool:
    """Whether the task that `parent` just made lives in its address space. The parent is stopped inside the call."""
    registers = requests.get_registers(parent.tid)
    name = abi.names.get(getattr(registers, abi.number_register))
    if name == "vfork":
        return True
    if name not in CALLS:
        return False
    arguments = tuple(getattr(registers, register) for register in abi.argument_registers)
    try:
        return bool(_clone_flags(Call(parent.tid, name, arguments, parent.space.memory, abi)) & CLONE_VM)
    except MemoryFault:
        return False
