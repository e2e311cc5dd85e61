"""Where connections to the target were led instead, as connection tracking knows (ctnetlink).

In a service mesh what comes from outside goes to the mesh's proxy, sealed, and from there to the target, unsealed. What
the target gets is what counts; a copy of what its proxy gets would be of no use.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import Final

from mirrord_agent.incoming.events import Opened
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER
from mirrord_agent.incoming.netlink_messages import (
    ERROR,
    REQUEST,
    Attribute,
    Message,
    decode_acknowledgement,
    decode_attributes,
    decode_messages,
    encode_attributes,
    encode_message,
)
from mirrord_agent.wire.frames import InetEndpoint

#: NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET (linux/netfilter/nfnetlink_conntrack.h).
_NEW, _GET = 1 << 8, 1 << 8 | 1
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_nfgenmsg = struct.Struct(">BBH")
_port = struct.Struct(">H")
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
        family = socket.AF_INET6 if ":" in opened.local.host else socket.AF_INET
        body = _nfgenmsg.pack(family, 0, 0) + encode_attributes([_tuple_of(opened.client, opened.local)])
        try:
            self._socket.send(encode_message(Message(_GET, REQUEST, 1, body)))
            (answer,) = decode_messages(self._socket.recv(_MOST_BYTES))
            if answer.kind == ERROR:
                self._tells = decode_acknowledgement(answer).errno not in _NEVER
            return _source_of_replies(answer) if answer.kind == _NEW else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Closes the netlink socket."""
        self._socket.close()


def _tuple_of(client: InetEndpoint, local: InetEndpoint) -> Attribute:
    """How connection tracking names a connection: by its client's packets."""
    source, destination = (ipaddress.ip_address(each.host) for each in (client, local))
    first = 3 if source.version == 6 else 1
    addresses = Attribute(first, source.packed), Attribute(first + 1, destination.packed)
    protocol = (
        Attribute(_PROTOCOL_NUMBER, bytes([socket.IPPROTO_TCP])),
        Attribute(_SOURCE_PORT, _port.pack(client.port)),
        Attribute(_DESTINATION_PORT, _port.pack(local.port)),
    )
    return Attribute(_TUPLE_ORIGINAL, (Attribute(_TUPLE_IP, addresses), Attribute(_TUPLE_PROTOCOL, protocol)))


def _source_of_replies(answer: Message) -> int | None:
    """The port from which the connection is answered. Raises ValueError for what is cut short."""
    found: tuple[Attribute, ...] = decode_attributes(answer.body[_nfgenmsg.size :])
    for kind in (_TUPLE_REPLY, _TUPLE_PROTOCOL, _SOURCE_PORT):
        value = next((each.value for each in found if each.kind == kind), ())
        if isinstance(value, bytes):
            return int(_port.unpack(value)[0]) if len(value) == _port.size else None
        found = value
    return None
