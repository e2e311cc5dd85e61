"""Receives calls, and lets go at once of those that concern nobody: most, for they open or examine files by path.

What is done here is paid by each intercepted call: a wake-up, and three system calls (receive, read the path, let go);
a fourth for a relative path, whose directory must be known. `_loop.c` does it without the interpreter and its lock, at
a third of the price, and while relays are busy at a fraction of it. It is built when mirrord-trace is installed where
there is a C compiler; elsewhere the same is done in Python.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import attrs

from mirrord_syscalls.structs import notification
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    LOCAL_PATH_BYTES,
    LOCAL_PATHS,
    LocalPaths,
    MemoryFault,
    MemoryHidden,
    PathEndings,
    TaskGone,
)
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.memory import BRIEF, MemoryAccess, TaskMemory

_NUMBER = 3
_ARGUMENTS = 6
_ARENA_BYTES = LOCAL_PATHS * LOCAL_PATH_BYTES
"""Room for all that `LocalPaths` keeps; what is never written takes no memory."""

Receive = Callable[[], tuple[int, ...] | None]
"""Waits for a call that may concern somebody: the fields of `notification.NOTIFICATION`.

None when a wait was interrupted, or ended without a call: to be asked again, unless all is over. Raises OSError.
"""


@attrs.frozen
class PathTest:
    """Which argument of a call is a path, which one the descriptor it is relative to, and what concerns somebody."""

    argument: int
    concerns: PathEndings | LocalPaths
    directory: int | None = None
    """None: the path is relative to the working directory."""


PathTests = Mapping[int, PathTest]
"""By call number. A call that is not here may always concern somebody."""


def library() -> Path | None:
    """Where `_loop.c`, built, lies; None where it is not."""
    candidates = (Path(__file__).with_name(f"_loop{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def receiver(listener: Listener, tests: PathTests, access: MemoryAccess = BRIEF) -> tuple[Receive, str]:
    """The fastest there is, for one thread; and how it is made, in words."""
    found = library()
    if found is None:
        return receiver_in_python(listener, tests, access), "in Python, for it was installed without a C compiler"
    return receiver_in_c(listener, tests, found), "in C"


def receiver_in_python(listener: Listener, tests: PathTests, access: MemoryAccess = BRIEF) -> Receive:
    """Needs nothing but Python."""

    def receive() -> tuple[int, ...] | None:
        while True:
            notified = listener.receive()
            if notified is None or _may_concern_somebody(notified, tests, access):
                return notified
            listener.let_go(notified[0])

    return receive


def _may_concern_somebody(notified: tuple[int, ...], tests: PathTests, access: MemoryAccess) -> bool:
    test = tests.get(notified[_NUMBER])
    if test is None:
        return True
    try:
        path = TaskMemory(notified[1], access).read_string(notified[_ARGUMENTS + test.argument])
        if isinstance(test.concerns, PathEndings):
            return test.concerns.match(path)
        return test.concerns.match(path, None if path.startswith(b"/") else _directory(notified, test))
    except (MemoryFault, MemoryHidden, TaskGone, OSError):
        return True  # the handler is told in its turn


def _directory(notified: tuple[int, ...], test: PathTest) -> bytes:
    """What a relative path is relative to, as /proc names it."""
    descriptor = AT_FDCWD
    if test.directory is not None:
        descriptor = ctypes.c_int(notified[_ARGUMENTS + test.directory]).value
    where = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
    return os.readlink(f"/proc/{notified[1]}/{where}".encode())


class _PathTest(ctypes.Structure):
    """struct path_test of _loop.c."""

    _fields_ = (
        ("number", ctypes.c_int32),
        ("argument", ctypes.c_int32),
        ("directory", ctypes.c_int32),
        ("first_ending", ctypes.c_uint32),
        ("ending_count", ctypes.c_uint32),
    )


class _Ending(ctypes.Structure):
    """struct ending of _loop.c."""

    _fields_ = (("bytes", ctypes.c_char_p), ("length", ctypes.c_uint64))


class _Known:
    """The library's own copy of `LocalPaths`, which it looks into without Python."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        functions.mirrord_known_new.restype = ctypes.c_void_p
        self._functions = functions
        self.table = ctypes.c_void_p(functions.mirrord_known_new(LOCAL_PATHS, _ARENA_BYTES))
        if self.table.value is None:
            raise MemoryError("no room for the table of local paths")

    def put(self, key: bytes | None) -> None:
        """See `LocalPaths.copy_to`."""
        if key is None:
            self._functions.mirrord_known_clear(self.table)
        else:
            self._functions.mirrord_known_add(self.table, key, ctypes.c_uint32(len(key)))

    def __del__(self) -> None:
        self._functions.mirrord_known_free(self.table)


def receiver_in_c(listener: Listener, tests: PathTests, path: Path) -> Receive:
    """Uses the library at `path`."""
    functions = ctypes.CDLL(str(path))
    wait = functions.mirrord_receive_call
    call = ctypes.create_string_buffer(notification.NOTIFICATION_BYTES)
    known = _Known(functions)
    endings: list[bytes] = []
    rows: list[_PathTest] = []
    for number, test in tests.items():
        wanted = test.concerns.endings if isinstance(test.concerns, PathEndings) else ()
        directory = -1 if test.directory is None else test.directory
        rows.append(_PathTest(number, test.argument, directory, len(endings), len(wanted)))
        endings.extend(wanted)
        if isinstance(test.concerns, LocalPaths):
            test.concerns.copy_to(known.put)
    row_array = (_PathTest * len(rows))(*rows)
    ending_array = (_Ending * len(endings))(*(_Ending(ending, len(ending)) for ending in endings))
    unpack = notification.NOTIFICATION.unpack

    def receive() -> tuple[int, ...] | None:
        result = wait(listener.descriptor, call, row_array, ctypes.c_uint32(len(rows)), ending_array, known.table)
        if result == 0:
            return unpack(call)
        if result in (-errno.EINTR, -errno.ENOENT):
            return None
        raise OSError(-result, os.strerror(-result), "seccomp listener")

    return receive
