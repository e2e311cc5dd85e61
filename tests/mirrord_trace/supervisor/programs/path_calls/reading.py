"""Calls that examine files."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.mirrord_trace.supervisor.programs.path_calls.calling import (
    ABI,
    AT_FDCWD,
    BAD,
    NO_FOLLOW,
    at,
    call,
    ends,
    has,
    named,
    room,
    say,
    show,
)

EACCESS = 0x200
UNIQUE = 0x001
PATHS = (
    "file",
    "directory",
    "link",
    "dangling",
    "loop",
    "nothing",
    "file/",
    "file/below",
    "fifo",
    "long-link",
    "x" * 256,
)


def examines() -> None:
    for path in PATHS:
        for flags in (0, NO_FOLLOW, 1):
            buffer, more = room(200), room(300)
            result = call("newfstatat", AT_FDCWD, at(path), buffer, flags)
            say("newfstatat", path[:20], flags, named(result), seen(buffer, 144))
            result = call("statx", AT_FDCWD, at(path), flags, 0x7FF, more)
            say("statx", path[:20], flags, named(result), *seen_extended(more))
        for name in has("stat", "lstat"):
            buffer = room(200)
            say(name, path[:20], named(call(name, at(path), buffer)), seen(buffer, 144))
        buffer = room(200)
        result = call("statfs", at(path), buffer)
        say("statfs", path[:20], named(result), *struct.unpack_from("=qq", buffer), buffer[120:] == room(80))
        accesses(path)
        for length in (0, 1, 3, 100, 5000, -1, 1 << 31, (1 << 31) - 1):
            buffer = room(5000)
            say(
                "readlinkat",
                path[:20],
                length,
                named(call("readlinkat", AT_FDCWD, at(path), buffer, length)),
                ends(buffer),
            )
            for name in has("readlink"):
                say(name, path[:20], length, named(call(name, at(path), buffer, length)), ends(buffer))
    for address in (0, BAD):
        for path in ("file", "nothing", "link"):
            for name in has("stat", "lstat", "statfs"):
                show(name, at(path), address, note=f"{path} {address:#x}")
            show("newfstatat", AT_FDCWD, at(path), address, 0, note=f"{path} {address:#x}")
            show("statx", AT_FDCWD, at(path), 0, 0x7FF, address, note=f"{path} {address:#x}")
            show("readlinkat", AT_FDCWD, at(path), address, 10, note=f"{path} {address:#x}")


def seen(buffer: bytearray, end: int) -> str:
    """Mode, links, owner, size: where struct stat of x86-64 and of others has them."""
    if buffer == room(len(buffer)):
        return "untouched"
    if ABI.name == "x86_64":
        _, _, links, mode, user, group = struct.unpack_from("=QQQIII", buffer)
        (size,) = struct.unpack_from("=q", buffer, 48)
    else:
        end = 128
        _, _, mode, links, user, group = struct.unpack_from("=QQIIII", buffer)
        (size,) = struct.unpack_from("=q", buffer, 48)
    return f"{links} {mode:#o} {user} {group} {size} {buffer[end:] == room(len(buffer) - end)}"


def seen_extended(buffer: bytearray) -> Iterator[object]:
    if buffer == room(len(buffer)):
        yield "untouched"
    else:
        yield from struct.unpack_from("=IIQIIIHHQQ", buffer)[3:7]
        yield buffer[256:] == room(44)


def accesses(path: str) -> None:
    for mode in (0, 1, 2, 4, 7, 8, -1):
        for name in has("access"):
            show(name, at(path), mode, note=f"{path[:20]} {mode}")
        show("faccessat", AT_FDCWD, at(path), mode, note=f"{path[:20]} {mode}")
        for flags in (0, EACCESS, NO_FOLLOW, 1):
            show("faccessat2", AT_FDCWD, at(path), mode, flags, note=f"{path[:20]} {mode} {flags}")


def handles() -> None:
    for path in ("file", "link", "nothing"):
        for length in (0, 4, 8, 128, 129, 1 << 31):
            for flags in (0, 0x400, UNIQUE, 1 << 20):
                handle, mount = bytearray(struct.pack("=Ii", length, 7)) + room(150), room(16)
                result = call("name_to_handle_at", AT_FDCWD, at(path), handle, mount, flags)
                said, kind = struct.unpack_from("=Ii", handle)
                filled = len(bytes(handle[8:]).rstrip(b"\xaa")) > 0
                say("name_to_handle_at", path, length, flags, named(result), said, kind, filled)
                say("mount", len(bytes(mount).rstrip(b"\xaa")) // 4)
    for handle_at, mount_at in ((0, 0), (BAD, 0), (0, BAD)):
        result = call("name_to_handle_at", AT_FDCWD, at("file"), handle_at, mount_at, 0)
        say("name_to_handle_at", handle_at, mount_at, named(result))
    handle = bytearray(struct.pack("=Ii", 128, 0) + bytes(128))
    for address in (0, BAD):
        say("handle, mount at", address, named(call("name_to_handle_at", AT_FDCWD, at("file"), handle, address, 0)))
