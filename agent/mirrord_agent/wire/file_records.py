"""What is told of files, and how it is packed into payloads.

Statuses come by the ten thousand, in listings, so they have a fixed layout of their own instead of msgpack; names and
paths stay bytes. All numbers are big-endian. `unpack_…` trusts nothing: whatever is wrong raises ValueError.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs
import msgpack  # type: ignore[import-untyped]


@attrs.frozen
class Status:
    """What stat(2) tells in the pod, in the pod's numbers."""

    mode: int
    """Type and permission bits (inode(7))."""
    ino: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    """Device that a device file stands for, as makedev(3) packs it."""
    size: int
    """Bytes."""
    blocks: int
    """Of 512 bytes each."""
    blksize: int
    """Bytes."""
    atime_ns: int
    """Nanoseconds since the epoch, as the other times."""
    mtime_ns: int
    ctime_ns: int
    device: int
    """Device that the file is on (st_dev)."""
    has_attributes: bool
    """Whether it has extended attributes that the target may list; True where that cannot be known."""


@attrs.frozen
class Visited:
    """One step of a walk."""

    path: bytes
    """Absolute in the pod; before its last component nothing but real directories: no links and no `..`. With `/.` at
    its end it has an error of going on from there: of following a link once too often, of searching a directory."""
    status: Status | None
    errno: int
    """0, or why there is no status."""
    target: bytes | None
    """What a symbolic link says, as it says it."""


@attrs.frozen
class Entry:
    """One entry of a directory."""

    name: bytes
    status: Status | None
    """Of the entry itself, a link is not followed. None where there is none: it is gone, or the directory may be read
    but not searched."""


@attrs.frozen
class FilesystemStatus:
    """What statfs(2) tells in the pod. Blocks are counted in `bsize`."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namelen: int
    frsize: int
    flags: int
    fsid: int
    """The two halves of f_fsid as the kernel lays them out, in one number of 64 bits."""


class Now(enum.Enum):
    """A time that the pod's kernel chooses."""

    NOW = "now"


#: The time at which the pod's kernel makes the change (UTIME_NOW of utimensat(2)).
NOW: Final = Now.NOW
Time = int | Literal[Now.NOW]


@attrs.frozen(kw_only=True)
class Change:
    """What is to become different about a file; None leaves a thing as it is.

    All that are given are changed one after the other: size, owners, mode, times.
    """

    mode: int | None = None
    """Permission bits, 0 to 0o7777."""
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: Time | None = None
    mtime_ns: Time | None = None


@attrs.frozen
class Mount:
    """A mount that the target has (proc_pid_mountinfo(5))."""

    path: bytes
    """Where, below the target's root."""
    type: bytes
    """Of the filesystem, such as `ext4`."""
    root: bytes
    """Which part of the filesystem: `/` is all of it."""
    options: bytes
    """Of this mount, separated by commas."""
    is_directory: bool
    """False for a single file that is mounted over another."""


_STATUS = struct.Struct(">IQQIIQqQQqqqQ?")
_LENGTH = struct.Struct(">H")
_STEP = struct.Struct(">IIHH")
_FILESYSTEM = struct.Struct(">qq5Q3qQ")
#: The length that stands for no target at all; a link's text is shorter than PATH_MAX.
_NO_TARGET = 0xFFFF
#: Bytes of a packed status.
STATUS_BYTES = _STATUS.size


def pack_status(status: Status) -> bytes:
    """A status in its fixed layout."""
    return _STATUS.pack(
        status.mode,
        status.ino,
        status.nlink,
        status.uid,
        status.gid,
        status.rdev,
        status.size,
        status.blocks,
        status.blksize,
        status.atime_ns,
        status.mtime_ns,
        status.ctime_ns,
        status.device,
        status.has_attributes,
    )


def unpack_status(data: bytes) -> Status:
    """The opposite of `pack_status`. Raises ValueError."""
    if len(data) != STATUS_BYTES:
        raise ValueError(f"a status of {len(data)} bytes (expected {STATUS_BYTES})")
    return Status(*_STATUS.unpack(data))


def pack_filesystem(status: FilesystemStatus) -> bytes:
    """A filesystem's status in its fixed layout."""
    return _FILESYSTEM.pack(*attrs.astuple(status))


def unpack_filesystem(data: bytes) -> FilesystemStatus:
    """The opposite of `pack_filesystem`. Raises ValueError."""
    if len(data) != _FILESYSTEM.size:
        raise ValueError(f"a filesystem's status of {len(data)} bytes (expected {_FILESYSTEM.size})")
    return FilesystemStatus(*_FILESYSTEM.unpack(data))


def pack_entry(name: bytes, status: bytes) -> bytes:
    """One entry of a listing; `status` is packed, or empty for none."""
    return _LENGTH.pack(len(name) << 1 | bool(status)) + name + status


def unpack_entries(data: bytes) -> tuple[Entry, ...]:
    """The entries of one piece of a listing. Raises ValueError."""
    entries: list[Entry] = []
    position, end = 0, len(data)
    try:
        while position < end:
            (head,) = _LENGTH.unpack_from(data, position)
            position += 2
            name = data[position : position + (head >> 1)]
            position += head >> 1
            status = None
            if head & 1:
                status = Status(*_STATUS.unpack_from(data, position))
                position += STATUS_BYTES
            entries.append(Entry(name, status))
    except struct.error as error:
        raise ValueError(f"a listing that is cut off: {error}") from None
    if position != end or not all(entry.name and b"/" not in entry.name for entry in entries):
        raise ValueError("a listing that is cut off, or with a name that is none")
    return tuple(entries)


def pack_walk(steps: Iterable[Visited]) -> bytes:
    """The steps of a walk. Each path is told by how much it shares with the one before, and the rest."""
    pieces: list[bytes] = []
    before = b""
    for step in steps:
        path = step.path
        shared = len(before) if path.startswith(before) else _shared_length(before, path)
        before = path
        rest = path[shared:]
        target_length = _NO_TARGET if step.target is None else len(step.target)
        pieces.append(_STEP.pack(shared, len(rest), step.errno, target_length))
        pieces.append(rest)
        if step.target is not None:
            pieces.append(step.target)
        if step.status is not None:
            pieces.append(pack_status(step.status))
    return b"".join(pieces)


def _shared_length(one: bytes, other: bytes) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def unpack_walk(data: bytes) -> tuple[Visited, ...]:
    """The opposite of `pack_walk`. Raises ValueError."""
    steps: list[Visited] = []
    path = b""
    position, end = 0, len(data)
    try:
        while position < end:
            shared, rest_length, errno, target_length = _STEP.unpack_from(data, position)
            position += _STEP.size
            if shared > len(path):
                raise ValueError("a step that shares more than there was")
            path = path[:shared] + data[position : position + rest_length]
            position += rest_length
            target = status = None
            if target_length != _NO_TARGET:
                target = data[position : position + target_length]
                position += target_length
            if not errno:
                status = Status(*_STATUS.unpack_from(data, position))
                position += STATUS_BYTES
            steps.append(Visited(path, status, errno, target))
    except struct.error as error:
        raise ValueError(f"a walk that is cut off: {error}") from None
    if position != end:
        raise ValueError("a walk that is cut off")
    return tuple(steps)


def pack_mounts(mounts: Sequence[Mount]) -> bytes:
    """The target's mounts."""
    return bytes(msgpack.packb([attrs.astuple(mount) for mount in mounts]))


def unpack_mounts(data: bytes) -> tuple[Mount, ...]:
    """The opposite of `pack_mounts`. Raises ValueError."""
    try:
        unpacked = msgpack.unpackb(data, use_list=True, raw=False, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises a dozen kinds, some of them built-in
        raise ValueError(f"mounts that are not msgpack: {error}") from None
    if type(unpacked) is not list:
        raise ValueError("mounts that are not a list")
    mounts = []
    for fields in unpacked:
        if type(fields) is not list or [type(field) for field in fields] != [bytes, bytes, bytes, bytes, bool]:
            raise ValueError(f"expected a mount, got {fields!r:.60}")
        mounts.append(Mount(*fields))
    return tuple(mounts)
