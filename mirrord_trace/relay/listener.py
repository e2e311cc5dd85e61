"""A listening socket on loopback for exactly one connect() of the user's process.

The process's own socket is connected here instead of to the far side, so that all it does with it afterwards runs in
the kernel. One listener for each connect says which connection is which, keeps it closed to everybody else, and lets an
answer that is not there yet be expressed by the kernel itself: with a classic-BPF socket filter that drops everything,
the SYN is lost and the process's socket stays in SYN_SENT. Removing the filter admits the next retransmission of the
SYN; closing the listener makes the kernel answer it with RST (ECONNREFUSED). Checked on Linux 6.18, unprivileged.
"""

from __future__ import annotations

import os
import socket

import attrs

from mirrord_syscalls.bpf import socket_filter_drop_all
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, to_mapped
from mirrord_trace.socket_filters import attach_filter, detach_filter
from mirrord_trace.sockets_here import LOOPBACK4, LOOPBACK6


@attrs.define(eq=False)
class Listener:
    """`address` is what the process's socket is to be connected to."""

    address: SocketAddress
    socket: socket.socket
    is_silent: bool = False

    def silence(self) -> None:
        """From now on no SYN is seen."""
        attach_filter(self.socket, socket_filter_drop_all())
        self.is_silent = True

    def admit(self) -> None:
        """SYNs are seen again."""
        if self.is_silent:
            detach_filter(self.socket)
            self.is_silent = False

    def close(self) -> None:
        """Refuses whoever comes now. May be called again."""
        self.socket.close()


def listen_for(original: Inet4 | Inet6, family: int) -> Listener:
    """A listener that a socket of `family` which meant `original` can be connected to.

    An AF_INET6 socket stays with the address family that it meant: ::1, or 127.0.0.1 as a mapped address. Where this
    machine has no ::1 the mapped address serves too, unless the socket is IPV6_V6ONLY. Raises OSError.
    """
    meant_ipv4 = isinstance(original, Inet4) or original.host.ipv4_mapped is not None
    if not meant_ipv4:
        try:
            server = _bound(socket.AF_INET6, str(LOOPBACK6))
            return Listener(Inet6(LOOPBACK6, server.getsockname()[1]), server)
        except OSError:
            pass
    server = _bound(socket.AF_INET, str(LOOPBACK4))
    plain = Inet4(LOOPBACK4, server.getsockname()[1])
    return Listener(plain if family == socket.AF_INET else to_mapped(plain), server)


def listen_for_unix() -> Listener:
    """A listener for a Unix stream socket, under an abstract name that nobody can guess."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = b"\0mirrord-trace-" + os.urandom(16).hex().encode()
    try:
        server.bind(name)
        server.listen(1)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return Listener(Unix(name), server)


def _bound(family: int, host: str) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else a port stays taken for a minute after each connection that the far side closed first (TIME_WAIT).
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, 0))
        server.listen(1)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server
