"""Receives calls, and lets go at once of those that concern nobody: most, for they open or examine files by path.

What is done here is paid by each intercepted call: a wake-up, and three system calls (receive, read the path, let go).
`_loop.c` does it without the interpreter and its lock, at a third of the price, and while relays are busy at a
fraction of it. It is built when mirrord-trace is installed where there is a C compiler; elsewhere the same is done in
Python.
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
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, PathEndings, TaskGone
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.memory import TaskMemory

_NUMBER = 3
_ARGUMENTS = 6

Receive = Callable[[], tuple[int, ...] | None]
"""Waits for a call that may concern somebody: the fields of `notification.NOTIFICATION`.

None when a wait was interrupted, or ended without a call: to be asked again, unless all is over. Raises OSError.
"""


@attrs.frozen
class PathTest:
    """Which argument of a call is a path, and how it ends where it concerns somebody."""

    argument: int
    concerns: PathEndings


PathTests = Mapping[int, PathTest]
"""By call number. A call that is not here may always concern somebody."""


def library() -> Path | None:
    """Where `_loop.c`, built, lies; None where it is not."""
    candidates = (Path(__file__).with_name(f"_loop{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def receiver(listener: Listener, tests: PathTests) -> tuple[Receive, str]:
    """The fastest there is, for one thread; and how it is made, in words."""
    found = library()
    if found is None:
        return receiver_in_python(listener, tests), "in Python, for it was installed without a C compiler"
    return receiver_in_c(listener, tests, found), "in C"


def receiver_in_python(listener: Listener, tests: PathTests) -> Receive:
    """Needs nothing but Python."""

    def receive() -> tuple[int, ...] | None:
        while True:
            notified = listener.receive()
            if notified is None or _may_concern_somebody(notified, tests):
                return notified
            listener.let_go(notified[0])

    return receive


def _may_concern_somebody(notified: tuple[int, ...], tests: PathTests) -> bool:
    test = tests.get(notified[_NUMBER])
    if test is None:
        return True
    try:
        path = TaskMemory(notified[1]).read_string(notified[_ARGUMENTS + test.argument])
    except (MemoryFault, MemoryHidden, TaskGone):
        return True  # the handler is told in its turn
    return test.concerns.match(path)


class _PathTest(ctypes.Structure):
    """struct path_test of _loop.c."""

    _fields_ = (
        ("number", ctypes.c_int32),
        ("argument", ctypes.c_int32),
        ("first_ending", ctypes.c_uint32),
        ("ending_count", ctypes.c_uint32),
    )


class _Ending(ctypes.Structure):
    """struct ending of _loop.c."""

    _fields_ = (("bytes", ctypes.c_char_p), ("length", ctypes.c_uint64))


def receiver_in_c(listener: Listener, tests: PathTests, path: Path) -> Receive:
    """Uses the library at `path`."""
    wait = ctypes.CDLL(str(path)).mirrord_receive_call
    call = ctypes.create_string_buffer(notification.NOTIFICATION_BYTES)
    endings: list[bytes] = []
    rows: list[_PathTest] = []
    for number, test in tests.items():
        rows.append(_PathTest(number, test.argument, len(endings), len(test.concerns.endings)))
        endings.extend(test.concerns.endings)
    row_array = (_PathTest * len(rows))(*rows)
    ending_array = (_Ending * len(endings))(*(_Ending(ending, len(ending)) for ending in endings))
    unpack = notification.NOTIFICATION.unpack

    def receive() -> tuple[int, ...] | None:
        result = wait(listener.descriptor, call, row_array, ctypes.c_uint32(len(rows)), ending_array)
        if result == 0:
            return unpack(call)
        if result in (-errno.EINTR, -errno.ENOENT):
            return None
        raise OSError(-result, os.strerror(-result), "seccomp listener")

    return receive
