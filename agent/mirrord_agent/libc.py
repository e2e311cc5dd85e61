"""The two system calls that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import os
import struct

#: Namespace kinds for `setns` (sched.h).
CLONE_NEWNET = 0x40000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000

#: Every absolute path, link and `..` stays below the directory (openat2(2), Linux 5.6).
RESOLVE_IN_ROOT = 0x10

#: The same number on every architecture (openat2 is newer than the unified table).
_SYS_OPENAT2 = 437

_libc = ctypes.CDLL(None, use_errno=True)


def setns(descriptor: int, kind: int) -> None:
    """Moves the calling thread into a namespace (setns(2)). Raises OSError."""
    if _libc.setns(descriptor, kind) != 0:
        _raise_errno()


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Opens a path below a directory with rules for its resolution (openat2(2)). Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    descriptor = int(
        _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
    )
    if descriptor < 0:
        _raise_errno(path)
    return descriptor


def _raise_errno(path: bytes | None = None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)
