"""Structures that the calls we intercept read and write, for 64-bit little-endian machines.

Each class with a fixed layout has its `SIZE` in bytes and `decode`; those that we also write have `encode`. Too few
bytes raise ValueError.
"""

from mirrord_syscalls.structs.layout import Buffer
from mirrord_syscalls.structs.messages import (
    ControlMessage,
    Iovec,
    Mmsghdr,
    Msghdr,
    decode_control,
    decode_iovecs,
    encode_control,
)
from mirrord_syscalls.structs.syscall_info import (
    SYSCALL_INFO_BYTES,
    NoSyscall,
    SyscallEntry,
    SyscallExit,
    SyscallInfo,
    SyscallSeccomp,
    decode_exit_stop,
    decode_seccomp_stop,
    decode_syscall_info,
)
from mirrord_syscalls.structs.system import OpenHow, SignalfdSiginfo, Statfs, Utsname

__all__ = [
    "SYSCALL_INFO_BYTES",
    "Buffer",
    "ControlMessage",
    "Iovec",
    "Mmsghdr",
    "Msghdr",
    "NoSyscall",
    "OpenHow",
    "SignalfdSiginfo",
    "Statfs",
    "SyscallEntry",
    "SyscallExit",
    "SyscallInfo",
    "SyscallSeccomp",
    "Utsname",
    "decode_control",
    "decode_exit_stop",
    "decode_iovecs",
    "decode_seccomp_stop",
    "decode_syscall_info",
    "encode_control",
]
