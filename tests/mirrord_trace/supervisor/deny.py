"""`deny.py WHAT COMMAND [ARG]…` runs a command in poorer surroundings than this machine's.

WHAT is a system call, which then fails with EPERM, as a container may have it; or a name of OLDER, for what the kernels
before some version do not know; or "listener", for a process that has a seccomp listener already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_ERRNO, RET_USER_NOTIF, compile_filter
from mirrord_syscalls.structs.notification import FILTER_NEW_LISTENER, FILTER_WAIT_KILLABLE, SET_FLAGS
from mirrord_syscalls.subscription import AnyBit, Equals, Rule, Subscription

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1


OLDER = {
    "WAIT_KILLABLE_RECV": Rule("seccomp", (AnyBit(1, FILTER_WAIT_KILLABLE),)),
    "SYNC_WAKE_UP": Rule("ioctl", (Equals(1, SET_FLAGS),)),
    "NEW_LISTENER": Rule("seccomp", (AnyBit(1, FILTER_NEW_LISTENER),)),
}
"""All of these fail with EINVAL."""
LISTENER = "listener"


def main() -> None:
    abi = native_abi()
    what = sys.argv[1]
    rule = OLDER.get(what, Rule("kcmp" if what == LISTENER else what))
    failure = RET_ERRNO | (errno.EINVAL if what in OLDER else errno.EPERM)
    code = compile_filter(Subscription.of([rule]), abi, RET_USER_NOTIF if what == LISTENER else failure)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    flags = FILTER_NEW_LISTENER if what == LISTENER else 0
    listener = libc.syscall(abi.numbers["seccomp"], SECCOMP_SET_MODE_FILTER, flags, filter_program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    if what == LISTENER:
        os.set_inheritable(listener, True)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
