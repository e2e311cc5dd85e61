"""Descriptors of another process, duplicated into this one: pidfd_getfd(2), Linux 5.6.

`pidfd_open` of a thread that is not a leader needs PIDFD_THREAD (Linux 6.9); before that the leader serves, which is
the same unless the thread unshared its descriptor table. glibc of Debian 12 has no wrapper for pidfd_getfd.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading

_SYS_PIDFD_GETFD = 438  # the same on every architecture
_PIDFD_THREAD = os.O_EXCL
_A_DESCRIPTOR = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _open_task(tid: int) -> int:
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError:
        with open(f"/proc/{tid}/status", "rb") as status:
            leader = next(int(line[5:]) for line in status if line.startswith(b"Tgid:"))
        return os.pidfd_open(leader)


def borrow_descriptor(tid: int, descriptor: int) -> int:
    """A close-on-exec duplicate of descriptor `descriptor` of task `tid`; raises OSError (EBADF, ESRCH, EPERM)."""
    pidfd = _open_task(tid)
    try:
        borrowed: int = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0)
        if borrowed < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), f"descriptor {descriptor} of task {tid}")
        return borrowed
    finally:
        os.close(pidfd)


def is_permitted() -> bool:
    """Whether pidfd_getfd(2) is there and not denied as a whole, as Docker's default seccomp profile does."""
    try:
        os.close(borrow_descriptor(os.getpid(), _A_DESCRIPTOR))
    except OSError as error:
        return error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS)
    return True


def borrow_socket(tid: int, descriptor: int, inode: int) -> socket.socket | None:
    """The socket of that inode, if the task still has it under that number; for the caller to close.

    Another file may be there by now: one that the calling thread serves (FUSE), say. That is not asked what it is.
    """
    name = f"socket:[{inode}]"
    try:
        if os.readlink(f"/proc/{tid}/fd/{descriptor}") != name:
            return None
        borrowed = borrow_descriptor(tid, descriptor)
    except OSError:
        return None
    if os.readlink(f"/proc/self/fd/{borrowed}") != name:
        threading.Thread(target=os.close, args=(borrowed,), daemon=True).start()  # closing a file may ask as well
        return None
    return socket.socket(fileno=borrowed)
