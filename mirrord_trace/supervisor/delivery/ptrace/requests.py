"""The ptrace(2) requests that the tracer makes, one thin function each.

python-ptrace (GPL-2.0-only; this is the only module that imports it) supplies the system call, the register structure
and the older requests. Beside them stand those that it lacks: SEIZE, INTERRUPT, LISTEN, GETSIGMASK, SETSIGMASK,
GET_SYSCALL_INFO; and GETEVENTMSG, for which it passes a 4-byte buffer where the kernel writes 8.

Those that ask about an event or a call's stop (GETEVENTMSG, GET_SYSCALL_INFO) share a buffer: they are for one thread,
the tracer of a whole tree. The others may be made in any thread, for the tasks that it traces.

ESRCH means that the task died, or runs because it is about to die: `TaskGone`. Its end will be reported by wait.
"""

from __future__ import annotations

import ctypes
import errno
import signal
from typing import Any

from ptrace import PtraceError
from ptrace.binding import func as binding

from mirrord_syscalls.structs import (
    SYSCALL_INFO_BYTES,
    SyscallExit,
    SyscallSeccomp,
    decode_exit_stop,
    decode_seccomp_stop,
    decode_syscall_info,
)
from mirrord_trace.supervisor.delivery.base import TaskGone

PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_SYSCALL_INFO = 0x420E

PTRACE_O_TRACESYSGOOD = 0x1
PTRACE_O_TRACEFORK = 0x2
PTRACE_O_TRACEVFORK = 0x4
PTRACE_O_TRACECLONE = 0x8
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_TRACESECCOMP = 0x80
PTRACE_O_EXITKILL = 0x100000

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_SECCOMP = 7
PTRACE_EVENT_STOP = 128
SYSCALL_STOP = signal.SIGTRAP | 0x80
"""The stop signal at the end of a call (PTRACE_O_TRACESYSGOOD)."""

_syscall_info = bytearray(SYSCALL_INFO_BYTES)
_syscall_info_address = ctypes.addressof(ctypes.c_char.from_buffer(_syscall_info))
_event_message = ctypes.c_ulong()
_SIGNAL_MASK_BYTES = ctypes.sizeof(ctypes.c_uint64)

Registers = Any
"""python-ptrace's `user_regs_struct` of this architecture; its fields are the names in `Abi`."""


def _request(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    try:
        binding.ptrace(request, tid, address, data)
    except PtraceError as error:
        if error.errno == errno.ESRCH:
            raise TaskGone(f"task {tid} is gone") from None
        raise OSError(error.errno, str(error)) from error


def seize(tid: int, options: int) -> None:
    """Becomes the tracer of a task without stopping it. Raises PermissionError where the kernel does not allow it."""
    _request(PTRACE_SEIZE, tid, 0, options)


def resume(tid: int, deliver: int = 0) -> None:
    """Lets a stopped task run on, with signal `deliver` when it is not 0."""
    _request(PTRACE_CONT, tid, 0, deliver)


def detach(tid: int, deliver: int = 0) -> None:
    """Lets a stopped task run on, with signal `deliver` when it is not 0, and traces it no more."""
    _request(PTRACE_DETACH, tid, 0, deliver)


def resume_to_exit(tid: int, deliver: int = 0) -> None:
    """Lets a task run on and stop again when the system call that it is in returns."""
    _request(PTRACE_SYSCALL, tid, 0, deliver)


def listen(tid: int) -> None:
    """Leaves a task in its group-stop, and be told when SIGCONT ends it."""
    _request(PTRACE_LISTEN, tid)


def interrupt(tid: int) -> None:
    """Makes a task stop (PTRACE_EVENT_STOP) when it next returns to its program."""
    _request(PTRACE_INTERRUPT, tid)


def signal_mask(tid: int) -> int:
    """The signals that a stopped task blocks; bit 0 is signal 1."""
    mask = ctypes.c_uint64()
    _request(PTRACE_GETSIGMASK, tid, _SIGNAL_MASK_BYTES, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Replaces the signals that a stopped task blocks; SIGKILL and SIGSTOP cannot be."""
    room = ctypes.c_uint64(mask)
    _request(PTRACE_SETSIGMASK, tid, _SIGNAL_MASK_BYTES, ctypes.addressof(room))


def event_message(tid: int) -> int:
    """What belongs to the event: a new task's id, or the former id of a thread that made an exec."""
    _request(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(_event_message))
    return _event_message.value


def seccomp_stop(tid: int) -> SyscallSeccomp:
    """The call of a task that stopped with PTRACE_EVENT_SECCOMP (Linux 5.3)."""
    _request(PTRACE_GET_SYSCALL_INFO, tid, SYSCALL_INFO_BYTES, _syscall_info_address)
    return decode_seccomp_stop(_syscall_info)


def exit_stop(tid: int) -> SyscallExit:
    """The result of the call that a task stopped at the end of."""
    _request(PTRACE_GET_SYSCALL_INFO, tid, SYSCALL_INFO_BYTES, _syscall_info_address)
    return decode_exit_stop(_syscall_info)


def architecture(tid: int) -> int:
    """AUDIT_ARCH_* of the program that a stopped task runs, whatever it stopped for."""
    _request(PTRACE_GET_SYSCALL_INFO, tid, SYSCALL_INFO_BYTES, _syscall_info_address)
    return decode_syscall_info(_syscall_info).arch


def get_registers(tid: int) -> Registers:
    """The general registers of a stopped task."""
    try:
        return binding.ptrace_getregs(tid)
    except PtraceError as error:
        raise TaskGone(f"task {tid} is gone") from error


def set_registers(tid: int, registers: Registers) -> None:
    """Replaces the general registers of a stopped task."""
    try:
        binding.ptrace_setregs(tid, registers)
    except PtraceError as error:
        raise TaskGone(f"task {tid} is gone") from error


def copy_registers(registers: Registers) -> Registers:
    """An independent copy."""
    return type(registers).from_buffer_copy(registers)
