"""accept(2), accept4(2) with an address: the connection is accepted here and given to the task, and its client shown.

Whether an accept waits is the open socket's to say, which the task shares with us: there is no flag for one call. So
one that does not wait is made at once, and one that may, in a worker.

A task that can have no more descriptors (EMFILE) leaves the connection waiting, as natively. If another of its threads
takes the last one meanwhile, that shows too late, and the client is turned away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from functools import partial
from typing import Final

from mirrord_syscalls.sockaddr import SOCKADDR_STORAGE_BYTES
from mirrord_trace.supervisor.delivery.base import PresentAddresses
from mirrord_trace.supervisor.delivery.notify.lowering.connects import is_blocking
from mirrord_trace.supervisor.delivery.notify.lowering.descriptors import has_room
from mirrord_trace.supervisor.delivery.notify.lowering.frame import Frame
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.lowering.names import shown, write_name
from mirrord_trace.supervisor.delivery.notify.replies import Deferred, Descriptor, NotifiedCall, Reply, Result

_KNOWN_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_length = struct.Struct("=I")


def lower_accept(call: NotifiedCall, verdict: PresentAddresses) -> Reply:
    """See `lowering.lower`."""
    flags = call.integer(3) if call.name == "accept4" else 0
    if flags & ~_KNOWN_FLAGS:
        return Result(-errno.EINVAL)
    if not has_room(call.tid):
        return Result(-errno.EMFILE)
    loan = Loan(call.borrow(call.integer(0)))
    if is_blocking(loan.number):
        return Deferred(partial(_accept, call, verdict, loan, flags))
    return _accept(call, verdict, loan, flags)


def _accept(call: NotifiedCall, verdict: PresentAddresses, loan: Loan, flags: int) -> Reply:
    """As __sys_accept4 (net/socket.c): a client whose address cannot be told is turned away."""
    call.rights_count = False
    with loan, Frame(call, [loan.number, 0, 0, flags | socket.SOCK_CLOEXEC, 0, 0]) as frame:
        place = frame.room_with(bytes(SOCKADDR_STORAGE_BYTES))
        length_place = frame.room_with(_length.pack(SOCKADDR_STORAGE_BYTES))
        frame.arguments[1:3] = place, length_place
        accepted = frame.make("accept4")
        if accepted < 0:
            return Result(accepted)
        try:
            (length,) = _length.unpack(ctypes.string_at(length_place, _length.size))
            name = shown(ctypes.string_at(place, length), verdict.translate)
            error = write_name(call, call.arguments[1], call.arguments[2], name)
        except BaseException:
            os.close(accepted)
            raise
    if error:
        os.close(accepted)
        return Result(error)
    if verdict.accepted is not None:
        verdict.accepted(os.fstat(accepted).st_ino)
    return Descriptor(accepted, bool(flags & socket.SOCK_CLOEXEC))
