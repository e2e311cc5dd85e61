"""open, openat, openat2 and creat, made here with another path: the task gets a duplicate of the descriptor.

The notifier refuses to give a task an O_PATH descriptor (EBADF), so a task that asks for one opens the file itself (see
`by_task`). Where that is impossible, for a debugger traces it, it gets a descriptor of the same file, opened for
reading: it can do more than the one asked for, and needs the right to read the file.

A terminal is opened without becoming our controlling terminal; it does not become the task's either.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Final

import attrs

from mirrord_syscalls.structs import OpenHow
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, naming_flags
from mirrord_trace.supervisor.delivery.notify.lowering.by_task import make_by_task
from mirrord_trace.supervisor.delivery.notify.lowering.credentials import mode_for
from mirrord_trace.supervisor.delivery.notify.lowering.frame import Frame
from mirrord_trace.supervisor.delivery.notify.replies import ANSWERED, Descriptor, NotifiedCall, Reply, Result

_FLAGS_ARGUMENT: Final = {"open": 1, "openat": 2}
_CREAT_FLAGS: Final = os.O_CREAT | os.O_WRONLY | os.O_TRUNC  # creat(2)
_MAKES_FILE: Final = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)

OPENING_CALLS: Final = frozenset(("open", "openat", "openat2", "creat"))


def may_make_or_wait(call: NotifiedCall) -> bool:
    """Whether this open depends on more of the task than its rights, or the task itself must make it."""
    index = _FLAGS_ARGUMENT.get(call.name)
    return index is None or bool(call.arguments[index] & (_MAKES_FILE | os.O_PATH))


def make_open(call: NotifiedCall, path: bytes, *, names_new: bool = False) -> Reply:
    """Opens this path; an openat2 that must stay below its directory is never given one.

    `names_new`: it makes a file of that name, in place of one that has none. Raises OSError, MemoryFault, MemoryHidden,
    TaskGone.
    """
    if call.name == "openat2":
        return _open_how(call, path, names_new=names_new)
    index = _FLAGS_ARGUMENT.get(call.name)
    flags, mode = (_CREAT_FLAGS, 1) if index is None else (call.integer(index), index + 1)
    if flags & os.O_PATH:
        return _open_location(call, path, flags, flags)
    if names_new:
        flags = naming_flags(flags)
    mode = mode_for(call.tid, call.arguments[mode]) if flags & _MAKES_FILE else 0
    with Frame(call, [AT_FDCWD, 0, flags | os.O_CLOEXEC | os.O_NOCTTY, mode, 0, 0]) as frame:
        frame.put(1, path + b"\0")
        return _given(frame.make("openat"), flags)


def _given(opened: int, flags: int) -> Reply:
    return Descriptor(opened, bool(flags & os.O_CLOEXEC)) if opened >= 0 else Result(opened)


def _open_location(call: NotifiedCall, path: bytes, flags: int, ours: int) -> Reply:
    if make_by_task(call, (path,)) is None:
        return ANSWERED
    with Frame(call, [AT_FDCWD, 0, ours | os.O_CLOEXEC, 0, 0, 0]) as frame:
        frame.put(1, path + b"\0")
        return _readable(frame, frame.make("openat"), flags)


def _readable(frame: Frame, opened: int, flags: int) -> Reply:
    """The answer to an open with O_PATH that gave us a descriptor, or a negative errno."""
    if opened < 0:
        return Result(opened)
    flags_for_reading = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a location of a FIFO's waits for nobody
    with Frame(frame.call, [AT_FDCWD, 0, flags_for_reading, 0, 0, 0]) as again:
        again.put(1, b"/proc/self/fd/%d\0" % frame.hold(opened))
        return _given(again.make("openat"), flags)


def _open_how(call: NotifiedCall, path: bytes, *, names_new: bool) -> Reply:
    size = call.arguments[3]
    if size < OpenHow.SIZE:
        return Result(-errno.EINVAL)
    if size > mmap.PAGESIZE:
        return Result(-errno.E2BIG)
    # What lies beyond the part that we know is for the kernel to refuse, if it does not know it either.
    raw = call.memory.read(call.arguments[2], size)
    how, rest = OpenHow.decode(raw[: OpenHow.SIZE]), raw[OpenHow.SIZE :]
    if names_new:
        how = attrs.evolve(how, flags=naming_flags(how.flags))
    is_location = bool(how.flags & os.O_PATH)
    if is_location and make_by_task(call, (path,)) is None:
        return ANSWERED
    flags = how.flags | os.O_CLOEXEC | (0 if is_location else os.O_NOCTTY)
    mode = mode_for(call.tid, how.mode) if how.flags & _MAKES_FILE else how.mode
    with Frame.of(call, (path,)) as frame:
        frame.put(2, OpenHow(flags, mode, how.resolve).encode() + rest)
        opened = frame.make("openat2")
        return _readable(frame, opened, how.flags) if is_location else _given(opened, how.flags)
