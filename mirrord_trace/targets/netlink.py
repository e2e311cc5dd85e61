"""Routing-netlink requests as bytes, for pods made without iproute2.

Pure encoders: a request is built here and sent by whoever lives in the right network namespace. Interface indices are
per namespace and are chosen by the caller where it creates an interface, so nothing has to be asked of the kernel
first. Layouts and numbers: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_link.h.
"""

from __future__ import annotations

import enum
import ipaddress
import struct

LOOPBACK_INDEX = 1
"""`lo` is the first interface of every network namespace."""

InterfaceAddress = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_IFF_UP = 0x1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_RTA_DESTINATION, _RTA_OUTGOING_INTERFACE, _RTA_GATEWAY, _RTA_PREFERRED_SOURCE = 1, 4, 5, 7
_RT_TABLE_MAIN, _RT_TABLE_LOCAL, _RT_SCOPE_HOST, _RTPROT_STATIC = 254, 255, 254, 4
_FAMILIES = {4: 2, 6: 10}


class RouteKind(enum.IntEnum):
    """What the kernel does with a packet that matches a route; the numbers are those of linux/rtnetlink.h.

    `LOCAL` delivers to this namespace. For a local sender `BLACKHOLE` is EINVAL, `UNREACHABLE` EHOSTUNREACH and
    `PROHIBIT` EACCES; a router drops silently or answers with the ICMP message of that name.
    """

    UNICAST = 1
    LOCAL = 2
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


def attribute(kind: int, payload: bytes) -> bytes:
    """One `struct rtattr` with its payload, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACKNOWLEDGE | flags, 1, 0) + body


def link(index: int, *, up: bool, attributes: bytes = b"", create: bool = False) -> bytes:
    """Create an interface, or (without `create`) change the one with this index."""
    header = struct.pack("=BxHiII", 0, 0, index, _IFF_UP if up else 0, _IFF_UP)
    return _request(_NEW_LINK, _CREATE | _EXCLUSIVE if create else 0, header + attributes)


def add_address(index: int, address: InterfaceAddress) -> bytes:
    """Give an interface an address, usable at once: IPv6's duplicate address detection is left out."""
    header = struct.pack("=BBBBi", _FAMILIES[address.version], address.network.prefixlen, _IFA_F_NODAD, 0, index)
    packed = address.ip.packed
    return _request(
        _NEW_ADDRESS, _CREATE | _EXCLUSIVE, header + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    )


def add_route(
    destination: Network,
    kind: RouteKind,
    *,
    gateway: Address | None = None,
    index: int | None = None,
    source: Address | None = None,
) -> bytes:
    """Add a route: through `gateway` or interface `index`, or to a dead end of `RouteKind`.

    `source` is the address that local senders have who did not bind to one. Local routes go to the local table, all
    others to the main one.
    """
    family = _FAMILIES[destination.version]
    table, scope = (_RT_TABLE_LOCAL, _RT_SCOPE_HOST) if kind is RouteKind.LOCAL else (_RT_TABLE_MAIN, 0)
    header = struct.pack("=BBBBBBBBI", family, destination.prefixlen, 0, 0, table, _RTPROT_STATIC, scope, kind, 0)
    body = attribute(_RTA_DESTINATION, destination.network_address.packed)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    if index is not None:
        body += attribute(_RTA_OUTGOING_INTERFACE, struct.pack("=i", index))
    if source is not None:
        body += attribute(_RTA_PREFERRED_SOURCE, source.packed)
    return _request(_NEW_ROUTE, _CREATE | _EXCLUSIVE, header + body)


def loopback_with(addresses: list[InterfaceAddress], neighbours: list[ipaddress.IPv4Address]) -> list[bytes]:
    """The requests that bring `lo` up with these addresses besides its own.

    Neighbours can be bound to and reached as well; who reaches them comes from the first IPv4 address. (IPv6 cannot
    bind to what only a route makes local.)
    """
    requests = [link(LOOPBACK_INDEX, up=True), *(add_address(LOOPBACK_INDEX, address) for address in addresses)]
    source = next((address.ip for address in addresses if address.version == 4), None)
    for neighbour in neighbours:
        network = ipaddress.ip_network(neighbour)
        requests.append(add_route(network, RouteKind.LOCAL, index=LOOPBACK_INDEX, source=source))
    return requests
