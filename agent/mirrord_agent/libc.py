"""The system calls that Python 3.11 has no function for, or none for a single thread."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence

import attrs

from mirrord_agent.wire.file_records import FilesystemStatus

#: Namespace kinds for `setns` (sched.h).
CLONE_NEWNET = 0x40000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000

#: Rules for `openat2` (Linux 5.6): every absolute path, link and `..` stays below the directory; no link of /proc that
#: leads elsewhere than its text says; no link at all.
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
#: Nobody is asked and nothing waited for: EAGAIN where the kernel does not know the way by heart (Linux 5.12).
RESOLVE_CACHED = 0x20

#: Nanoseconds with a meaning of their own (utimensat(2)): the kernel's time; no change.
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

#: The same number on every architecture (newer than the unified table).
_SYS_OPENAT2 = 437
_SYS_FACCESSAT2 = 439
#: setgroups(2) by architecture: the C library's function of that name acts on all threads.
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159}
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_EACCESS = 0x200
_AT_STATX_DONT_SYNC = 0x4000
_STATX_TYPE = 0x1
_STATX_BYTES = 256
_STATX_MODE_OFFSET = 28
#: capget(2): sets of 64 bits, in two halves.
_CAPABILITY_VERSION_3 = 0x20080522
#: struct statfs of the 64-bit architectures, and its length with the reserve at its end.
_STATFS = struct.Struct("=qqQQQQQQqqq")
_STATFS_FIELDS = (
    *("type", "bsize", "blocks", "bfree", "bavail", "files", "ffree"),
    *("fsid", "namelen", "frsize", "flags"),
)
_STATFS_BYTES = 120

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setfsuid.argtypes = _libc.setfsgid.argtypes = (ctypes.c_uint32,)


def setns(descriptor: int, kind: int) -> None:
    """Moves the calling thread into a namespace (setns(2)). Raises OSError."""
    if _libc.setns(descriptor, kind) != 0:
        _raise_errno()


def openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Opens a path below a directory with rules for its resolution (openat2(2)). Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
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


def type_without_asking(descriptor: int) -> int:
    """The type of an open file as st_mode has it, without asking a server that may be gone (statx(2)).

    Raises OSError.
    """
    room = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _libc.statx(descriptor, b"", flags, _STATX_TYPE, room) != 0:
        _raise_errno()
    return int.from_bytes(room.raw[_STATX_MODE_OFFSET : _STATX_MODE_OFFSET + 2], sys.byteorder)


def check_access(descriptor: int, mode: int) -> None:
    """Raises OSError unless this thread may do with an open file what `mode` says (faccessat2(2), Linux 5.8)."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_FACCESSAT2),
        ctypes.c_int(descriptor),
        ctypes.c_char_p(b""),
        ctypes.c_int(mode),
        ctypes.c_int(_AT_EMPTY_PATH | _AT_EACCESS),
    )
    if result != 0:
        _raise_errno()


def rename(directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int) -> None:
    """renameat2(2). Raises OSError."""
    if _libc.renameat2(directory, name, new_directory, new_name, ctypes.c_uint(flags)) != 0:
        _raise_errno(name)


def set_times(file: int | bytes, times: Sequence[int]) -> None:
    """utimensat(2) for a path, futimens(3): seconds and nanoseconds of access and modification. Raises OSError."""
    packed = struct.pack("=4q", *times)
    result = _libc.futimens(file, packed) if isinstance(file, int) else _libc.utimensat(_AT_FDCWD, file, packed, 0)
    if result != 0:
        _raise_errno()


def filesystem(descriptor: int) -> FilesystemStatus:
    """fstatfs(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, buffer) != 0:
        _raise_errno()
    return FilesystemStatus(**dict(zip(_STATFS_FIELDS, _STATFS.unpack_from(buffer), strict=True)))


# Credentials of the calling thread alone (credentials(7)).


def set_thread_groups(groups: Sequence[int]) -> None:
    """The supplementary groups of this thread. Raises OSError."""
    numbers = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(_SYS_SETGROUPS[platform.machine()]), ctypes.c_size_t(len(groups)), numbers) != 0:
        _raise_errno()


def set_filesystem_ids(uid: int, gid: int) -> tuple[int, int]:
    """Gives this thread the ids that files are checked for (setfsuid(2)); returns those that it has then."""
    nobody = 0xFFFFFFFF
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    return _libc.setfsuid(nobody) & nobody, _libc.setfsgid(nobody) & nobody


@attrs.frozen
class CapabilitySets:
    """This thread's capabilities, as sets of bits."""

    effective: int
    permitted: int
    inheritable: int


def capabilities() -> CapabilitySets:
    """capget(2) for this thread. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    buffer = ctypes.create_string_buffer(24)
    if _libc.capget(ctypes.create_string_buffer(header, len(header)), buffer) != 0:
        _raise_errno()
    low, high = struct.unpack("=3I", buffer.raw[:12]), struct.unpack("=3I", buffer.raw[12:])
    return CapabilitySets(*(a | b << 32 for a, b in zip(low, high, strict=True)))


def set_capabilities(sets: CapabilitySets) -> None:
    """capset(2) for this thread. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    each = (sets.effective, sets.permitted, sets.inheritable)
    data = struct.pack("=6I", *(part & 0xFFFFFFFF for part in each), *(part >> 32 for part in each))
    if _libc.capset(ctypes.create_string_buffer(header, len(header)), data) != 0:
        _raise_errno()


def _raise_errno(path: bytes | None = None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)
