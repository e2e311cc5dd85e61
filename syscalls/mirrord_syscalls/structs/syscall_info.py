"""What PTRACE_GET_SYSCALL_INFO tells of a stopped task (ptrace(2), struct ptrace_syscall_info in linux/ptrace.h).

The kernel fills a part of the structure that depends on the stop and returns how many bytes there were to fill; each
form is a type of its own. `decode_syscall_info` serves where the kind of stop is not known; at a stop whose kind the
event already tells, `decode_seccomp_stop` and `decode_exit_stop` read that form with one unpacking.
"""

import struct
from typing import Any, Final

import attrs

from mirrord_syscalls.structs.layout import Buffer

SYSCALL_INFO_BYTES: Final = 88
"""The size of the whole structure: what to give to ptrace."""

SYSCALL_INFO_NONE: Final = 0
SYSCALL_INFO_ENTRY: Final = 1
SYSCALL_INFO_EXIT: Final = 2
SYSCALL_INFO_SECCOMP: Final = 3

_head = struct.Struct("<B3xIQQ")
_entry = struct.Struct("<B3xIQQQ6Q")
_exit = struct.Struct("<B3xIQQq?")
_seccomp = struct.Struct("<B3xIQQQ6QI")

Arguments = tuple[int, int, int, int, int, int]


@attrs.frozen
class NoSyscall:
    """The task is stopped, but not in a call."""

    arch: int
    instruction_pointer: int
    stack_pointer: int


@attrs.frozen
class SyscallEntry:
    """The task is about to make a call (a syscall-entry-stop)."""

    arch: int
    """AUDIT_ARCH_* of the instruction that made the call."""
    instruction_pointer: int
    """Just after the instruction that made the call."""
    stack_pointer: int
    number: int
    arguments: Arguments


@attrs.frozen
class SyscallSeccomp:
    """The seccomp program answered SECCOMP_RET_TRACE for a call that is about to be made."""

    arch: int
    instruction_pointer: int
    stack_pointer: int
    number: int
    arguments: Arguments
    return_data: int
    """The low 16 bits of the program's answer."""


@attrs.frozen
class SyscallExit:
    """The call is over (a syscall-exit-stop)."""

    arch: int
    instruction_pointer: int
    stack_pointer: int
    result: int
    """The call's value, or -errno when `is_error`."""
    is_error: bool


SyscallInfo = NoSyscall | SyscallEntry | SyscallSeccomp | SyscallExit


def decode_syscall_info(raw: Buffer) -> SyscallInfo:
    """Return what a buffer that PTRACE_GET_SYSCALL_INFO filled tells.

    Raises ValueError if it is too short for its form, or if the form is unknown.
    """
    operation = raw[0] if len(raw) else None
    if operation == SYSCALL_INFO_SECCOMP:
        return decode_seccomp_stop(raw)
    if operation == SYSCALL_INFO_EXIT:
        return decode_exit_stop(raw)
    if operation == SYSCALL_INFO_ENTRY:
        fields = _unpack(_entry, raw)
        return SyscallEntry(fields[1], fields[2], fields[3], fields[4], fields[5:11])
    if operation == SYSCALL_INFO_NONE:
        return NoSyscall(*_unpack(_head, raw)[1:])
    raise ValueError(f"struct ptrace_syscall_info has the unknown form {operation}")


def decode_seccomp_stop(raw: Buffer) -> SyscallSeccomp:
    """Return what a buffer filled at a PTRACE_EVENT_SECCOMP stop tells.

    Raises ValueError if it is too short or of another form.
    """
    fields = _unpack(_seccomp, raw)
    if fields[0] != SYSCALL_INFO_SECCOMP:
        raise ValueError(f"struct ptrace_syscall_info has form {fields[0]}, not that of a seccomp stop")
    return SyscallSeccomp(fields[1], fields[2], fields[3], fields[4], fields[5:11], fields[11])


def decode_exit_stop(raw: Buffer) -> SyscallExit:
    """Return what a buffer filled at a syscall-exit-stop tells.

    Raises ValueError if it is too short or of another form.
    """
    fields = _unpack(_exit, raw)
    if fields[0] != SYSCALL_INFO_EXIT:
        raise ValueError(f"struct ptrace_syscall_info has form {fields[0]}, not that of a syscall-exit-stop")
    return SyscallExit(*fields[1:])


def _unpack(form: struct.Struct, raw: Buffer) -> tuple[Any, ...]:
    try:
        return form.unpack_from(raw)
    except struct.error:
        raise ValueError(f"this form of struct ptrace_syscall_info takes {form.size} bytes, not {len(raw)}") from None
