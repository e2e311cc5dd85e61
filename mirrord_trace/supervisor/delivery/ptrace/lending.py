"""Descriptors of a task that is stopped before a call, duplicated into this process where pidfd_getfd(2) is denied.

Docker's default seccomp profile allows ptrace(2) but not pidfd_getfd(2). There the task itself sends the descriptor
(SCM_RIGHTS, unix(7)) to an abstract socket of ours. Its name is no secret, for /proc/net/unix lists it: what arrives
is taken only if it is the file that the task has under that number.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import Unix, encode_sockaddr
from mirrord_syscalls.structs import ControlMessage, Iovec, Msghdr, encode_control
from mirrord_trace.supervisor.delivery.base import MemoryFault, TaskGone
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.spaces import MAPPING, AddressSpace
from mirrord_trace.supervisor.delivery.ptrace.stops import Stops
from mirrord_trace.supervisor.delivery.ptrace.surgery import Operation, operate
from mirrord_trace.supervisor.delivery.ptrace.tasks import Task
from mirrord_trace.supervisor.delivery.ptrace.tree import Tree

_NAME_BYTES: Final = 16
_int = struct.Struct("=i")


@attrs.define(eq=False)
class Lender:
    """Lets tasks lend us their descriptors."""

    machine: Machine
    stops: Stops
    tree: Tree
    ask: Callable[[Callable[[], int]], int]
    """Gives what a function gives in the tracer's thread."""
    lost: Callable[[Task], None]
    """Told of a task that has left its call."""
    _socket: socket.socket = attrs.field(init=False)
    _name: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._name = b"\0mirrord-trace-" + secrets.token_hex(_NAME_BYTES).encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._name)

    def close(self) -> None:
        """Gives our socket back."""
        self._socket.close()

    def lend(self, tid: int, descriptor: int) -> int:
        """A close-on-exec duplicate of a descriptor of a task at a seccomp stop, for the caller to close.

        From any thread. Raises OSError (EBADF; or what went wrong in the task) or TaskGone.
        """
        return self.ask(lambda: self._lend(tid, descriptor))

    def _lend(self, tid: int, descriptor: int) -> int:
        task = self.tree.get(tid)
        if task is None:
            raise TaskGone(f"task {tid} is gone")
        try:
            return self._operate(task, descriptor)
        except TaskGone:
            self.lost(task)
            raise

    def _operate(self, task: Task, descriptor: int) -> int:
        self._drain()
        with operate(task.tid, self.machine, self.stops) as operation:
            slot = self._prepare(task.space, operation, descriptor)
            try:
                _send(operation, slot)
            finally:
                task.space.give_back(slot)
        try:
            wanted = os.stat(f"/proc/{task.tid}/fd/{descriptor}")
        except OSError as error:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), f"descriptor {descriptor}") from error
        return self._receive(wanted)

    def _prepare(self, space: AddressSpace, operation: Operation, descriptor: int) -> int:
        """A slot with our message in it."""
        while True:
            slot = space.take_slot()
            if slot is None:
                space.add_region(_checked(operation.call("mmap", *MAPPING)))
                continue
            try:
                if space.fill_slot(slot, self._message(slot, descriptor)):
                    return slot
            except MemoryFault as error:
                space.give_back(slot)
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error

    def _message(self, slot: int, descriptor: int) -> bytes:
        """A msghdr at the start of the slot, and behind it what it points to."""
        name = encode_sockaddr(Unix(self._name))
        control = encode_control([ControlMessage(socket.SOL_SOCKET, socket.SCM_RIGHTS, _int.pack(descriptor))])
        control_at = slot + Msghdr.SIZE
        part_at = control_at + len(control)
        name_at = part_at + Iovec.SIZE
        header = Msghdr(name_at, len(name), part_at, 1, control_at, len(control), 0)
        part = Iovec(name_at, 1)  # any byte: a datagram without one carries no descriptors on old kernels
        return header.encode() + control + part.encode() + name

    def _receive(self, wanted: os.stat_result) -> int:
        received = self._next()
        while received is not None:
            for descriptor in received:
                found = os.fstat(descriptor)
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    _close(other for other in received if other != descriptor)
                    self._drain()
                    return descriptor
            _close(received)
            received = self._next()
        raise OSError(errno.EBADF, "the task has closed the descriptor meanwhile")

    def _drain(self) -> None:
        received = self._next()
        while received is not None:
            _close(received)
            received = self._next()

    def _next(self) -> list[int] | None:
        """The descriptors of the next datagram; None when there is none."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        return descriptors


def _send(operation: Operation, message: int) -> None:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    sender = _checked(operation.call("socket", socket.AF_UNIX, kind, 0))
    try:
        _checked(operation.call("sendmsg", sender, message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))
    finally:
        operation.call("close", sender)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), "in the task, to lend a descriptor")
    return result


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
