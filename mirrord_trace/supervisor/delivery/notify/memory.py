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
from typing import Final

import attrs

from mirrord_trace.supervisor.delivery.base import PATH_MAX, MemoryFault, MemoryHidden, TaskGone

_PAGE: Final = 4096
_MOST_PATHS: Final = 256
"""Bytes that are read at first where a string is looked for."""

_libc = ctypes.PyDLL(None, use_errno=True)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
_iovecs = ctypes.c_uint64 * 2
_ONE: Final = ctypes.c_ulong(1)
_NO_FLAGS: Final = ctypes.c_ulong(0)


def _failure(done: int, length: int, tid: int, what: str, address: int) -> Exception:
    error = ctypes.get_errno() if done < 0 else errno.EFAULT
    if error == errno.ESRCH:
        return TaskGone(f"task {tid} is gone")
    if error in (errno.EPERM, errno.EACCES):
        return MemoryHidden(f"memory of task {tid}")
    return MemoryFault(f"cannot {what} {length} bytes at {address:#x} of task {tid}")


@attrs.frozen
class TaskMemory:
    """The memory that task `tid` has at the moment of each call. See `base.Memory`; raises MemoryHidden too."""

    tid: int

    def read(self, address: int, length: int) -> bytes:
        """See `Memory.read`."""
        room = ctypes.create_string_buffer(length)
        self._transfer(_readv, room, address, length, "read")
        return room.raw

    def write(self, address: int, data: bytes) -> None:
        """See `Memory.write`."""
        self._transfer(_writev, ctypes.create_string_buffer(data, len(data)), address, len(data), "write")

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """See `Memory.read_string`. Stops at `limit` bytes when there is no NUL before."""
        text = b""
        wanted = _MOST_PATHS
        while len(text) < limit:
            part = self.read(address, min(_PAGE - address % _PAGE, wanted, limit - len(text)))
            end = part.find(0)
            if end >= 0:
                return text + part[:end]
            text += part
            address += len(part)
            wanted = _PAGE
        return text

    def _transfer(
        self, function: ctypes._FuncPointer, room: ctypes.Array[ctypes.c_char], address: int, length: int, what: str
    ) -> None:
        """Between our `room` and the task's memory; each is a struct iovec: process_vm_readv(2)."""
        if not length:
            return
        ours, theirs = _iovecs(ctypes.addressof(room), length), _iovecs(address, length)
        done: int = function(self.tid, ours, _ONE, theirs, _ONE, _NO_FLAGS)
        if done != length:
            raise _failure(done, length, self.tid, what, address)
