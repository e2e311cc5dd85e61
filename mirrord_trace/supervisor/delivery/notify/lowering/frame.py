"""The arguments of a path call that is made here; what they point to is brought here, and handed back.

The call is made with buffers of ours in place of the task's. An address at which the task has nothing becomes one where
nobody can have anything, so it is the kernel who finds fault with it, and in its own order. Only what the call has
filled is written back.

A wait is ended by a signal of ours when the task's own would end (see `workers`). The task then gets what the kernel
gives a call that a signal interrupts: it is made again, or fails with EINTR, as the task's handler for the signal says
(signal(7)). That is safe only where this very task will look at the signal; others get EINTR.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import Final, Self

import attrs

from mirrord_syscalls.abi import path_arguments
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, MemoryFault
from mirrord_trace.supervisor.delivery.notify.held import Status
from mirrord_trace.supervisor.delivery.notify.lowering.credentials import rights_of
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall

NOWHERE: Final = (1 << 64) - 4096
"""An address of the kernel's: EFAULT, for every process."""
_ERESTARTSYS: Final = 512  # linux/errno.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.syscall.restype = ctypes.c_long

Filled = Callable[[int, bytes], int]
"""How many bytes a call has filled, by its result and what the buffer holds now."""


@attrs.define(eq=False)
class Frame:
    """One call's arguments, as they are used here. It is a context: what was borrowed for the call ends with it."""

    call: NotifiedCall
    arguments: list[int]
    _rooms: list[ctypes.Array[ctypes.c_char]] = attrs.field(factory=list)
    _lent: list[tuple[int, ctypes.Array[ctypes.c_char], Filled]] = attrs.field(factory=list)
    """An address in the task, the room here, and how much of it is to go there."""
    _loans: ExitStack = attrs.field(factory=ExitStack)

    @classmethod
    def of(cls, call: NotifiedCall, paths: Sequence[bytes]) -> Self:
        """With these paths, all absolute, one for each path argument in order."""
        frame = cls(call, list(call.arguments))
        for place, path in zip(path_arguments(call.name), paths, strict=True):
            frame.put(place.index, path + b"\0")
            if place.directory is not None:
                frame.arguments[place.directory] = AT_FDCWD
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loans.close()

    # -- what a call reads --------------------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes | None:
        """The task's memory; None where nothing is to be read. Raises TaskGone, MemoryHidden."""
        try:
            return self.call.memory.read(address, length) if address else None
        except MemoryFault:
            return None

    def room_with(self, data: bytes) -> int:
        """The address of these bytes here."""
        room = ctypes.create_string_buffer(data, len(data) or 1)
        self._rooms.append(room)
        return ctypes.addressof(room)

    def put(self, index: int, data: bytes) -> None:
        """Argument `index` is the address of these bytes."""
        self.arguments[index] = self.room_with(data)

    def put_nothing(self, index: int) -> None:
        """Argument `index` is an address at which nothing is; a null pointer stays one."""
        if self.arguments[index]:
            self.arguments[index] = NOWHERE

    def bring(self, index: int, length: int) -> None:
        """Argument `index` is the address of so many bytes of the task."""
        data = self.read(self.arguments[index], length)
        if data is None:
            self.put_nothing(index)
        else:
            self.put(index, data)

    def bring_text(self, index: int, room: int) -> None:
        """Argument `index` is the address of a string of the task, which takes up to `room` bytes with its NUL."""
        try:
            self.put(index, self.call.memory.read_string(self.arguments[index], room) + b"\0")
        except MemoryFault:
            self.put_nothing(index)

    def borrow(self, index: int) -> None:
        """Argument `index` is a descriptor of the task's. Raises OSError, TaskGone."""
        try:
            self.arguments[index] = self.hold(self.call.borrow(self.call.integer(index)))
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self.arguments[index] = -1

    def hold(self, descriptor: int) -> int:
        """A descriptor of ours, to be closed in the end."""
        return self._loans.enter_context(Loan(descriptor)).number

    # -- what it fills ------------------------------------------------------------------------------------------------

    def room_for(self, address: int, content: bytes, filled: Filled) -> int:
        """The address of a buffer here, to go to `address` in the task when the call has filled it."""
        here = self.room_with(content)
        self._lent.append((address, self._rooms[-1], filled))
        return here

    def lend(self, index: int, length: int, filled: Filled) -> None:
        """Argument `index` is the address of so many bytes to be filled."""
        self.arguments[index] = self.room_for(self.arguments[index], bytes(length), filled)

    def hand_back(self, result: int) -> None:
        """Writes what the call filled, when this was its result, to the task. Raises MemoryFault, TaskGone."""
        for address, room, filled in self._lent:
            length = filled(result, room.raw)
            if length > 0:
                self.call.check()
                self.call.memory.write(address, room.raw[:length])

    # -- the call -----------------------------------------------------------------------------------------------------

    def make(self, name: str, *, real: bool = False) -> int:
        """Makes the call with the task's rights. The result as the kernel gives it: a negative errno on failure.

        Raises OSError and TaskGone: then the call has not been made, or was interrupted.
        """
        call, number = self.call, self.call.abi.numbers[name]
        while True:
            call.check()
            with rights_of(call.tid, real=real) if call.rights_count else nullcontext():
                result: int = _libc.syscall(number, *self.arguments)
                error = ctypes.get_errno()
            if result >= 0:
                return result
            if error != errno.EINTR:
                return -error
            call.check()
            if call.has_pending_signal():
                return -_ERESTARTSYS if _looks_at_signals(call.tid) else -errno.EINTR


def _looks_at_signals(tid: int) -> bool:
    """Whether a signal is there that the kernel has told this very task of."""
    status = Status.of(tid)
    if status is None:
        return False
    pending = status.pending | (status.shared_pending if status.tid == status.process else 0)
    return bool(pending & ~status.blocked & ~status.ignored)
