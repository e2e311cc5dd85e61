"""The descriptor on which the kernel tells of calls, and takes the answers: seccomp_unotify(2).

Kernel facts. A receiving buffer must be zeroed. A notification is void when its task was killed, or (where the filter
could not be installed with WAIT_KILLABLE_RECV) when a signal interrupted it: then ENOENT is the answer to everything.
With SYNC_WAKE_UP the kernel wakes us on the task's own processor and the other way round, which halves the price.

Receiving lets go of the interpreter's lock; answering does not, because that is shorter than getting the lock back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from functools import cache
from typing import Final

import attrs

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.structs import notification

_receiving = ctypes.CDLL(None, use_errno=True).ioctl
_answering = ctypes.PyDLL(None, use_errno=True).ioctl

_RECEIVE: Final = ctypes.c_ulong(notification.RECEIVE)
_SEND: Final = ctypes.c_ulong(notification.SEND)
_ID_VALID: Final = ctypes.c_ulong(notification.ID_VALID)
_ADDFD: Final = ctypes.c_ulong(notification.ADDFD)
_SET_FLAGS: Final = ctypes.c_ulong(notification.SET_FLAGS)
_SECCOMP_SET_MODE_FILTER: Final = 1  # linux/seccomp.h
_libc = ctypes.CDLL(None, use_errno=True)
_identity: Final = struct.Struct("=Q")


@attrs.define(eq=False)
class Listener:
    """Owns the descriptor. From any thread; after `close` it answers nobody, for a worker may be late."""

    descriptor: int
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    """Held while the descriptor is used for anything but receiving, so that it is this one."""

    def wake_synchronously(self) -> bool:
        """Asks for SYNC_WAKE_UP; whether the kernel has it."""
        # The kernel takes the flags by value, not through a pointer.
        wanted = ctypes.c_ulong(notification.FLAG_SYNC_WAKE_UP)
        return self._request(_SET_FLAGS, wanted) == 0

    def receive(self) -> tuple[int, ...] | None:
        """Waits for a notification: the fields of `notification.NOTIFICATION`.

        None when there was none after all: a signal came, its task was killed, or all tasks are gone. Raises OSError.
        """
        room = ctypes.create_string_buffer(notification.NOTIFICATION_BYTES)
        if _receiving(self.descriptor, _RECEIVE, room) == 0:
            return notification.NOTIFICATION.unpack(room)
        failure = ctypes.get_errno()
        if failure in (errno.EINTR, errno.ENOENT):
            return None
        raise OSError(failure, os.strerror(failure), "seccomp listener")

    def is_valid(self, identity: int) -> bool:
        """Whether a task still waits for the answer to this notification."""
        return self._request(_ID_VALID, _identity.pack(identity)) == 0

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
        """The call returns a duplicate of our descriptor; EMFILE, say, when the task can have no more. Ours is closed.

        It is closed before the task goes on: natively nobody else would have the file open, who could hold a lock on
        it, be a FIFO's reader or keep it from being executed. That takes two steps, and in between only death may come.
        """
        new_flags = os.O_CLOEXEC if close_on_exec else 0
        flags = 0 if _waits_are_killable() else notification.FLAG_ADDFD_SEND
        request = notification.encode_addfd(identity, descriptor, new_flags, flags)
        while (given := self._request(_ADDFD, request)) == -errno.EINTR:  # a worker was called out of its wait
            pass
        os.close(descriptor)
        if given != -errno.ENOENT and (given < 0 or not flags):
            self.answer(identity, given)

    def close(self) -> None:
        """Gives the descriptor back. Every call that is intercepted after the last duplicate is closed gets ENOSYS."""
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def _send(self, identity: int, value: int, error: int, flags: int) -> None:
        response = notification.RESPONSE.pack(identity, value, error, flags)
        failure = -self._request(_SEND, response)
        if failure not in (0, errno.ENOENT, errno.EINPROGRESS):  # gone, or answered already
            raise OSError(failure, os.strerror(failure), "seccomp listener")

    def _request(self, request: ctypes.c_ulong, argument: object) -> int:
        """What ioctl(2) gives, a negative errno on failure."""
        with self._lock:
            if self.descriptor < 0:
                return -errno.ENOENT
            result: int = _answering(self.descriptor, request, argument)
            return result if result >= 0 else -ctypes.get_errno()


@cache
def _waits_are_killable() -> bool:
    """Whether the kernel knows WAIT_KILLABLE_RECV, which filters are then installed with: it looks at flags first."""
    flags = notification.FILTER_NEW_LISTENER | notification.FILTER_WAIT_KILLABLE
    _libc.syscall(native_abi().numbers["seccomp"], _SECCOMP_SET_MODE_FILTER, flags, None)
    return ctypes.get_errno() == errno.EFAULT
