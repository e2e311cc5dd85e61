"""Where connections to the target were led instead, as connection tracking knows (ctnetlink).

In a service mesh what comes from outside goes to the mesh's proxy, sealed, and from there to the target, unsealed. What
the target gets is what counts; a copy of what its proxy gets would be of no use.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

from mirrord_agent.incoming import conntrack
from mirrord_agent.incoming.conntrack import Direction
from mirrord_agent.incoming.events import Opened
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER
from mirrord_agent.incoming.netlink_messages import (
    ERROR,
    REQUEST,
    Message,
    decode_acknowledgement,
    decode_messages,
    encode_message,
)
from mirrord_agent.incoming.sock_diag import End
from mirrord_agent.wire.frames import InetEndpoint

_MOST_BYTES: Final = 1 << 16
#: What is said for good: the right is missing, or the kernel's part.
_NEVER: Final = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP})


class Translations:
    """Those of this network namespace."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._tells = True

    def port_reached(self, opened: Opened) -> int | None:
        """The port that a connection has reached in truth; None if nobody knows."""
        if not self._tells:
            return None
        body = conntrack.ask(Direction(_end(opened.client), _end(opened.local)))
        try:
            self._socket.send(encode_message(Message(conntrack.GET, REQUEST, 1, body)))
            (answer,) = decode_messages(self._socket.recv(_MOST_BYTES))
            if answer.kind == ERROR:
                self._tells = decode_acknowledgement(answer).errno not in _NEVER
            tracked = conntrack.decode(answer) if answer.kind == conntrack.NEW else None
        except (OSError, ValueError):
            return None
        return None if tracked is None else tracked.reply.source[1]

    def close(self) -> None:
        """Closes the netlink socket."""
        self._socket.close()


def _end(endpoint: InetEndpoint) -> End:
    return ipaddress.ip_address(endpoint.host), endpoint.port
