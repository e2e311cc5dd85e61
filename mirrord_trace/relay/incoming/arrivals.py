"""Who is really at the other end of a connection that the process accepts.

The process's listener is reached from this machine, so the kernel's names of an accepted socket are of this machine. A
connection is known by the address that it comes from and the port that it goes to, from before the process can accept
it; once its socket is known, by that. It is forgotten when its socket is gone, for the kernel may use the names again.

Names are `plain`: IPv4 addresses are no mapped ones, and IPv6 addresses are without flow information.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import OrderedDict
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, mapped_ipv4, to_mapped
from mirrord_trace.relay.addresses import address_of_name

_ACCEPTED_KEPT: Final = 8192
"""More sockets than the relay serves at a time; of those that ended the names may still be asked for."""


@attrs.frozen
class Arrival:
    """A connection that has come to the target. Both addresses are plain."""

    client: Inet4 | Inet6
    local: Inet4 | Inet6
    """The target's address, with the port that the process asked for."""


@attrs.frozen
class Names:
    """The connection that brings it to the process. Both addresses are plain."""

    source: Inet4 | Inet6
    destination: Inet4 | Inet6


def plain(address: Inet4 | Inet6) -> Inet4 | Inet6:
    """What different sockets' ways to name one peer have in common."""
    address = mapped_ipv4(address) or address
    return address if isinstance(address, Inet4) else Inet6(address.host, address.port, 0, address.scope_id)


def shown(address: Inet4 | Inet6, like: SocketAddress) -> SocketAddress:
    """A plain address as a socket shows it that shows another `like` that."""
    if isinstance(address, Inet4):
        return to_mapped(address) if isinstance(like, Inet6) else address
    return address if isinstance(like, Inet6) else like  # a socket of IPv4 has no way to show it


@attrs.define(eq=False)
class Arrivals:
    """Connections by their names and by the process's sockets. From any thread."""

    _by_names: dict[tuple[Inet4 | Inet6, int], Arrival] = attrs.field(factory=dict)
    _by_inode: OrderedDict[int, Arrival] = attrs.field(factory=OrderedDict)
    _changing: threading.Lock = attrs.field(factory=threading.Lock)

    def connect(self, connection: socket.socket, to: Inet4 | Inet6, arrival: Arrival) -> Names:
        """Begins to connect a socket that does not block; whoever accepts it finds the arrival.

        Raises OSError.
        """
        name = (str(to.host), to.port) if isinstance(to, Inet4) else (str(to.host), to.port, 0, to.scope_id)
        with self._changing:
            result = connection.connect_ex(name)
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, os.strerror(result))
            names = Names(plain(address_of_name(connection.getsockname())), plain(to))
            self._by_names[names.source, to.port] = arrival
        return names

    def named(self, peer: SocketAddress, port: int) -> Arrival | None:
        """The arrival that comes from `peer` to a port of this machine; None for a client on this machine itself."""
        if not isinstance(peer, Inet4 | Inet6):
            return None
        with self._changing:
            return self._by_names.get((plain(peer), port))

    def accepted(self, inode: int, arrival: Arrival) -> None:
        """The process has accepted it, as this socket."""
        with self._changing:
            self._by_inode[inode] = arrival
            while len(self._by_inode) > _ACCEPTED_KEPT:
                self._by_inode.popitem(last=False)

    def of_socket(self, inode: int) -> Arrival | None:
        """What a socket of the process has accepted, if that is known."""
        return self._by_inode.get(inode)

    def forget(self, names: Names) -> Arrival | None:
        """No socket has these names any more, or who has is known."""
        with self._changing:
            return self._by_names.pop((names.source, names.destination.port), None)

    def are_named(self) -> bool:
        """Whether there is any whose socket may not be known."""
        with self._changing:  # else one could be accepted already that is just being named
            return bool(self._by_names)
