"""Every intercepted call of a run as an event of the Chrome trace format, which Perfetto opens.

The file is a JSON array, one event a line, and is written as the calls come: what is kept in memory is bounded, and of
a run that is killed all lines but the last few are there. The format allows that the closing bracket is missing then,
but not every viewer does (Perfetto 47): so the array is closed after each piece, and the next takes the end's place.

Nothing here is on the way of a call unless a trace was asked for: then handlers are wrapped, once, when they are put
together, and a delivery is told of no `Concerns`, so that it brings every call to the wrapper.

Threads: a handler's synchronous part is recorded in the delivery's thread, its coroutine in Trio's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import trio

from mirrord_syscalls.abi import ArgumentKind
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, decode_sockaddr
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor.delivery.base import (
    Call,
    Fail,
    Handler,
    Handlers,
    MemoryFault,
    MemoryHidden,
    Pass,
    PresentAddresses,
    Return,
    TaskGone,
    UseAddress,
    UseAddresses,
    UsePath,
    UsePaths,
    Verdict,
    verdict_for,
)

_BUFFER_BYTES: Final = 1 << 16
_END: Final = b"\n]\n"
_FLUSH_EVERY_S: Final = 0.25
_NAMES_KEPT: Final = 4096
_SOCKADDR_BYTES: Final = 128  # sizeof(struct sockaddr_storage)
_EXECUTING: Final = ("execve", "execveat")


@attrs.define(eq=False)
class TraceFile:
    """A trace that is being written. From any thread."""

    path: str
    warn: Callable[[str], None]
    """Gets why the trace ends early, if it does; called in the main thread."""
    _descriptor: int
    _lines: list[bytes] = attrs.field(factory=lambda: [b"["])
    _size: int = 0
    _written: int = 0
    """So many bytes of the file are whole events."""
    _has_events: bool = False
    _trouble: str | None = None
    _has_warned: bool = False
    _processes: dict[int, int] = attrs.field(factory=dict)
    """By task, for those whose names are up to date."""
    _names: dict[tuple[str, int], str] = attrs.field(factory=dict)
    """The names that are written, by kind and task."""
    _changing: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def create(cls, path: str, warn: Callable[[str], None]) -> TraceFile:
        """Makes or empties the file. Raises Failure."""
        try:
            # Without waiting for the reader of a FIFO, which is refused below.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise Failure(f"cannot write the trace to {path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Failure(f"cannot write the trace to {path}: it is not a regular file")
        os.ftruncate(descriptor, 0)
        return cls(path, warn, descriptor)

    def add(self, call: Call, began_ns: int, ended_ns: int, details: dict[str, object]) -> None:
        """One call from its arrival to the decision, by time.monotonic_ns."""
        with self._changing:
            if self._trouble is not None:
                return
            process = self._name(call)
            self._append(
                {
                    "name": call.name,
                    "cat": "syscall",
                    "ph": "X",
                    "ts": began_ns / 1000,
                    "dur": (ended_ns - began_ns) / 1000,
                    "pid": process,
                    "tid": call.tid,
                    "args": details,
                }
            )
            if self._size >= _BUFFER_BYTES:
                self._flush()

    def _name(self, call: Call) -> int:
        """The task's process; the names of both are in the trace from their first call after an exec on."""
        process = self._processes.get(call.tid)
        if process is None:
            if len(self._names) >= _NAMES_KEPT:
                self._processes.clear()
                self._names.clear()
            process = self._processes[call.tid] = _process_of(call.tid)
            for kind, task in (("process_name", process), ("thread_name", call.tid)):
                name = _command_name(task)
                if self._names.get((kind, task)) != name:
                    self._names[kind, task] = name
                    self._append({"name": kind, "ph": "M", "pid": process, "tid": task, "args": {"name": name}})
        if call.name in _EXECUTING:
            self._processes.pop(call.tid, None)
        return process

    def _append(self, event: dict[str, object]) -> None:
        line = (b",\n" if self._has_events else b"\n") + json.dumps(event, separators=(",", ":")).encode()
        self._has_events = True
        self._lines.append(line)
        self._size += len(line)

    def _flush(self) -> None:
        if not self._lines:
            return
        piece = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            self._write(piece + _END)
            self._written += len(piece)
        except OSError as error:
            self._trouble = error.strerror

    def _write(self, data: bytes) -> None:
        """Puts it in the place of the end. Raises OSError."""
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], self._written + done)

    async def write_out(self) -> None:
        """Writes what has come, again and again; tells when that fails."""
        while self._trouble is None:
            await trio.sleep(_FLUSH_EVERY_S)
            with self._changing:
                if self._trouble is None:
                    self._flush()
        self._warn(self._trouble)

    def _warn(self, trouble: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self.warn(f"the trace in {self.path} is not complete: {trouble}")

    def close(self) -> None:
        """Completes the file."""
        with self._changing:
            if self._trouble is None:
                self._flush()
            if self._trouble is not None:
                self._warn(self._trouble)
                with contextlib.suppress(OSError):  # whole events, and an end if there is room
                    os.ftruncate(self._descriptor, self._written)
                    self._write(_END if self._written else b"[]\n")
            self._trouble = "it is closed"
            os.close(self._descriptor)


def traced(handlers: Handlers, trace: TraceFile, tree_root: bytes | None) -> Handlers:
    """The same handlers, each of whose calls is recorded. What is below `tree_root` on this machine is the target's."""

    def wrapped(handler: Handler) -> Handler:
        def handle(call: Call) -> Verdict | Coroutine[Any, Any, Verdict]:
            began = time.monotonic_ns()
            try:
                answer = handler(call)
            except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
                trace.add(call, began, time.monotonic_ns(), {**subject_of(call), **_of_exception(error)})
                raise
            ended = time.monotonic_ns()
            subject = subject_of(call)
            if isinstance(answer, Coroutine):
                return _awaited(call, answer, began, subject)
            trace.add(call, began, ended, {**subject, **decision_of(answer, tree_root)})
            return answer

        return handle

    async def _awaited(
        call: Call, answer: Coroutine[Any, Any, Verdict], began: int, subject: dict[str, object]
    ) -> Verdict:
        decision: dict[str, object] = {"decision": "abandoned"}
        try:
            verdict = await answer
            decision = decision_of(verdict, tree_root)
            return verdict
        except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
            decision = _of_exception(error)
            raise
        finally:
            trace.add(call, began, time.monotonic_ns(), {**subject, **decision, "held": True})

    by_name = {name: wrapped(handler) for name, handler in handlers.by_name.items()}
    return attrs.evolve(handlers, by_name=by_name, concerns={})


def decision_of(verdict: Verdict, tree_root: bytes | None) -> dict[str, object]:
    """What a verdict comes to, in words."""
    match verdict:
        case Pass():
            return {"decision": "passed"}
        case Fail(errno.ENOENT):
            return {"decision": "not found"}
        case Fail(number):
            return {"decision": f"errno {errno.errorcode.get(number, number)}"}
        case Return(value):
            return {"decision": "value", "value": value}
        case UseAddress() | UseAddresses():
            return {"decision": "remote"}
        case UsePath(path):
            return {"decision": _side(path, tree_root)}
        case UsePaths(paths):
            sides = {_side(path, tree_root) for path in paths}
            return {"decision": sides.pop() if len(sides) == 1 else "local and remote"}
        case PresentAddresses():
            return {"decision": "passed, addresses translated"}


def _side(path: bytes, tree_root: bytes | None) -> str:
    return "remote" if tree_root is not None and path.startswith(tree_root.rstrip(b"/") + b"/") else "local"


def _of_exception(error: Exception) -> dict[str, object]:
    if isinstance(error, OSError):
        return decision_of(verdict_for(error), None)
    return {"decision": "gone" if isinstance(error, TaskGone) else "unreadable"}


def subject_of(call: Call) -> dict[str, object]:
    """What a call is about: paths, an address, a descriptor."""
    subject: dict[str, object] = {}
    paths = []
    for index, kind in enumerate(call.abi.arguments.get(call.name, ())):
        try:
            match kind:
                case ArgumentKind.PATH:
                    paths.append(_text(call.memory.read_string(call.arguments[index])))
                case ArgumentKind.SOCKADDR if call.name in ("connect", "bind", "sendto") and call.arguments[index]:
                    length = min(call.integer(index + 1), _SOCKADDR_BYTES)
                    raw = call.memory.read(call.arguments[index], max(0, length))
                    subject["address"] = _address(decode_sockaddr(raw))
                case ArgumentKind.FD:
                    subject["descriptor"] = call.integer(index)
        except (MemoryFault, MemoryHidden, TaskGone, OSError, ValueError):
            continue
    if paths:
        subject["path"] = paths[0] if len(paths) == 1 else paths
    return subject


def _address(address: SocketAddress) -> str:
    match address:
        case Inet4(host, port):
            return f"{host}:{port}"
        case Inet6(host=host, port=port):
            return f"[{host}]:{port}"
        case Unix(path):
            return "unix:" + _text(path.replace(b"\0", b"@"))
    return type(address).__name__.lower()


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _process_of(tid: int) -> int:
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{tid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Tgid:"):
                return int(line[5:])
    return tid


def _command_name(tid: int) -> str:
    try:
        with open(f"/proc/{tid}/comm", "rb") as file:
            return _text(file.read().rstrip(b"\n"))
    except OSError:
        return str(tid)
