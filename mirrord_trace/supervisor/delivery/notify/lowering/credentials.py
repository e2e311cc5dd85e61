"""A task's rights on files, for a call that is made here in its stead.

We may be root and the task not: then a file that it may not read would be read for it. The kernel checks files against
the filesystem user and group ids, the supplementary groups and the effective capabilities, and these belong to a thread
(credentials(7), capabilities(7)): a thread of ours takes the task's for the moment of the call. Capabilities in another
user namespace count for nothing here. The file mode creation mask is a task's too, and where that may be taken says
`workers`. Without root no task of the tree can be somebody else than we are.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, Self

import attrs

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.base import TaskGone
from mirrord_trace.supervisor.delivery.notify.workers import take_umask

_STATUS_BYTES: Final = 4096
"""More than /proc/TID/status has, unless there are many groups (proc_pid_status(5))."""
_REAL, _FILESYSTEM = 0, 3
"""The columns of Uid and Gid."""
_CAPABILITY_VERSION: Final = 0x2008_0522  # linux/capability.h, _LINUX_CAPABILITY_VERSION_3
_header = struct.Struct("=Ii")
_sets = struct.Struct("=6I")
_LOW: Final = 0xFFFF_FFFF
_libc: Final = ctypes.CDLL(None, use_errno=True)  # its wrappers for these calls would change every thread


@attrs.frozen
class Credentials:
    """What files are checked against."""

    user: int
    group: int
    groups: tuple[int, ...]
    capabilities: int
    """A bit set: the effective ones."""

    @classmethod
    def of(cls, tid: int, *, real: bool = False) -> Self:
        """A task's; those that access(2) checks if `real` (access_override_creds in fs/open.c). Raises TaskGone."""
        status = _status_of(tid)
        users, groups = _field(status, b"Uid").split(), _field(status, b"Gid").split()
        column = _REAL if real else _FILESYSTEM
        user = int(users[column])
        capabilities = 0
        if not real or not user:
            capabilities = _counting(tid, int(_field(status, b"CapPrm" if real else b"CapEff"), 16))
        return cls(user, int(groups[column]), tuple(map(int, _field(status, b"Groups").split())), capabilities)

    def take(self, before: Credentials) -> None:
        """This thread has them from now on, instead of others, as far as we have the capabilities.

        Raises OSError when we may not have these groups.
        """
        permitted, inheritable = _own_capabilities()
        _set_capabilities(permitted, permitted, inheritable)
        if self.groups != before.groups:
            array = (ctypes.c_uint32 * len(self.groups))(*self.groups)
            _call("setgroups", len(array), array)
        numbers = native_abi().numbers
        _libc.syscall(numbers["setfsgid"], self.group)
        _libc.syscall(numbers["setfsuid"], self.user)
        _set_capabilities(permitted & self.capabilities, permitted, inheritable)


@contextmanager
def rights_of(tid: int, *, real: bool = False) -> Iterator[None]:
    """What this thread does with files meanwhile it does with the rights of a task. Raises OSError, TaskGone."""
    if os.geteuid() != 0:
        yield
        return
    ours, theirs = _ours(), Credentials.of(tid, real=real)
    if ours == theirs:
        yield
        return
    try:
        theirs.take(ours)
        yield
    finally:
        ours.take(theirs)


def mode_for(tid: int, mode: int) -> int:
    """The mode to ask for in this thread, so that a new file has what a task that asks for `mode` gets.

    The task's file mode creation mask is this thread's from then on. Where the thread cannot have one of its own the
    mask is applied here; what our own mask forbids is then forbidden too. Raises TaskGone.
    """
    mask = int(_field(_status_of(tid), b"Umask"), 8)
    return mode if take_umask(tid, mask) else mode & ~mask


def _status_of(tid: int) -> bytes:
    try:
        status = os.open(f"/proc/{tid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = part = os.read(status, _STATUS_BYTES)
            while len(part) == _STATUS_BYTES:
                part = os.read(status, _STATUS_BYTES)
                text += part
            return text
        finally:
            os.close(status)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TaskGone(f"task {tid} is gone") from error


def _field(status: bytes, name: bytes) -> bytes:
    beginning = status.find(b"\n%s:\t" % name)
    if beginning < 0:  # of a task that is all but gone the kernel tells less
        raise TaskGone("a task is gone")
    return status[beginning + len(name) + 3 : status.index(b"\n", beginning + 1)]


def _counting(tid: int, capabilities: int) -> int:
    if not capabilities:
        return 0
    try:
        is_ours = os.readlink(f"/proc/{tid}/ns/user") == _own_namespace()
    except PermissionError:
        is_ours = False
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TaskGone(f"task {tid} is gone") from error
    return capabilities if is_ours else 0


def _call(name: str, *arguments: object) -> None:
    if _libc.syscall(native_abi().numbers[name], *arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)


def _set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    low, high = ([value >> shift & _LOW for value in sets] for shift in (0, 32))
    _call("capset", _header.pack(_CAPABILITY_VERSION, 0), _sets.pack(*low, *high))


@cache
def _own_capabilities() -> tuple[int, int]:
    """Permitted and inheritable."""
    sets = ctypes.create_string_buffer(_sets.size)
    _call("capget", _header.pack(_CAPABILITY_VERSION, 0), sets)
    _, permitted, inheritable, _, high_permitted, high_inheritable = _sets.unpack(sets.raw)
    return permitted | high_permitted << 32, inheritable | high_inheritable << 32


@cache
def _own_namespace() -> str:
    return os.readlink("/proc/self/ns/user")


@cache
def _ours() -> Credentials:
    return Credentials.of(threading.get_native_id())
