"""Where an outgoing connection or datagram goes: pure decisions on addresses.

Loopback and unspecified destinations (connect(2) to 0.0.0.0 reaches this host) depend on who listens, which the caller
must look up. Multicast stays here: group membership belongs to the process's own socket.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Literal

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, mapped_ipv4

Protocol = Literal["tcp", "udp"]

ABSENT_UNIX_SOCKETS = (
    b"/run/nscd/socket",
    b"/var/run/nscd/socket",
    b"/run/systemd/resolve/io.systemd.Resolve",
    b"/var/run/systemd/resolve/io.systemd.Resolve",
)
"""Daemons that answer for this machine's names: nscd (nscd(8)) and systemd-resolved (nss-resolve(8))."""


class Side(enum.Enum):
    """Whose network, files or sockets a call concerns."""

    LOCAL = "this machine's"
    REMOTE = "the target's"
    LISTENER = "this machine's if the process tree listens there, else the target's"
    ABSENT = "nobody's: it looks as if it were not there"


@attrs.frozen
class OutgoingPolicy:
    """What the configuration says about outgoing traffic."""

    tcp: bool = True
    udp: bool = True
    ignore_localhost: bool = False
    unix_streams: Sequence[re.Pattern[str]] = ()

    def side(self, protocol: Protocol, address: SocketAddress) -> Side:
        """Where TCP or UDP to `address` goes; LOCAL for families that have no such protocol."""
        plain = mapped_ipv4(address) or address
        if not isinstance(plain, Inet4 | Inet6) or not (self.tcp if protocol == "tcp" else self.udp):
            return Side.LOCAL
        if plain.host.is_loopback or plain.host.is_unspecified:
            return Side.LOCAL if self.ignore_localhost else Side.LISTENER
        return Side.LOCAL if plain.host.is_multicast else Side.REMOTE

    def unix_side(self, address: Unix) -> Side:
        """Where a connection to a Unix socket goes. Patterns are searched in the path, or the name without its NUL."""
        if address.path in ABSENT_UNIX_SOCKETS:
            return Side.ABSENT
        name = address.path.lstrip(b"\0").decode(errors="surrogateescape")
        return Side.REMOTE if any(pattern.search(name) for pattern in self.unix_streams) else Side.LOCAL
