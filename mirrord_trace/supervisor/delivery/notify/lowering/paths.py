"""Calls that name files, made here with other paths; the kernel decides on everything else that the task gave.

Every path is absolute. The call is made with the task's rights, and where it makes a file with its file mode creation
mask: that takes a worker, as everything does that may wait. At once is made only what examines or opens a file that
this program has made for the purpose. What nobody can do for a task it does itself (`by_task`).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from mirrord_syscalls.abi import path_arguments
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, TaskGone, UsePath, UsePaths
from mirrord_trace.supervisor.delivery.notify.lowering.by_task import TASKS_OWN_CALLS, lower_by_task
from mirrord_trace.supervisor.delivery.notify.lowering.credentials import mode_for
from mirrord_trace.supervisor.delivery.notify.lowering.frame import Frame
from mirrord_trace.supervisor.delivery.notify.lowering.layouts import lay_out
from mirrord_trace.supervisor.delivery.notify.lowering.opens import OPENING_CALLS, make_open, may_make_or_wait
from mirrord_trace.supervisor.delivery.notify.replies import Deferred, NotifiedCall, Reply, Result

_AT_EACCESS: Final = 0x200  # linux/fcntl.h
_ACCESS_CALLS: Final = frozenset(("access", "faccessat", "faccessat2"))
_EXAMINING_CALLS: Final = _ACCESS_CALLS | {"stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat"}
_MODE_ARGUMENT: Final = {"mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2}


def lower_path(call: NotifiedCall, verdict: UsePath | UsePaths) -> Reply:
    """Makes the call with the verdict's paths, or says who will; the answer is the kernel's.

    Raises, as a deferred reply may, MemoryFault when the task's memory is not there for what the call has filled,
    MemoryHidden, TaskGone, OSError.
    """
    paths = (verdict.path,) if isinstance(verdict, UsePath) else verdict.paths
    call.rights_count = not verdict.is_guarded
    names_new = isinstance(verdict, UsePath) and verdict.is_name_of_new
    make = partial(_make, call, tuple(_seen_from_here(path, call.tid) for path in paths), names_new=names_new)
    return Deferred(make) if lowers_later(verdict) or not _is_brief(call) else make()


def lowers_later(verdict: UsePath | UsePaths) -> bool:
    """Whether `lower_path` does nothing now, whatever the call is."""
    return isinstance(verdict, UsePaths) or verdict.may_wait


def _is_brief(call: NotifiedCall) -> bool:
    """Whether the call, on a file that makes nobody wait, can be made in any thread."""
    if call.name in OPENING_CALLS:
        return not may_make_or_wait(call)
    return call.name in _EXAMINING_CALLS


def _make(call: NotifiedCall, paths: tuple[bytes, ...], *, names_new: bool) -> Reply:
    if call.name in OPENING_CALLS:
        return make_open(call, *paths, names_new=names_new)
    if call.name in TASKS_OWN_CALLS or (call.name == "truncate" and _has_size_limit(call.tid)):
        return lower_by_task(call, paths)
    if call.name in _ACCESS_CALLS:
        return _ask_for_access(call, *paths)
    with Frame.of(call, paths) as frame:
        lay_out(frame)
        if call.name in _MODE_ARGUMENT:
            index = _MODE_ARGUMENT[call.name]
            frame.arguments[index] = mode_for(call.tid, frame.arguments[index])
        result = frame.make(call.name)
        frame.hand_back(result)
    return Result(result)


def _ask_for_access(call: NotifiedCall, path: bytes) -> Reply:
    """The question is about the real user unless AT_EACCESS says otherwise; about the task's, not about ours."""
    (place,) = path_arguments(call.name)
    mode = call.arguments[place.index + 1]
    flags = call.arguments[place.index + 2] if call.name == "faccessat2" else 0
    with Frame(call, [AT_FDCWD, 0, mode, flags | _AT_EACCESS, 0, 0]) as frame:
        frame.put(1, path + b"\0")
        return Result(frame.make("faccessat2", real=not flags & _AT_EACCESS))


def _has_size_limit(tid: int) -> bool:
    """Whether a file may grow too long for the task, which then gets a signal (RLIMIT_FSIZE in getrlimit(2))."""
    try:
        with open(f"/proc/{tid}/limits", "rb") as limits:
            lines = limits.read().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TaskGone(f"task {tid} is gone") from error
    return not any(line.startswith(b"Max file size") and line.split()[3] == b"unlimited" for line in lines)


def _seen_from_here(path: bytes, tid: int) -> bytes:
    """/proc/self in a path means the task, not us."""
    for own, theirs in ((b"/proc/self", b"/proc/%d"), (b"/proc/thread-self", b"/proc/%d")):
        if path == own or path.startswith(own + b"/"):
            return theirs % tid + path[len(own) :]
    return path
