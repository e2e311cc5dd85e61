"""Where a redirected connection was going."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import Final

from mirrord_agent import addresses
from mirrord_agent.wire.frames import InetEndpoint

#: SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
_ORIGINAL_DESTINATION: Final = 80
_sockaddr_in = struct.Struct(">2xH4s8x")
_sockaddr_in6 = struct.Struct(">2xH4x16s4x")
_NOT_TRACKED: Final = frozenset({errno.ENOENT, errno.ENOPROTOOPT})


def original_destination(connection: socket.socket) -> InetEndpoint | None:
    """Where an accepted TCP connection went before it was redirected; None if it was not.

    It is IPv4 also where an IPv6 socket has accepted it. Raises OSError.
    """
    local = addresses.unmapped(addresses.from_sockaddr(connection.getsockname()))
    is_ipv6 = ":" in local.host
    level, layout = (socket.IPPROTO_IPV6, _sockaddr_in6) if is_ipv6 else (socket.IPPROTO_IP, _sockaddr_in)
    try:
        raw = connection.getsockopt(level, _ORIGINAL_DESTINATION, layout.size)
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            return None
        raise
    port, packed = layout.unpack(raw)
    # The kernel tells no scope; it is that of the address which the connection still has.
    found = InetEndpoint(str(ipaddress.ip_address(packed)), port, local.scope_id)
    return None if found == local else found
