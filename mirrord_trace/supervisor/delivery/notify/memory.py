"""A task's memory by its id: process_vm_readv(2), process_vm_writev(2).

One system call and no descriptor, so there is nothing to keep, and nothing that an exec or a vfork could make stale. An
id may be another task's by the time it is used; who writes asks the listener first whether the notification still holds
(`NotifiedCall.check`). Unlike a tracer's writes these respect page protection: a read-only buffer is EFAULT, as
natively.

The functions are called without letting go of the interpreter's lock: they are shorter than getting it back. But a
page may be one of a file that this very process serves (the mirror tree), mapped and not read yet: then the kernel
waits for us to read it, in Trio's thread, which needs the lock. From the moment when the first file of the tree is
opened that is possible, and `MemoryAccess.patient` is set: the lock is let go of, and Trio's thread may not come here.
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

_brief = ctypes.PyDLL(None, use_errno=True)
_patient = ctypes.CDLL(None, use_errno=True)
_FUNCTIONS: Final = {
    is_patient: {"read": library.process_vm_readv, "write": library.process_vm_writev}
    for is_patient, library in ((False, _brief), (True, _patient))
}
for _functions in _FUNCTIONS.values():
    for _function in _functions.values():
        _function.restype = ctypes.c_ssize_t
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


@attrs.define(eq=False)
class MemoryAccess:
    """How the memory of a tree's tasks is to be read and written: one object for all of them."""

    patient: bool = False
    """Whether a page may have to come from a file system that this process serves. Set once, from any thread."""


BRIEF: Final = MemoryAccess()
"""For tasks that have nothing mapped from such a file system."""


@attrs.frozen
class TaskMemory:
    """The memory that task `tid` has at the moment of each call. See `base.Memory`; raises MemoryHidden too."""

    tid: int
    access: MemoryAccess = BRIEF

    def read(self, address: int, length: int) -> bytes:
        """See `Memory.read`."""
        room = ctypes.create_string_buffer(length)
        self._transfer("read", room, address, length)
        return room.raw

    def write(self, address: int, data: bytes) -> None:
        """See `Memory.write`."""
        self._transfer("write", ctypes.create_string_buffer(data, len(data)), address, len(data))

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

    def _transfer(self, what: str, room: ctypes.Array[ctypes.c_char], address: int, length: int) -> None:
        """Between our `room` and the task's memory; each is a struct iovec: process_vm_readv(2)."""
        if not length:
            return
        ours, theirs = _iovecs(ctypes.addressof(room), length), _iovecs(address, length)
        done: int = _FUNCTIONS[self.access.patient][what](self.tid, ours, _ONE, theirs, _ONE, _NO_FLAGS)
        if done != length:
            raise _failure(done, length, self.tid, what, address)
