"""Questions about TCP sockets, and the wish that one be ended: sock_diag(7), include/uapi/linux/inet_diag.h.

Bodies of netlink messages, and back. Ports and addresses are in network byte order, all else in this machine's.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

from mirrord_agent.incoming.netlink_messages import Message, by_kind, decode_attributes

#: Kinds of messages.
BY_FAMILY: Final = 20
DESTROY: Final = 21
#: Sets of states, one bit for each (net/tcp_states.h): those of a connection that is not over.
ESTABLISHED: Final = 1 << 1
CONNECTED: Final = ESTABLISHED | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
"""SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING as well."""
ENDING: Final = 1 << 4 | 1 << 9 | 1 << 11
"""FIN_WAIT1, LAST_ACK and CLOSING: what was sent, and the FIN behind it, are not acknowledged."""

_MARK: Final = 15
_NO_COOKIE: Final = 0xFFFFFFFF
_request = struct.Struct("=BBxxI")
_identity = struct.Struct(">HH16s16s")
_identity_rest = struct.Struct("=III")
_IDENTITY_BYTES: Final = _identity.size + _identity_rest.size
_answer = struct.Struct("=BBxx")
_ANSWER_BYTES: Final = _answer.size + _IDENTITY_BYTES + 20

Address = IPv4Address | IPv6Address


@attrs.frozen
class Connection:
    """One end of a TCP connection."""

    local: tuple[Address, int]
    """Address, which is IPv4 also where an IPv6 socket has it, and port."""
    remote: tuple[Address, int]
    mark: int
    """0 is none."""
    family: int
    identity: bytes
    """By which the kernel knows the socket, this one and no later one of the same addresses."""


def list_connections(family: int, states: int, *, local_port: int = 0, remote_port: int = 0) -> bytes:
    """Asks for all sockets of a family (AF_INET, AF_INET6) in these states; a port of 0 may be any."""
    identity = _identity.pack(local_port, remote_port, b"", b"") + _identity_rest.pack(0, _NO_COOKIE, _NO_COOKIE)
    return _request.pack(family, socket.IPPROTO_TCP, states) + identity


def end_connection(connection: Connection) -> bytes:
    """Asks for its end: whoever has it open gets ECONNABORTED, and the other end a RST."""
    return _request.pack(connection.family, socket.IPPROTO_TCP, 0) + connection.identity


def decode_connection(message: Message) -> Connection:
    """What the kernel lists. Raises ValueError for what is cut short."""
    if len(message.body) < _ANSWER_BYTES:
        raise ValueError(f"a struct inet_diag_msg of {len(message.body)} bytes is cut short")
    family, _ = _answer.unpack_from(message.body)
    identity = message.body[_answer.size : _answer.size + _IDENTITY_BYTES]
    local_port, remote_port, local, remote = _identity.unpack_from(identity)
    mark = by_kind(decode_attributes(message.body[_ANSWER_BYTES:])).get(_MARK, b"")
    return Connection(
        (_address(family, local), local_port),
        (_address(family, remote), remote_port),
        int.from_bytes(mark, sys.byteorder),
        family,
        identity,
    )


def _address(family: int, packed: bytes) -> Address:
    if family == socket.AF_INET:
        return IPv4Address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address
