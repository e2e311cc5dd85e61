"""A task's memory by its id: process_vm_readv(2), process_vm_writev(2).

One system call and no descriptor, so there is nothing to keep, and nothing that an exec or a vfork could make stale. An
id may be another task's by the time it is used; who writes asks the listener first whether the notification still holds
(`NotifiedCall.check`). Unlike a tracer's writes these respect page protection: a read-only buffer is EFAULT, as
natively.

The functions are called without letting go of the interpreter's lock: they are shorter than getting it back.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from typing import Final

import attrs

from mirrord_trace.supervisor.delivery.base import PATH_MAX, MemoryFault, MemoryHidden, TaskGone

_PAGE: Final = 4096
_MOST_PATHS: Final = 256
"""Bytes that are read at first where a string is looked for."""

_libc = ctypes.PyDLL(None, use_errno=True)
_transfer_types = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
for _function in (_readv, _writev):
    _function.argtypes = _transfer_types
    _function.restype = ctypes.c_ssize_t


class _Scratch(threading.local):
    """Room for one transfer, for each thread."""

    def __init__(self) -> None:
        self.room = bytearray(_PAGE)
        self._pin = (ctypes.c_char * _PAGE).from_buffer(self.room)
        self.address = ctypes.addressof(self._pin)
        self.vectors = (ctypes.c_uint64 * 4)()
        """Our struct iovec, then the task's."""
        self.ours = ctypes.addressof(self.vectors)
        self.theirs = self.ours + 16


_scratch = _Scratch()


def _check(done: int, length: int, tid: int, what: str, address: int) -> None:
    if done == length:
        return
    error = ctypes.get_errno() if done < 0 else errno.EFAULT
    if error == errno.ESRCH:
        raise TaskGone(f"task {tid} is gone")
    if error in (errno.EPERM, errno.EACCES):
        raise MemoryHidden(f"memory of task {tid}")
    raise MemoryFault(f"cannot {what} {length} bytes at {address:#x} of task {tid}")


@attrs.frozen
class TaskMemory:
    """The memory that task `tid` has at the moment of each call. See `base.Memory`; raises MemoryHidden too."""

    tid: int

    def read(self, address: int, length: int) -> bytes:
        """See `Memory.read`."""
        if length > _PAGE:
            room = bytearray(length)
            pin = (ctypes.c_char * length).from_buffer(room)
            self._transfer(_readv, ctypes.addressof(pin), address, length, "read")
            del pin
            return bytes(room)
        scratch = _scratch
        self._transfer(_readv, scratch.address, address, length, "read")
        return bytes(memoryview(scratch.room)[:length])

    def write(self, address: int, data: bytes) -> None:
        """See `Memory.write`."""
        if data:
            pin = ctypes.c_char_p(data)
            ours = ctypes.cast(pin, ctypes.c_void_p).value
            assert ours is not None
            self._transfer(_writev, ours, address, len(data), "write")

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """See `Memory.read_string`. Stops at `limit` bytes when there is no NUL before."""
        scratch = _scratch
        parts = b""
        wanted = _MOST_PATHS
        while limit > 0:
            length = min(_PAGE - address % _PAGE, wanted, limit)
            self._transfer(_readv, scratch.address, address, length, "read")
            end = scratch.room.find(0, 0, length)
            if end >= 0:
                return parts + bytes(memoryview(scratch.room)[:end])
            parts += bytes(memoryview(scratch.room)[:length])
            address += length
            limit -= length
            wanted = _PAGE
        return parts

    def _transfer(self, function: ctypes._FuncPointer, ours: int, theirs: int, length: int, what: str) -> None:
        scratch = _scratch
        scratch.vectors[:] = [ours, length, theirs, length]
        done = function(self.tid, scratch.ours, 1, scratch.theirs, 1, 0)
        if done != length:
            _check(done, length, self.tid, what, theirs)
