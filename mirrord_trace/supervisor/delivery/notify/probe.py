"""Whether calls can be notified here, found out by doing it once: a version number says nothing about a container.

A forked child installs a filter with a listener for one harmless call, makes that call, and gets a descriptor as its
result. All that the delivery needs on the way is done: the listener and another descriptor are taken from the child
with pidfd_getfd(2), its memory is read and written, the answer is given with SECCOMP_ADDFD_FLAG_SEND.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
from typing import Final, NoReturn

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.bpf import RET_USER_NOTIF, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, TaskGone
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.memory import TaskMemory
from mirrord_trace.supervisor.launch import Filtering

_CALL: Final = "getpgid"
_SIGN: Final = b"a sign in memory"
_TIMEOUT_MS: Final = 5000
_number = struct.Struct("=i")
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Calls cannot be notified here. Says why, and what would help, in words for the user."""


def probe(abi: Abi) -> None:
    """Returns if the notify delivery will work for a child of this process; raises Unavailable if not.

    Call it in the main thread. It takes a few milliseconds.
    """
    filtering = Filtering.of(compile_filter(Subscription.of([_CALL]), abi, RET_USER_NOTIF))
    sign = ctypes.create_string_buffer(_SIGN)  # at the same address in the child
    report_read, report_write = os.pipe()
    gate_read, gate_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(gate_write)
        _be_notified(filtering, report_write, gate_read, abi)
    os.close(report_write)
    os.close(gate_read)
    try:
        raw = os.read(report_read, _number.size)
        if not raw:
            raise Unavailable("a forked child was killed when it called seccomp(2): the container forbids that")
        (number,) = _number.unpack(raw)
        if number < 0:
            raise Unavailable(_refused(-number))
        _serve(child, number, report_write, ctypes.addressof(sign), gate_write)
        _, status = os.waitpid(child, 0)
        child = 0
        if status != 0:
            raise Unavailable("the kernel gives no descriptor as the answer (SECCOMP_ADDFD_FLAG_SEND): it needs 5.14")
    finally:
        os.close(report_read)
        os.close(gate_write)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, 9)
            os.waitpid(child, 0)


def _refused(error: int) -> str:
    if error == errno.EBUSY:
        return "this process has a seccomp listener already (a container manager's, or another mirrord-trace's)"
    if error == errno.EINVAL:
        return "the kernel knows no seccomp listeners: it needs Linux 5.14"
    return f"seccomp(2) with a listener fails: {os.strerror(error)}"


def _serve(child: int, number: int, another: int, sign: int, gate: int) -> None:
    """The supervisor's part, once. `number` is the child's listener, `another` a descriptor that it has."""
    try:
        listener = Listener(borrow_descriptor(child, number))
    except OSError as error:
        raise Unavailable(_no_borrowing(error)) from error
    with contextlib.closing(listener):
        listener.wake_synchronously()
        os.write(gate, b"\n")
        if not select.select([listener.descriptor], [], [], _TIMEOUT_MS / 1000)[0]:
            raise Unavailable("no notification arrives from a filter with a listener")
        notified = listener.receive()
        if notified is None:
            raise Unavailable("no notification arrives from a filter with a listener")
        identity, tid = notified[:2]
        memory = TaskMemory(tid)
        try:
            if memory.read(sign, len(_SIGN)) != _SIGN:
                raise Unavailable("process_vm_readv(2) reads something else than the child's memory")
            memory.write(sign, _SIGN)
            lent = borrow_descriptor(tid, another)
        except (MemoryHidden, MemoryFault, TaskGone) as error:
            raise Unavailable(
                f"the memory of a child cannot be read (process_vm_readv(2)){advice_on_tracing()}"
            ) from error
        except OSError as error:
            raise Unavailable(_no_borrowing(error)) from error
        listener.give(identity, lent, close_on_exec=True)


def _no_borrowing(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "the kernel has no pidfd_getfd(2): it needs Linux 5.6"
    return f"descriptors of a child cannot be duplicated (pidfd_getfd(2): {error.strerror}){advice_on_tracing()}"


def advice_on_tracing() -> str:
    """What would allow it to look into a child, to be put after a complaint."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/yama/ptrace_scope") as scope:
        if scope.read().strip() in ("2", "3"):
            return "; kernel.yama.ptrace_scope is 2 or 3: set it to 1"
    return "; in a container, add the SYS_PTRACE capability"


def _be_notified(filtering: Filtering, report: int, gate: int, abi: Abi) -> NoReturn:
    try:
        try:
            listener = filtering.install_with_listener()
        except OSError as error:
            os.write(report, _number.pack(-(error.errno or errno.EINVAL)))
            os._exit(0)
        os.write(report, _number.pack(listener))
        os.read(gate, 1)
        os.close(listener)
        given = _libc.syscall(abi.numbers[_CALL], 0)
        if given >= 0:
            os.close(given)
            os._exit(0)
    finally:
        os._exit(1)
