"""Socket addresses in a task's memory: as the kernel writes them, and what getsockname(2) and getpeername(2) answer."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Final

from mirrord_syscalls.sockaddr import SocketAddress, decode_sockaddr, encode_sockaddr
from mirrord_trace.supervisor.delivery.base import PresentAddresses
from mirrord_trace.supervisor.delivery.notify.lowering import kernel
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall, Reply, Result

_int: Final = struct.Struct("=i")


def lower_names(call: NotifiedCall, verdict: PresentAddresses) -> Reply:
    """See `lowering.lower`."""
    with Loan(call.borrow(call.integer(0))) as loan:
        result, name = kernel.name_of(call.name, loan.number)
    if result < 0:
        return Result(result)
    return Result(write_name(call, call.arguments[1], call.arguments[2], shown(name, verdict.translate)))


def write_name(call: NotifiedCall, place: int, length_place: int, name: bytes) -> int:
    """Hands a name out through a pointer and a value-result length, like move_addr_to_user (net/socket.c).

    0 or a negative errno. Raises MemoryFault, TaskGone.
    """
    (room,) = _int.unpack(call.memory.read(length_place, _int.size))
    if room < 0:
        return -errno.EINVAL
    call.check()
    if room and name:
        call.memory.write(place, name[:room])
    call.memory.write(length_place, _int.pack(len(name)))
    return 0


def shown(name: bytes, translate: Callable[[SocketAddress], SocketAddress]) -> bytes:
    """The name that the task is to see; one that we cannot take apart stays as it is."""
    try:
        real = decode_sockaddr(name)
    except ValueError:
        return name
    seen = translate(real)
    return name if seen == real else encode_sockaddr(seen)
