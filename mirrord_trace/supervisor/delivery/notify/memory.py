"""A task's memory by its id: process_vm_readv(2), process_vm_writev(2).

One system call and no descriptor, so there is nothing to keep, and nothing that an exec or a vfork could make stale. An
id may be another task's by the time it is used; who writes asks the listener first whether the notification still holds
(`NotifiedCall.check`). Unlike a tracer's writes these respect page protection: a read-only buffer is EFAULT, as
natively.

The functions are called without letting go of the interpreter's lock: they are shorter than getting it back. Their
arguments are prepared once for each thread: turning Python's numbers into C's costs as much as the call.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
from typing import Final

import attrs

from mirrord_trace.supervisor.delivery.base import PATH_MAX, MemoryFault, MemoryHidden, TaskGone

_PAGE: Final = 4096
_MOST_PATHS: Final = 256
"""Bytes that are read at first where a string is looked for."""

_libc = ctypes.PyDLL(None, use_errno=True)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
_ONE: Final = ctypes.c_ulong.from_param(1)
_NO_FLAGS: Final = ctypes.c_ulong.from_param(0)


_pack_transfer = struct.Struct("=QQQ").pack_into
_OUR_LENGTH: Final = 8
_THEIRS: Final = 16


class _Scratch:
    """Room for one transfer, and its two struct iovec (ours, then the task's): see iovec(3type)."""

    __slots__ = ("_pins", "iovecs", "ours", "room", "theirs")

    def __init__(self) -> None:
        self.room = bytearray(_PAGE)
        self.iovecs = bytearray(32)
        room = (ctypes.c_char * _PAGE).from_buffer(self.room)
        iovecs = (ctypes.c_char * 32).from_buffer(self.iovecs)
        self._pins = (room, iovecs)
        place = ctypes.addressof(iovecs)
        self.ours = ctypes.c_void_p.from_param(place)
        self.theirs = ctypes.c_void_p.from_param(place + _THEIRS)
        struct.pack_into("=Q", self.iovecs, 0, ctypes.addressof(room))


class _Scratches(threading.local):
    """One for each thread."""

    def __init__(self) -> None:
        self.own = _Scratch()


_scratches = _Scratches()


def _transfer_much(function: ctypes._FuncPointer, tid: int, ours: int, theirs: int, length: int) -> int:
    iovecs = (ctypes.c_uint64 * 4)(ours, length, theirs, length)
    place = ctypes.addressof(iovecs)
    their_place = ctypes.c_void_p(place + _THEIRS)
    done: int = function(tid, ctypes.c_void_p(place), _ONE, their_place, _ONE, _NO_FLAGS)
    return done


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
        if length > _PAGE:
            return self._read_much(address, length)
        scratch = _scratches.own
        _fill(scratch, self.tid, address, length)
        return bytes(scratch.room[:length])

    def write(self, address: int, data: bytes) -> None:
        """See `Memory.write`."""
        length = len(data)
        if length > _PAGE:
            self._write_much(address, data)
        elif length:
            scratch = _scratches.own
            scratch.room[:length] = data
            _pack_transfer(scratch.iovecs, _OUR_LENGTH, length, address, length)
            done = _writev(self.tid, scratch.ours, _ONE, scratch.theirs, _ONE, _NO_FLAGS)
            if done != length:
                raise _failure(done, length, self.tid, "write", address)

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """See `Memory.read_string`. Stops at `limit` bytes when there is no NUL before."""
        return _read_string(_scratches.own, self.tid, address, limit)

    def _read_much(self, address: int, length: int) -> bytes:
        room = bytearray(length)
        pin = (ctypes.c_char * length).from_buffer(room)
        done = _transfer_much(_readv, self.tid, ctypes.addressof(pin), address, length)
        if done != length:
            raise _failure(done, length, self.tid, "read", address)
        return bytes(room)

    def _write_much(self, address: int, data: bytes) -> None:
        pin = ctypes.c_char_p(data)
        ours = ctypes.cast(pin, ctypes.c_void_p).value
        assert ours is not None
        done = _transfer_much(_writev, self.tid, ours, address, len(data))
        if done != len(data):
            raise _failure(done, len(data), self.tid, "write", address)


def _read_string(scratch: _Scratch, tid: int, address: int, limit: int) -> bytes:
    room = scratch.room
    parts = b""
    wanted = _MOST_PATHS
    while limit > 0:
        length = min(_PAGE - address % _PAGE, wanted, limit)
        _fill(scratch, tid, address, length)
        end = room.find(0, 0, length)
        if end >= 0:
            return parts + room[:end]
        parts += room[:length]
        address += length
        limit -= length
        wanted = _PAGE
    return parts


def _fill(scratch: _Scratch, tid: int, address: int, length: int) -> None:
    _pack_transfer(scratch.iovecs, _OUR_LENGTH, length, address, length)
    done = _readv(tid, scratch.ours, _ONE, scratch.theirs, _ONE, _NO_FLAGS)
    if done != length:
        raise _failure(done, length, tid, "read", address)
