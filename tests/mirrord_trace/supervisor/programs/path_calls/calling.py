"""Raw system calls below a directory, and lines about them."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from mirrord_syscalls.abi import native_abi

ABI = native_abi()
AT_FDCWD = -100
BAD = 1 << 63
"""An address that nobody has."""
NO_FOLLOW = 0x100
EMPTY_PATH = 0x1000

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.argtypes = [ctypes.c_long] * 7
libc.syscall.restype = ctypes.c_long

Value = int | bytes | bytearray
"""An argument: a number or address, a string (a NUL follows), or a buffer, which then holds what was written there."""

made: set[str] = set()
"""The names of all calls so far."""
_directories = [b""]


def call(name: str, *values: Value) -> int:
    """Makes a call. Its result; a negative errno on failure."""
    made.add(name)
    rooms = []
    arguments = []
    for value in values:
        if isinstance(value, int):
            arguments.append(value)
        else:
            content = bytes(value) + (b"\0" if isinstance(value, bytes) else b"")
            room = ctypes.create_string_buffer(content, len(content) or 1)
            rooms.append((value, room))
            arguments.append(ctypes.addressof(room))
    result: int = libc.syscall(ABI.numbers[name], *arguments, *(0,) * (6 - len(arguments)))
    error = ctypes.get_errno()
    for value, room in rooms:
        if isinstance(value, bytearray):
            value[:] = room.raw[: len(value)]
    return result if result >= 0 else -error


def work_in(directory: bytes) -> None:
    """From now on paths are below this directory."""
    _directories[-1] = directory


def at(path: str) -> bytes:
    return _directories[-1] + b"/" + os.fsencode(path)


def say(what: str, *found: object) -> None:
    sys.stdout.write(" ".join(map(str, (what, *found))) + "\n")


def named(result: int) -> str:
    return errno.errorcode.get(-result, str(result)) if result < 0 else str(result)


def show(name: str, *values: Value, note: str = "") -> int:
    """Makes a call that has no result but success."""
    result = call(name, *values)
    say(name, note, named(result))
    return result


def has(*names: str) -> list[str]:
    return [name for name in names if name in ABI.numbers]


def room(length: int) -> bytearray:
    return bytearray(b"\xaa" * length)


def ends(buffer: bytearray) -> str:
    """What was written, and that nothing was behind."""
    text = bytes(buffer)
    written = text.rstrip(b"\xaa")
    return f"{written[:40]!r} {len(written)}"
