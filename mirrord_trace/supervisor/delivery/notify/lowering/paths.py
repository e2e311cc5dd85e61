"""Calls that open or examine a file, made here with another path.

The path is absolute and names a file that we made: small, on this machine, never a pipe. So the call is made at once,
with the number and the arguments that the task gave, and the kernel decides on them; only the path, the directory
descriptor, which an absolute path does not need, and the buffer are ours. It is made with the task's rights.

The seccomp notifier refuses to give a task an O_PATH descriptor (EBADF), and letting the call go on would open the
wrong file. So a task that asks for one gets a descriptor of the same file, opened for reading: it can do more than the
one asked for, and needs the right to read the file.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from functools import partial
from typing import Final

from mirrord_syscalls.abi import ArgumentKind
from mirrord_syscalls.structs import OpenHow
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, PATH_MAX, UsePath, UsePaths
from mirrord_trace.supervisor.delivery.notify.lowering.credentials import rights_of
from mirrord_trace.supervisor.delivery.notify.replies import Deferred, Descriptor, NotifiedCall, Reply, Result

_STAT_SIZES: Final = {"x86_64": 144, "aarch64": 128}  # asm/stat.h
_STATX_SIZE: Final = 256  # linux/stat.h
_RESOLVE_IN_ROOT: Final = 0x10  # linux/openat2.h
_AT_EACCESS: Final = 0x200  # linux/fcntl.h

_FLAGS_ARGUMENT: Final = {"open": 1, "openat": 2}
_STAT_BUFFER: Final = {"stat": 1, "lstat": 1, "newfstatat": 2}
_STATX_BUFFER: Final = 4
_LINK_BUFFER: Final = {"readlink": 1, "readlinkat": 2}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.syscall.restype = ctypes.c_long


def lower_path(call: NotifiedCall, verdict: UsePath | UsePaths) -> Reply:
    """Makes the call with the verdict's path; the answer is the kernel's.

    Raises MemoryFault when the task's memory is not there for arguments or results, MemoryHidden, TaskGone, and
    LookupError for a call that does not read a file by path.
    """
    if isinstance(verdict, UsePaths):
        return Deferred(partial(_make, call, verdict.paths))
    if verdict.may_wait:
        return Deferred(partial(_make, call, (verdict.path,)))
    return _make(call, (verdict.path,))


def _make(call: NotifiedCall, paths: tuple[bytes, ...]) -> Reply:
    arguments = list(call.arguments)
    buffers = [ctypes.create_string_buffer(path) for path in paths]
    kinds = call.abi.arguments[call.name]
    places = [index for index, kind in enumerate(kinds) if kind is ArgumentKind.PATH]
    for place, buffer in zip(places, buffers, strict=True):
        arguments[place] = ctypes.addressof(buffer)
        if place and kinds[place - 1] is ArgumentKind.DIRFD:
            arguments[place - 1] = AT_FDCWD
    if len(paths) > 1:
        return Result(_call(call, call.name, arguments))
    if call.name in _FLAGS_ARGUMENT:
        return _open(call, arguments, _FLAGS_ARGUMENT[call.name])
    if call.name == "openat2":
        return _open_how(call, arguments)
    if call.name in _STAT_BUFFER:
        return _fill(call, arguments, _STAT_BUFFER[call.name], _STAT_SIZES[call.abi.name])
    if call.name == "statx":
        return _fill(call, arguments, _STATX_BUFFER, _STATX_SIZE)
    if call.name in _LINK_BUFFER:
        return _read_link(call, arguments, _LINK_BUFFER[call.name])
    return _ask_for_access(call, arguments)


def _call(call: NotifiedCall, name: str, arguments: list[int], *, real: bool = False) -> int:
    """The result as the kernel gives it to the task: a negative errno on failure."""
    with rights_of(call.tid, real=real):
        result: int = _libc.syscall(call.abi.numbers[name], *arguments)
        return result if result >= 0 else -ctypes.get_errno()


def _ask_for_access(call: NotifiedCall, arguments: list[int]) -> Reply:
    """The question is about the real user unless AT_EACCESS says otherwise; about the task's, not about ours."""
    place = call.abi.arguments[call.name].index(ArgumentKind.PATH)
    flags = arguments[place + 2] if call.name == "faccessat2" else 0
    effective = [AT_FDCWD, arguments[place], arguments[place + 1], flags | _AT_EACCESS, 0, 0]
    return Result(_call(call, "faccessat2", effective, real=not flags & _AT_EACCESS))


def _open(call: NotifiedCall, arguments: list[int], index: int) -> Reply:
    flags = arguments[index]
    arguments[index] = flags | os.O_CLOEXEC
    return _given(call, _call(call, call.name, arguments), flags)


def _given(call: NotifiedCall, opened: int, flags: int) -> Reply:
    """The answer to an open with these flags that gave us a descriptor, or a negative errno."""
    if opened >= 0 and flags & os.O_PATH:
        try:
            with rights_of(call.tid, real=False):
                readable = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return Result(-(error.errno or errno.EIO))
        finally:
            os.close(opened)
        opened = readable
    return Descriptor(opened, bool(flags & os.O_CLOEXEC)) if opened >= 0 else Result(opened)


def _open_how(call: NotifiedCall, arguments: list[int]) -> Reply:
    size = arguments[3]
    if size < OpenHow.SIZE:
        return Result(-errno.EINVAL)
    if size > mmap.PAGESIZE:
        return Result(-errno.E2BIG)
    # What lies beyond the part that we know is for the kernel to refuse, if it does not know it either.
    raw = call.memory.read(arguments[2], size)
    how = OpenHow.decode(raw[: OpenHow.SIZE])
    changed = OpenHow(how.flags | os.O_CLOEXEC, how.mode, how.resolve).encode() + raw[OpenHow.SIZE :]
    structure = ctypes.create_string_buffer(changed, size)
    arguments[2] = ctypes.addressof(structure)
    if not how.resolve & _RESOLVE_IN_ROOT:
        return _given(call, _call(call, call.name, arguments), how.flags)
    # The one way of resolving in which an absolute path begins at the directory.
    descriptor = call.integer(0)
    where = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
    try:
        arguments[0] = os.open(f"/proc/{call.tid}/{where}", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return Result(-errno.EBADF if error.errno == errno.ENOENT else -(error.errno or errno.EIO))
    try:
        return _given(call, _call(call, call.name, arguments), how.flags)
    finally:
        os.close(arguments[0])


def _read_link(call: NotifiedCall, arguments: list[int], index: int) -> Reply:
    room = call.integer(index + 1)
    if room <= 0:
        return Result(-errno.EINVAL)
    arguments[index + 1] = min(room, PATH_MAX)
    return _fill(call, arguments, index, min(room, PATH_MAX))


def _fill(call: NotifiedCall, arguments: list[int], index: int, size: int) -> Reply:
    """Argument `index` is a buffer of `size` bytes; readlink says in its result how many it filled, the others all."""
    buffer = ctypes.create_string_buffer(size)
    there = arguments[index]
    arguments[index] = ctypes.addressof(buffer)
    result = _call(call, call.name, arguments)
    if result >= 0:
        call.check()
        call.memory.write(there, buffer.raw[:result] if call.name in _LINK_BUFFER else buffer.raw)
    return Result(result)
