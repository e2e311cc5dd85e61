"""Looks at this machine's files by threads on which all others wait: the delivery's and Trio's.

A file system may be one that this very process serves, or one that a process of the tree serves, whose own calls wait
for us meanwhile. So these threads ask no file system. What the kernel knows by heart it says at once (`status_of_link`,
`is_there`); for all else there is `looked`, where another thread waits. Only the text of links in /proc may always be
read: that is the kernel's own.

Kernel facts. statx(2) with AT_STATX_DONT_SYNC tells of an inode what is known, whatever became of it at its server.
openat2(2) with RESOLVE_CACHED (Linux 5.12) gives EAGAIN where the way is not known without asking. The links of /proc
lead to open files and directories without a walk.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Final, Self, TypeVar

import attrs
import trio

from mirrord_syscalls.structs import OpenHow

Seen = TypeVar("Seen")

_AT_FDCWD: Final = -100
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_BASIC_STATS: Final = 0x7FF
_statx = struct.Struct("=16xIIIH2xQ96xII112x")
"""struct statx: number of links, owner, group, mode, inode, and the two halves of the device."""
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_CACHED: Final = 0x20
_BY_HEART: Final = OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_CACHED).encode()
_NOTHING: Final = (FileNotFoundError, NotADirectoryError)

_threads: Final = trio.CapacityLimiter(1000)
"""Those who look may wait for a server that never answers: nobody else waits for their threads."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_SYS_OPENAT2: Final = ctypes.c_long(437)
"""The same number on every architecture."""
_SIZE: Final = ctypes.c_size_t(OpenHow.SIZE)


@attrs.frozen
class FileStatus:
    """What the kernel knows of a file."""

    links: int
    user: int
    group: int
    mode: int
    inode: int
    device: tuple[int, int]

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """What somebody has asked for."""
        device = (os.major(found.st_dev), os.minor(found.st_dev))
        return cls(found.st_nlink, found.st_uid, found.st_gid, found.st_mode, found.st_ino, device)


def status_of_link(link: bytes) -> FileStatus:
    """What a link of /proc/PID (cwd, root, exe, fd/N) leads to, as last heard of. Raises OSError."""
    room = ctypes.create_string_buffer(_statx.size)
    if _libc.statx(_AT_FDCWD, link, _AT_STATX_DONT_SYNC, _STATX_BASIC_STATS, room) != 0:
        raise _error(link)
    links, user, group, mode, inode, major, minor = _statx.unpack(room)
    return FileStatus(links, user, group, mode, inode, (major, minor))


def sees_our_root(tid: int) -> bool:
    """False after a chroot or pivot_root of the task: then its paths are not this machine's."""
    try:
        theirs = status_of_link(b"/proc/%d/root" % tid)
    except OSError:
        return False
    return (theirs.device, theirs.inode) == _our_root()


@cache
def _our_root() -> tuple[tuple[int, int], int]:
    ours = status_of_link(b"/proc/self/root")
    return ours.device, ours.inode


def is_there(tid: int, path: bytes) -> bool | None:
    """Whether the task has something under this absolute path, be it a link that leads nowhere; None: not known."""
    try:
        root = os.open(b"/proc/%d/root" % tid, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found: int = _libc.syscall(_SYS_OPENAT2, root, path, _BY_HEART, _SIZE)
        if found >= 0:
            os.close(found)
            return True
        return False if isinstance(_error(path), _NOTHING) else None
    finally:
        os.close(root)


def exists(tid: int, path: bytes) -> bool:
    """Whether the task has something there. To be asked by `looked`, for it may wait."""
    return os.path.lexists(b"/proc/%d/root%s" % (tid, path))


async def looked(look: Callable[..., Seen], *arguments: object) -> Seen:
    """What a function gives or raises that may wait for any file system. Cancelled, it leaves the function behind."""
    return await trio.to_thread.run_sync(look, *arguments, abandon_on_cancel=True, limiter=_threads)


def _error(path: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
