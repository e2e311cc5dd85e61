"""`deny.py CALL COMMAND [ARG]…` runs a command for which a system call fails with EPERM, as a container may have it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_ERRNO, compile_filter
from mirrord_syscalls.subscription import Rule, Subscription

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1


def main() -> None:
    abi = native_abi()
    code = compile_filter(Subscription.of([Rule(sys.argv[1])]), abi, RET_ERRNO | errno.EPERM)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(abi.numbers["seccomp"], SECCOMP_SET_MODE_FILTER, 0, filter_program) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
