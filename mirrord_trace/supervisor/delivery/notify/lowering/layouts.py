"""What each path call's pointers point to: how long it is, and whether the call reads or fills it.

Paths, strings and descriptors follow from the kinds of a call's arguments (`mirrord_syscalls.abi.ARGUMENTS`). Of
pointers it is said here, for every call that has some. Source: the manual pages of section 2, and in the kernel
fs/{stat,statfs,utimes,xattr,fhandle,file_attr}.c, linux/limits.h.
"""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Final

from mirrord_syscalls.abi import Abi, ArgumentKind
from mirrord_trace.supervisor.delivery.base import PATH_MAX
from mirrord_trace.supervisor.delivery.notify.lowering.frame import NOWHERE, Frame

_ATTRIBUTE_NAME_ROOM: Final = 256  # XATTR_NAME_MAX, and a NUL
_ATTRIBUTE_MAXIMUM: Final = 65536  # XATTR_SIZE_MAX and XATTR_LIST_MAX
_STAT_SIZES: Final = {"x86_64": 144, "aarch64": 128}  # asm/stat.h
_STATX_SIZE: Final = 256  # linux/stat.h
_STATFS_SIZE: Final = 120  # asm-generic/statfs.h
_UTIMBUF_SIZE: Final = 16
_TIMES_SIZE: Final = 32  # two of struct timeval, or of struct timespec
_HANDLE_MAXIMUM: Final = 128  # MAX_HANDLE_SZ
_AT_HANDLE_MNT_ID_UNIQUE: Final = 0x001  # linux/fcntl.h
_handle_header = struct.Struct("=Ii")  # struct file_handle: handle_bytes, handle_type; the handle follows
_attribute = struct.Struct("=QII")  # struct xattr_args: value, size, flags

Layout = Callable[[Frame], None]
"""Prepares the pointers among a call's arguments."""


def lay_out(frame: Frame) -> None:
    """Prepares all arguments but the paths. Raises OSError, TaskGone, MemoryHidden."""
    for layout in _layouts_of(frame.call.abi, frame.call.name):
        layout(frame)


@cache
def _layouts_of(abi: Abi, name: str) -> tuple[Layout, ...]:
    room = PATH_MAX if name in _LINK_MAKING else _ATTRIBUTE_NAME_ROOM
    layouts: list[Layout] = []
    for index, kind in enumerate(abi.arguments[name]):
        if kind is ArgumentKind.STRING:
            layouts.append(partial(Frame.bring_text, index=index, room=room))
        elif kind is ArgumentKind.FD:
            layouts.append(partial(Frame.borrow, index=index))
    return (*layouts, LAYOUTS[name]) if name in LAYOUTS else tuple(layouts)


_LINK_MAKING: Final = ("symlink", "symlinkat")


def _reads(index: int, size: int) -> Layout:
    """A structure that the call reads, or null."""
    return lambda frame: frame.bring(index, size)


def _reads_sized(index: int, maximum: int) -> Layout:
    """Data that the call reads; the next argument says how much, and more than `maximum` is refused."""

    def bring(frame: Frame) -> None:
        if frame.arguments[index + 1] <= maximum:
            frame.bring(index, frame.arguments[index + 1])
        else:
            frame.put_nothing(index)

    return bring


def _fills(index: int, size: int | Mapping[str, int]) -> Layout:
    """A structure that the call fills when it succeeds; its size may be the architecture's."""

    def lend(frame: Frame) -> None:
        length = size if isinstance(size, int) else size[frame.call.abi.name]
        frame.lend(index, length, lambda result, _: length if result == 0 else 0)

    return lend


def _fills_sized(index: int, maximum: int) -> Layout:
    """Data whose length is the call's result; the next argument says for how much there is room, and counts so far."""

    def lend(frame: Frame) -> None:
        room = frame.arguments[index + 1] = min(frame.arguments[index + 1], maximum)
        frame.lend(index, room, lambda result, _: min(result, room))

    return lend


def _fills_link(index: int) -> Layout:
    """As before, for readlink, where the room is an int."""

    def lend(frame: Frame) -> None:
        room = frame.arguments[index + 1] = min(frame.call.integer(index + 1), PATH_MAX)
        frame.lend(index, max(room, 0), lambda result, _: result)

    return lend


def _fills_extensible(index: int) -> Layout:
    """A structure of the size that the next argument says; what the kernel does not know of it, it fills with zeros."""

    def lend(frame: Frame) -> None:
        size = frame.arguments[index + 1]
        if size <= mmap.PAGESIZE:
            frame.lend(index, size, lambda result, _: size if result == 0 else 0)
        else:
            frame.put_nothing(index)

    return lend


def _handle(frame: Frame) -> None:
    """name_to_handle_at: where there is too little room, the call says how much would do."""
    index, mount_index, flags = 2, 3, frame.arguments[4]
    mount_size = 8 if flags & _AT_HANDLE_MNT_ID_UNIQUE else 4

    def filled(result: int, raw: bytes) -> int:
        if result not in (0, -errno.EOVERFLOW):
            return 0
        length, _ = _handle_header.unpack_from(raw)
        return _handle_header.size + (0 if result else int(length))

    frame.lend(mount_index, mount_size, lambda result, _: mount_size if result in (0, -errno.EOVERFLOW) else 0)
    place = frame.arguments[index]
    header = frame.read(place, _handle_header.size)
    if header is None:
        frame.put_nothing(index)
    else:
        room, _ = _handle_header.unpack(header)
        frame.arguments[index] = frame.room_for(place, header + bytes(min(room, _HANDLE_MAXIMUM)), filled)


def _attribute_of(frame: Frame) -> tuple[int, int, int, bytes] | None:
    """The struct xattr_args of getxattrat and setxattrat, with what lies behind the part that we know."""
    size = frame.arguments[5]
    raw = frame.read(frame.arguments[4], size) if _attribute.size <= size <= mmap.PAGESIZE else None
    if raw is None:
        frame.put_nothing(4)
        return None
    return (*_attribute.unpack_from(raw), raw[_attribute.size :])


def _reads_attribute(frame: Frame) -> None:
    found = _attribute_of(frame)
    if found is not None:
        place, length, flags, rest = found
        data = frame.read(place, length) if length <= _ATTRIBUTE_MAXIMUM else None
        here = frame.room_with(data) if data is not None else place and NOWHERE
        frame.put(4, _attribute.pack(here, length, flags) + rest)


def _fills_attribute(frame: Frame) -> None:
    found = _attribute_of(frame)
    if found is not None:
        place, length, flags, rest = found
        room = min(length, _ATTRIBUTE_MAXIMUM)
        here = frame.room_for(place, bytes(room), lambda result, _: min(result, room))
        frame.put(4, _attribute.pack(here, room, flags) + rest)


LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "stat": _fills(1, _STAT_SIZES),
        "lstat": _fills(1, _STAT_SIZES),
        "newfstatat": _fills(2, _STAT_SIZES),
        "statx": _fills(4, _STATX_SIZE),
        "statfs": _fills(1, _STATFS_SIZE),
        "readlink": _fills_link(1),
        "readlinkat": _fills_link(2),
        "utime": _reads(1, _UTIMBUF_SIZE),
        "utimes": _reads(1, _TIMES_SIZE),
        "futimesat": _reads(2, _TIMES_SIZE),
        "utimensat": _reads(2, _TIMES_SIZE),
        "getxattr": _fills_sized(2, _ATTRIBUTE_MAXIMUM),
        "lgetxattr": _fills_sized(2, _ATTRIBUTE_MAXIMUM),
        "listxattr": _fills_sized(1, _ATTRIBUTE_MAXIMUM),
        "llistxattr": _fills_sized(1, _ATTRIBUTE_MAXIMUM),
        "setxattr": _reads_sized(2, _ATTRIBUTE_MAXIMUM),
        "lsetxattr": _reads_sized(2, _ATTRIBUTE_MAXIMUM),
        "getxattrat": _fills_attribute,
        "setxattrat": _reads_attribute,
        "listxattrat": _fills_sized(3, _ATTRIBUTE_MAXIMUM),
        "file_getattr": _fills_extensible(2),
        "file_setattr": _reads_sized(2, mmap.PAGESIZE),
        "name_to_handle_at": _handle,
    }
)
"""By call, for every call that is made here and has pointers to data."""
