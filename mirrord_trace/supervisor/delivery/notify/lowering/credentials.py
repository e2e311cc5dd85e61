"""A task's rights on files, for a call that is made here in its stead.

We may be root and the task not: then a file that it may not read would be read for it. The kernel checks files against
the filesystem user and group ids and the supplementary groups, and these belong to a thread (credentials(7)): a
thread of ours takes the task's for the moment of the call. With the filesystem user id 0 go the capabilities that
override permissions. Without root no task of the tree can be somebody else than we are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, Self

import attrs

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.base import TaskGone

_REAL, _FILESYSTEM = 0, 3  # the columns of Uid and Gid in /proc/TID/status
_libc: Final = ctypes.CDLL(None, use_errno=True)  # its wrappers for these calls would change every thread


@attrs.frozen
class Credentials:
    """What files are checked against."""

    user: int
    group: int
    groups: tuple[int, ...]

    @classmethod
    def of(cls, tid: int, *, real: bool = False) -> Self:
        """A task's; with its real ids, as access(2) checks, instead of the filesystem ids. Raises TaskGone."""
        try:
            with open(f"/proc/{tid}/status", "rb") as status:
                fields = {line[:4]: line.partition(b":")[2].split() for line in status}
        except (FileNotFoundError, ProcessLookupError) as error:
            raise TaskGone(f"task {tid} is gone") from error
        column = _REAL if real else _FILESYSTEM
        groups = tuple(map(int, fields[b"Grou"]))
        return cls(int(fields[b"Uid:"][column]), int(fields[b"Gid:"][column]), groups)

    def take(self) -> None:
        """This thread has them from now on. Raises OSError when we may not."""
        numbers = native_abi().numbers
        array = (ctypes.c_uint32 * len(self.groups))(*self.groups)
        if _libc.syscall(numbers["setgroups"], len(array), array) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), "setgroups")
        _libc.syscall(numbers["setfsgid"], self.group)
        _libc.syscall(numbers["setfsuid"], self.user)


@contextmanager
def rights_of(tid: int, *, real: bool) -> Iterator[None]:
    """What this thread does with files meanwhile it does with the rights of a task. See `Credentials.of`."""
    if os.geteuid() != 0:
        yield
        return
    ours, theirs = _ours(), Credentials.of(tid, real=real)
    if ours == theirs:
        yield
        return
    theirs.take()
    try:
        yield
    finally:
        ours.take()


@cache
def _ours() -> Credentials:
    return Credentials.of(threading.get_native_id())
