"""What a task's memory says of the addresses and messages of a call: read as the kernel will read it.

The kernel takes one message of a sendmmsg after the other. One that it cannot read ends the call, but those before it
are sent; so none may go unseen because a later one is at fault.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from mirrord_syscalls.sockaddr import (
    SOCKADDR_STORAGE_BYTES,
    Inet4,
    Inet6,
    SocketAddress,
    Unspecified,
    decode_sockaddr,
)
from mirrord_syscalls.structs import ControlMessage, Mmsghdr, Msghdr, decode_control
from mirrord_trace.supervisor.delivery.base import Call, MemoryFault

_MESSAGES_MAXIMUM: Final = 1024  # UIO_MAXIOV
_IS_NEGATIVE: Final = 0x8000_0000
_family = struct.Struct("=H")


def read_address(call: Call, place: int, length: int) -> SocketAddress | None:
    """The socket address at `place`; None where the kernel itself will find fault with it. Raises MemoryFault."""
    if not 0 < length <= SOCKADDR_STORAGE_BYTES:
        return None
    try:
        return decode_sockaddr(call.memory.read(place, length))
    except ValueError:
        return None


def read_destination(call: Call, place: int, length: int, family: Callable[[], int]) -> Inet4 | Inet6 | None:
    """Where a datagram with the address at `place` goes; None where it goes nowhere, or to the socket's peer.

    `family` tells the socket's, for IPv4 sockets send to AF_UNSPEC as if it were AF_INET (ip(7)). Raises MemoryFault.
    """
    address = read_address(call, place, length)
    if isinstance(address, Unspecified) and family() == socket.AF_INET:
        raw = _family.pack(socket.AF_INET) + call.memory.read(place, length)[_family.size :]
        try:
            address = decode_sockaddr(raw)
        except ValueError:
            return None
    return address if isinstance(address, Inet4 | Inet6) else None


def read_header(call: Call) -> Msghdr:
    """The header of a sendmsg or recvmsg. Raises MemoryFault."""
    return Msghdr.decode(call.memory.read(call.arguments[1], Msghdr.SIZE))


def read_headers(call: Call) -> Iterator[Msghdr]:
    """The headers of a sendmmsg, up to the first that cannot be read."""
    place, count = call.arguments[1], call.arguments[2] & 0xFFFF_FFFF
    for position in range(min(count, _MESSAGES_MAXIMUM)):
        try:
            raw = call.memory.read(place + position * Mmsghdr.SIZE, Msghdr.SIZE)
        except MemoryFault:
            return
        yield Msghdr.decode(raw)


def read_message_destination(call: Call, header: Msghdr, family: Callable[[], int]) -> Inet4 | Inet6 | None:
    """As `read_destination`. The kernel cuts a length beyond any address where it is a message's (net/socket.c)."""
    if not header.name or header.name_length & _IS_NEGATIVE:
        return None
    return read_destination(call, header.name, min(header.name_length, SOCKADDR_STORAGE_BYTES), family)


def read_control(call: Call, header: Msghdr, limit: int) -> tuple[ControlMessage, ...] | None:
    """The control messages that a header points to; None when they take more than `limit` bytes. Raises MemoryFault."""
    if not header.control or not header.control_length:
        return ()
    if header.control_length > limit:
        return None
    return decode_control(call.memory.read(header.control, header.control_length))
