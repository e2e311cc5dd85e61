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
from collections.abc import Callable, Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from mirrord_syscalls.structs import notification
from mirrord_trace.policy.local_trees import LocalTrees
from mirrord_trace.supervisor.delivery.concerns import (
    LOCAL_PATH_BYTES,
    LOCAL_PATHS,
    ExaminedPaths,
    LocalPaths,
    PathEndings,
)
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.memory import BRIEF, MemoryAccess, TaskMemory
from mirrord_trace.supervisor.delivery.path_tests import PathTest, PathTests

_TASK = 1
_NUMBER = 3
_ARGUMENTS = 6
_ARENA_BYTES = LOCAL_PATHS * LOCAL_PATH_BYTES
"""Room for all that `LocalPaths` keeps; what is never written takes no memory."""

Receive = Callable[[], tuple[int, ...] | None]
"""Waits for a call that may concern somebody: the fields of `notification.NOTIFICATION`.

None when a wait was interrupted, or ended without a call: to be asked again, unless all is over. Raises OSError.
"""


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
            test = None if notified is None else tests.get(notified[_NUMBER])
            if notified is None or test is None:
                return notified
            tid = notified[_TASK]
            if test.may_concern_somebody(tid, notified[_ARGUMENTS:], TaskMemory(tid, access)):
                return notified
            listener.let_go(notified[0])

    return receive


class _PathTest(ctypes.Structure):
    """struct path_test of _loop.c."""

    _fields_ = (
        ("number", ctypes.c_int32),
        ("argument", ctypes.c_int32),
        ("directory", ctypes.c_int32),
        ("first_ending", ctypes.c_uint32),
        ("ending_count", ctypes.c_uint32),
        ("examines", ctypes.c_uint32),
    )


class _Text(ctypes.Structure):
    """struct text of _loop.c."""

    _fields_ = (("bytes", ctypes.c_char_p), ("length", ctypes.c_uint64))


class _Tree(ctypes.Structure):
    """struct tree of _loop.c."""

    _fields_ = (("path", _Text), ("is_local", ctypes.c_uint32))


def _texts(texts: Iterable[bytes]) -> ctypes.Array[_Text]:
    rows = [_Text(text, len(text)) for text in texts]
    return (_Text * len(rows))(*rows)


class _Known:
    """The library's own copy of `LocalPaths`, which it looks into without Python. See `CopyOfLocalPaths`."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        functions.mirrord_known_new.restype = ctypes.c_void_p
        self._functions = functions
        self._words = _texts(())
        self.table = ctypes.c_void_p(functions.mirrord_known_new(LOCAL_PATHS, _ARENA_BYTES))
        if self.table.value is None:
            raise MemoryError("no room for the table of local paths")

    def add(self, key: bytes) -> None:
        self._functions.mirrord_known_add_path(self.table, key, ctypes.c_uint32(len(key)))

    def forget(self) -> None:
        self._functions.mirrord_known_forget_paths(self.table)

    def use_trees(self, trees: LocalTrees) -> None:
        rows = [_Tree(_Text(path, len(path)), is_local) for path, is_local in trees.nearest.items()]
        row_array = (_Tree * len(rows))(*rows)
        words = _texts(trees.words)
        self._functions.mirrord_known_use_trees(
            self.table, row_array, ctypes.c_uint32(len(rows)), words, ctypes.c_uint32(len(words))
        )
        self._words = words  # which the library looks into from now on

    def show_by_name(self, directory: bytes, until_s: float) -> None:
        self._functions.mirrord_known_show_by_name(
            self.table, directory, ctypes.c_uint32(len(directory)), ctypes.c_double(until_s)
        )

    def __del__(self) -> None:
        self._functions.mirrord_known_free(self.table)


def _local_paths(test: PathTest) -> LocalPaths | None:
    match test.concerns:
        case LocalPaths() as local:
            return local
        case ExaminedPaths(local):
            return local
    return None


def receiver_in_c(listener: Listener, tests: PathTests, path: Path) -> Receive:
    """Uses the library at `path`. All tests by local paths are by the same ones."""
    functions = ctypes.CDLL(str(path))
    wait = functions.mirrord_receive_call
    call = ctypes.create_string_buffer(notification.NOTIFICATION_BYTES)
    known = _Known(functions)
    endings: list[bytes] = []
    rows: list[_PathTest] = []
    for local in {local for local in map(_local_paths, tests.values()) if local is not None}:
        local.copy_to(known)
    for number, test in tests.items():
        wanted = test.concerns.endings if isinstance(test.concerns, PathEndings) else ()
        directory = -1 if test.directory is None else test.directory
        examines = isinstance(test.concerns, ExaminedPaths)
        rows.append(_PathTest(number, test.argument, directory, len(endings), len(wanted), examines))
        endings.extend(wanted)
    row_array = (_PathTest * len(rows))(*rows)
    ending_array = _texts(endings)
    unpack = notification.NOTIFICATION.unpack

    def receive() -> tuple[int, ...] | None:
        result = wait(listener.descriptor, call, row_array, ctypes.c_uint32(len(rows)), ending_array, known.table)
        if result == 0:
            return unpack(call)
        if result in (-errno.EINTR, -errno.ENOENT):
            return None
        raise OSError(-result, os.strerror(-result), "seccomp listener")

    return receive
