"""The descriptor on which the kernel tells of calls, and takes the answers: seccomp_unotify(2).

Kernel facts. A receiving buffer must be zeroed. A notification is void when its task was killed, or (where the filter
could not be installed with WAIT_KILLABLE_RECV) when a signal interrupted it: then ENOENT is the answer to everything.
With SYNC_WAKE_UP the kernel wakes us on the task's own processor and the other way round, which halves the price.

Receiving lets go of the interpreter's lock; answering does not, because it is shorter than getting the lock back.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

import attrs

from mirrord_syscalls.structs import notification

_receiving = ctypes.CDLL(None, use_errno=True).ioctl
_answering = ctypes.PyDLL(None, use_errno=True).ioctl
for _function in (_receiving, _answering):
    _function.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
    _function.restype = ctypes.c_int

_ZEROS: Final = bytes(notification.NOTIFICATION_BYTES)
_identity = ctypes.c_uint64


@attrs.define(eq=False)
class Listener:
    """Owns the descriptor. `receive` belongs to one thread; answers may come from any."""

    descriptor: int
    _room: bytearray = attrs.field(init=False, factory=lambda: bytearray(notification.NOTIFICATION_BYTES))
    _room_address: int = attrs.field(init=False)
    _pin: object = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        pin = (ctypes.c_char * notification.NOTIFICATION_BYTES).from_buffer(self._room)
        self._pin, self._room_address = pin, ctypes.addressof(pin)

    def wake_synchronously(self) -> bool:
        """Asks for SYNC_WAKE_UP; whether the kernel has it."""
        # The kernel takes the flags by value, not through a pointer.
        return bool(_answering(self.descriptor, notification.SET_FLAGS, notification.FLAG_SYNC_WAKE_UP) == 0)

    def receive(self) -> tuple[int, ...] | None:
        """Waits for a notification: the fields of `notification.NOTIFICATION`.

        None when there was none after all: a signal came, its task was killed, or all tasks are gone. Raises OSError.
        """
        self._room[:] = _ZEROS
        if _receiving(self.descriptor, notification.RECEIVE, self._room_address) == 0:
            return notification.NOTIFICATION.unpack(self._room)
        error = ctypes.get_errno()
        if error in (errno.EINTR, errno.ENOENT):
            return None
        raise OSError(error, os.strerror(error), "seccomp listener")

    def is_valid(self, identity: int) -> bool:
        """Whether a task still waits for the answer to this notification."""
        return bool(_answering(self.descriptor, notification.ID_VALID, ctypes.addressof(_identity(identity))) == 0)

    def let_go(self, identity: int) -> None:
        """The kernel makes the call. Nothing happens when nobody waits any more, here as below."""
        self._send(notification.RESPONSE.pack(identity, 0, 0, notification.FLAG_CONTINUE))

    def answer(self, identity: int, value: int) -> None:
        """The call returns `value`, a negative errno on failure."""
        if value < 0:
            self._send(notification.RESPONSE.pack(identity, 0, value, 0))
        else:
            self._send(notification.RESPONSE.pack(identity, value, 0, 0))

    def give(self, identity: int, descriptor: int, *, close_on_exec: bool) -> None:
        """The call returns a duplicate of our descriptor; EMFILE, say, when the task can have no more."""
        request = notification.encode_addfd(identity, descriptor, os.O_CLOEXEC if close_on_exec else 0)
        buffer = ctypes.create_string_buffer(request, len(request))
        if _answering(self.descriptor, notification.ADDFD, ctypes.addressof(buffer)) < 0:
            error = ctypes.get_errno()
            if error != errno.ENOENT:
                self.answer(identity, -error)

    def close(self) -> None:
        """Gives the descriptor back. Every call that is intercepted after the last duplicate is closed gets ENOSYS."""
        os.close(self.descriptor)

    def _send(self, response: bytes) -> None:
        if _answering(self.descriptor, notification.SEND, response) == 0:
            return
        error = ctypes.get_errno()
        if error not in (errno.ENOENT, errno.EINPROGRESS):  # gone, or answered already
            raise OSError(error, os.strerror(error), "seccomp listener")
