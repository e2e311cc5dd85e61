"""The descriptor on which the kernel tells of calls, and takes the answers: seccomp_unotify(2).

Kernel facts. A _receiving buffer must be zeroed. A notification is void when its task was killed, or (where the filter
could not be installed with WAIT_KILLABLE_RECV) when a signal interrupted it: then ENOENT is the answer to everything.
With SYNC_WAKE_UP the kernel wakes us on the task's own processor and the other way round, which halves the price.

This is the path of every intercepted call. The arguments of ioctl(2) are prepared once for each thread, because turning
Python's numbers into C's costs as much as the call. Receiving lets go of the interpreter's lock; answering does not,
because that is shorter than getting the lock back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import Final

import attrs

from mirrord_syscalls.structs import notification

_receiving = ctypes.CDLL(None, use_errno=True).ioctl
_answering = ctypes.PyDLL(None, use_errno=True).ioctl

_ZEROS: Final = bytes(notification.NOTIFICATION_BYTES)
_RECEIVE: Final = ctypes.c_ulong.from_param(notification.RECEIVE)
_SEND: Final = ctypes.c_ulong.from_param(notification.SEND)
_ID_VALID: Final = ctypes.c_ulong.from_param(notification.ID_VALID)
_ADDFD: Final = ctypes.c_ulong.from_param(notification.ADDFD)
_SET_FLAGS: Final = ctypes.c_ulong.from_param(notification.SET_FLAGS)


class _Room:
    """A buffer with a fixed address."""

    __slots__ = ("_pin", "address", "buffer")

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self._pin = (ctypes.c_char * size).from_buffer(self.buffer)
        self.address = ctypes.c_void_p.from_param(ctypes.addressof(self._pin))


class _Rooms(threading.local):
    """Room for an answer, for each thread."""

    def __init__(self) -> None:
        self.response = _Room(notification.RESPONSE_BYTES)
        self.identity = _Room(8)


_rooms = _Rooms()


@attrs.define(eq=False)
class Listener:
    """Owns the descriptor. `receive` belongs to one thread; answers may come from any."""

    descriptor: int
    _number: object = attrs.field(init=False)
    _notification: _Room = attrs.field(init=False, factory=lambda: _Room(notification.NOTIFICATION_BYTES))

    @_number.default
    def _as_argument(self) -> object:
        return ctypes.c_int.from_param(self.descriptor)

    def wake_synchronously(self) -> bool:
        """Asks for SYNC_WAKE_UP; whether the kernel has it."""
        # The kernel takes the flags by value, not through a pointer.
        wanted = ctypes.c_ulong.from_param(notification.FLAG_SYNC_WAKE_UP)
        return bool(_answering(self._number, _SET_FLAGS, wanted) == 0)

    def receive(self) -> tuple[int, ...] | None:
        """Waits for a notification: the fields of `notification.NOTIFICATION`.

        None when there was none after all: a signal came, its task was killed, or all tasks are gone. Raises OSError.
        """
        room = self._notification
        room.buffer[:] = _ZEROS
        if _receiving(self._number, _RECEIVE, room.address) == 0:
            return notification.NOTIFICATION.unpack(room.buffer)
        _check_received()
        return None

    def is_valid(self, identity: int) -> bool:
        """Whether a task still waits for the answer to this notification."""
        room = _rooms.identity
        room.buffer[:] = identity.to_bytes(8, "little")
        return bool(_answering(self._number, _ID_VALID, room.address) == 0)

    def let_go(self, identity: int) -> None:
        """The kernel makes the call. Nothing happens when nobody waits any more, here as below."""
        self._send(identity, 0, 0, notification.FLAG_CONTINUE)

    def answer(self, identity: int, value: int) -> None:
        """The call returns `value`, a negative errno on failure."""
        if value < 0:
            self._send(identity, 0, value, 0)
        else:
            self._send(identity, value, 0, 0)

    def give(self, identity: int, descriptor: int, *, close_on_exec: bool) -> None:
        """The call returns a duplicate of our descriptor; EMFILE, say, when the task can have no more."""
        request = notification.encode_addfd(identity, descriptor, os.O_CLOEXEC if close_on_exec else 0)
        if _answering(self._number, _ADDFD, ctypes.c_char_p(request)) < 0:
            error = ctypes.get_errno()
            if error != errno.ENOENT:
                self.answer(identity, -error)

    def close(self) -> None:
        """Gives the descriptor back. Every call that is intercepted after the last duplicate is closed gets ENOSYS."""
        os.close(self.descriptor)

    def _send(self, identity: int, value: int, error: int, flags: int) -> None:
        room = _rooms.response
        notification.RESPONSE.pack_into(room.buffer, 0, identity, value, error, flags)
        if _answering(self._number, _SEND, room.address) != 0:
            _check_sent()


def _check_received() -> None:
    """After a wait that brought nothing: raises OSError unless a signal came, or the notification was void."""
    failure = ctypes.get_errno()
    if failure not in (errno.EINTR, errno.ENOENT):
        raise OSError(failure, os.strerror(failure), "seccomp listener")


def _check_sent() -> None:
    """After an answer that the kernel did not take: raises OSError unless nobody waits for it."""
    failure = ctypes.get_errno()
    if failure not in (errno.ENOENT, errno.EINPROGRESS):  # gone, or answered already
        raise OSError(failure, os.strerror(failure), "seccomp listener")
