"""Endpoints of the wire as the socket module's addresses, and back."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from mirrord_agent.wire.frames import AddressFamily, InetEndpoint

#: The socket module's constant for each family of the wire.
FAMILIES: dict[AddressFamily, socket.AddressFamily] = {"inet4": socket.AF_INET, "inet6": socket.AF_INET6}


def family(endpoint: InetEndpoint) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET


def to_sockaddr(endpoint: InetEndpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """The address as `socket.connect` and `socket.bind` take it."""
    if ":" in endpoint.host:
        return endpoint.host, endpoint.port, 0, endpoint.scope_id
    return endpoint.host, endpoint.port


def from_sockaddr(address: Any) -> InetEndpoint:
    """The endpoint of an address that `getsockname`, `getpeername` or `recvfrom` returned."""
    if len(address) == 4:
        # A link-local address is given as `fe80::1%eth0`; the scope travels as a number.
        return InetEndpoint(address[0].partition("%")[0], address[1], address[3])
    return InetEndpoint(address[0], address[1])


def unmapped(endpoint: InetEndpoint) -> InetEndpoint:
    """The IPv4 endpoint of a v4-mapped one (`::ffff:10.0.0.1`), for pods without IPv6; others unchanged."""
    if ":" in endpoint.host:
        mapped = ipaddress.IPv6Address(endpoint.host).ipv4_mapped
        if mapped is not None:
            return InetEndpoint(str(mapped), endpoint.port)
    return endpoint


def unspecified(endpoint: InetEndpoint) -> InetEndpoint:
    """The same port of whichever address the kernel likes."""
    return InetEndpoint("::" if ":" in endpoint.host else "0.0.0.0", endpoint.port)


def is_loopback(endpoint: InetEndpoint) -> bool:
    """Whether the address is of 127.0.0.0/8 or ::1."""
    return ipaddress.ip_address(endpoint.host).is_loopback
