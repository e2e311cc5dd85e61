"""Questions to connection tracking about TCP connections, and the wish that it forget one (ctnetlink).

Bodies of netlink messages, and back: include/uapi/linux/netfilter/nfnetlink_conntrack.h. Ports and addresses are in
network byte order.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Final

import attrs

from mirrord_agent.incoming.netlink_messages import Attribute, Message, decode_attributes, encode_attributes
from mirrord_agent.incoming.sock_diag import End

#: Kinds of messages: NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_NEW, …GET and …DELETE.
NEW, GET, DELETE = 1 << 8, 1 << 8 | 1, 1 << 8 | 2

_ORIGINAL, _REPLY, _IDENTITY, _ZONE, _FILTER = 1, 2, 12, 18, 25
_ORIGINAL_FLAGS: Final = 1
_BY_PROTOCOL: Final = 1 << 3 | 1 << 5
"""A filter's wish that the number of the protocol and the destination's port be the same (nf_internals.h)."""
_IP, _PROTOCOL = 1, 2
_SOURCES: Final = {4: 1, 6: 3}
"""Of attributes by the version of IP; the destination's is one more."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_nfgenmsg = struct.Struct(">BBH")
_port = struct.Struct(">H")
_TCP: Final = bytes([socket.IPPROTO_TCP])


@attrs.frozen
class Direction:
    """Addresses and ports of the packets that go one way."""

    source: End
    destination: End


@attrs.frozen
class Tracked:
    """A connection as connection tracking knows it."""

    original: Direction
    """Of the client's packets, as it sends them."""
    reply: Direction
    """Of those that answer, as they are sent: where the connection has come to in truth."""
    names: tuple[Attribute, ...]
    """By which the kernel knows it, this one and no later one of the same addresses."""

    @property
    def forgetting(self) -> bytes:
        """The body of the wish that it be forgotten."""
        return _body(_family(self.original), self.names)


def ask(original: Direction) -> bytes:
    """Asks for the connection of a client's packets."""
    return _body(_family(original), [_direction(original)])


def ask_for_those_to(port: int, version: int) -> bytes:
    """Asks for connections by a version of IP whose clients ask for a port. Before Linux 5.8 all of them are told."""
    protocol = Attribute(_PROTOCOL_NUMBER, _TCP), Attribute(_DESTINATION_PORT, _port.pack(port))
    asked = Attribute(_ORIGINAL, (Attribute(_PROTOCOL, protocol),))
    by = Attribute(_ORIGINAL_FLAGS, struct.pack("=I", _BY_PROTOCOL))
    return _body(_FAMILIES[version], [asked, Attribute(_FILTER, (by,))])


def may_be_of(message: Message, port: int) -> bool:
    """Whether what the kernel tells might be about a port, which is quickly said: to decode it takes long."""
    return _port.pack(port) in message.body


def decode(message: Message) -> Tracked | None:
    """What the kernel tells of a connection; None if it is not of TCP. Raises ValueError for what is cut short."""
    told = decode_attributes(message.body[_nfgenmsg.size :])
    found = {each.kind: each for each in told}
    if _ORIGINAL not in found or _REPLY not in found:
        raise ValueError("a connection without addresses")
    original, reply = (_read_direction(found[kind].value) for kind in (_ORIGINAL, _REPLY))
    if original is None or reply is None:
        return None
    return Tracked(original, reply, tuple(found[kind] for kind in (_ORIGINAL, _IDENTITY, _ZONE) if kind in found))


def _family(direction: Direction) -> int:
    return _FAMILIES[direction.source[0].version]


def _body(family: int, attributes: Iterable[Attribute]) -> bytes:
    return _nfgenmsg.pack(family, 0, 0) + encode_attributes(attributes)


def _direction(direction: Direction) -> Attribute:
    (source, source_port), (destination, destination_port) = direction.source, direction.destination
    first = _SOURCES[source.version]
    addresses = Attribute(first, source.packed), Attribute(first + 1, destination.packed)
    protocol = (
        Attribute(_PROTOCOL_NUMBER, _TCP),
        Attribute(_SOURCE_PORT, _port.pack(source_port)),
        Attribute(_DESTINATION_PORT, _port.pack(destination_port)),
    )
    return Attribute(_ORIGINAL, (Attribute(_IP, addresses), Attribute(_PROTOCOL, protocol)))


def _read_direction(value: bytes | tuple[Attribute, ...]) -> Direction | None:
    """None if it is not of TCP."""
    parts = {each.kind: _bytes_of(each.value) for each in _nested(value)}
    addresses, protocol = (parts.get(kind, {}) for kind in (_IP, _PROTOCOL))
    if protocol.get(_PROTOCOL_NUMBER) != _TCP:
        return None
    for first in _SOURCES.values():
        if first in addresses and first + 1 in addresses:
            source, destination = (ipaddress.ip_address(addresses[kind]) for kind in (first, first + 1))
            ports = [_read_port(protocol.get(kind, b"")) for kind in (_SOURCE_PORT, _DESTINATION_PORT)]
            return Direction((source, ports[0]), (destination, ports[1]))
    raise ValueError("a connection without addresses")


def _nested(value: bytes | tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    return () if isinstance(value, bytes) else value


def _bytes_of(value: bytes | tuple[Attribute, ...]) -> dict[int, bytes]:
    return {each.kind: each.value for each in _nested(value) if isinstance(each.value, bytes)}


def _read_port(raw: bytes) -> int:
    if len(raw) != _port.size:
        raise ValueError(f"a port of {len(raw)} bytes")
    return int(_port.unpack(raw)[0])
