"""Whether an address is the target's own: what the kernel would do with a packet to it (rtnetlink(7), RTM_GETROUTE)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from mirrord_agent.incoming.netlink_messages import (
    REQUEST,
    Attribute,
    Message,
    decode_messages,
    encode_attributes,
    encode_message,
)

_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTA_DST: Final = 1
_RTN_LOCAL: Final = 2
#: struct rtmsg: family, length of the destination in bits, what does not matter here, kind of route, flags.
_route = struct.Struct("=BBxxxxxBI")
_MOST_BYTES: Final = 1 << 16
#: Addresses that are remembered to be local. Those of a pod stay as long as it lives.
_MOST_REMEMBERED: Final = 4096


class LocalAddresses:
    """Those of this network namespace. Addresses are packed: 4 or 16 bytes."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._known: set[bytes] = set()

    def __contains__(self, address: bytes) -> bool:
        if address in self._known:
            return True
        is_local = self._kind_of_route(address) == _RTN_LOCAL
        if is_local and len(self._known) < _MOST_REMEMBERED:
            self._known.add(address)
        return is_local

    def _kind_of_route(self, address: bytes) -> int | None:
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        body = _route.pack(family, len(address) * 8, 0, 0) + encode_attributes([Attribute(_RTA_DST, address)])
        try:
            self._socket.send(encode_message(Message(_RTM_GETROUTE, REQUEST, 1, body)))
            (answer,) = decode_messages(self._socket.recv(_MOST_BYTES))
        except (OSError, ValueError):  # no route, or none that is for us
            return None
        return _route.unpack_from(answer.body)[2] if answer.kind == _RTM_NEWROUTE else None

    def close(self) -> None:
        """Closes the netlink socket."""
        self._socket.close()
