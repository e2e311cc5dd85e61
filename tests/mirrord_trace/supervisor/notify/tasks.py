"""A task for lowerings that is this very process: its memory are buffers of ctypes, its descriptors are real."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.notify.lowering import lower
from mirrord_trace.supervisor.delivery.notify.memory import MemoryAccess, TaskMemory
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall, Reply

NOWHERE = 8
"""An address at which nothing is mapped."""


def open_descriptors() -> frozenset[str]:
    """The descriptors of this process, but for the one that lists them."""
    return frozenset(name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))


@attrs.define(eq=False)
class FakeTask:
    """Makes calls. What was allotted lives as long as this."""

    signal_is_pending: bool = False
    checks: int = 0
    on_check: Callable[[], None] = lambda: None
    access: MemoryAccess = attrs.field(factory=MemoryAccess)
    _buffers: list[ctypes.Array[ctypes.c_char]] = attrs.field(factory=list)

    def buffer(self, data: bytes | int) -> int:
        """The address of a buffer with this data, or of so many zeros, followed by a guard."""
        content = bytes(data)
        room = ctypes.create_string_buffer(content + b"GUARD", len(content) + 5)
        self._buffers.append(room)
        return ctypes.addressof(room)

    def read(self, address: int, length: int) -> bytes:
        return ctypes.string_at(address, length)

    def call(self, name: str, sock: socket.socket, *arguments: int) -> NotifiedCall:
        padded = (sock.fileno(), *arguments, *(0,) * (5 - len(arguments)))
        masked = tuple(argument & 0xFFFF_FFFF_FFFF_FFFF for argument in padded)
        return NotifiedCall(
            os.getpid(),
            name,
            masked,
            TaskMemory(os.getpid(), self.access),
            native_abi(),
            lend=lambda _, number: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0),
            check=self._check,
            is_interrupted=lambda: self.signal_is_pending,
            access=self.access,
        )

    def _check(self) -> None:
        self.checks += 1
        self.on_check()


def int_of(raw: bytes) -> int:
    """A C int."""
    return int.from_bytes(raw, sys.byteorder, signed=True)


async def settled(reply: Reply | Coroutine[Any, Any, Reply]) -> Reply:
    return await reply if isinstance(reply, Coroutine) else reply


__all__ = ["NOWHERE", "FakeTask", "lower", "int_of", "open_descriptors", "settled"]
