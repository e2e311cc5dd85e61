"""Sockets for whatever comes, to any address of the target's and by either version of IP."""

from __future__ import annotations

import errno
import socket


def open_socket(kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket that is bound to some port; of IPv4 where there is no IPv6. Raises OSError."""
    try:
        made = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("", 0))
    except BaseException:
        made.close()
        raise
    return made
