"""Resetting the connections that a target has on a port, so that its clients connect anew, and then to a session.

The kernel is asked to end the sockets themselves (SOCK_DESTROY, Linux 4.5). Both ends learn of it at once, the client
by a RST and the target by ECONNABORTED, and whether the connection was ever tracked does not matter. To forget what
connection tracking knows of it would not do: the next packet comes from the connection's middle, so it is not
redirected and the target serves on; and were it redirected, the target would never learn that its client is gone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Container
from typing import Final

from mirrord_agent.incoming import families, ruleset, sock_diag
from mirrord_agent.incoming.netlink import NETLINK_SOCK_DIAG, Netlink, Refused
from mirrord_agent.incoming.netlink_messages import ACKNOWLEDGE, DUMP, REQUEST
from mirrord_agent.incoming.sock_diag import Connection
from mirrord_agent.wire.frames import AddressFamily

_OPTIONS: Final = ("CONFIG_INET_DIAG_DESTROY",)


def reset(port: int, family: AddressFamily | None = None) -> int:
    """Resets connections to sockets of this network namespace on a TCP port; how many. Raises OSError.

    Those that a session passes on to it, which their other end shows by its mark, are left alone.
    """
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        served = _connections(netlink, local_port=port)
        passed_on = {
            (client.remote, client.local)
            for client in _connections(netlink, remote_port=port)
            if ruleset.is_sessions_mark(client.mark)
        }
        return sum(
            _end(netlink, each)
            for each in served
            if (each.local, each.remote) not in passed_on
            and families.overlap(family, families.family_of(each.local[0].packed))
        )


def served() -> set[tuple[sock_diag.End, sock_diag.End]]:
    """Local and remote ends of all connections of this network namespace. Raises OSError."""
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        return {(each.local, each.remote) for each in _connections(netlink)}


def unfinished(ports: Container[int]) -> int:
    """How many connections of TCP ports here are closed, and the other end does not know it yet. Raises OSError."""
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        return sum(each.local[1] in ports for each in _connections(netlink, sock_diag.ENDING))


def _connections(
    netlink: Netlink, states: int = sock_diag.CONNECTED, *, local_port: int = 0, remote_port: int = 0
) -> list[Connection]:
    words = "listing the TCP connections of the target's network namespace"
    return [
        sock_diag.decode_connection(message)
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in netlink.dump(
            sock_diag.BY_FAMILY,
            REQUEST | DUMP,
            sock_diag.list_connections(family, states, local_port=local_port, remote_port=remote_port),
            words,
        )
    ]


def _end(netlink: Netlink, connection: Connection) -> bool:
    """Whether it had not ended by itself."""
    host, port = connection.remote
    words = f"resetting the connection of {host}, port {port}, to port {connection.local[1]}"
    body = sock_diag.end_connection(connection)
    try:
        netlink.command(sock_diag.DESTROY, REQUEST | ACKNOWLEDGE, body, words, _OPTIONS)
    except Refused as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False
    return True
