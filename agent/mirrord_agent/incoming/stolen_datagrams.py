"""A UDP port of the target that is stolen: datagrams come to a socket of the agent's, and answers leave from there.

Whoever has asked takes an answer only from the address that it has asked, which is one of several that the target may
have. So the address that each peer has sent to last is remembered (ip(7), ipv6(7): IP_PKTINFO).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections import OrderedDict
from typing import Final

from mirrord_agent import addresses
from mirrord_agent.datagrams import LONGEST, DatagramFlow
from mirrord_agent.incoming import any_address
from mirrord_agent.link import Link
from mirrord_agent.wire.frames import Datagram, InetEndpoint

#: Peers whose addresses are remembered; others are answered from whatever address the kernel chooses.
_MOST_PEERS: Final = 16384
_IP_PKTINFO: Final = 8
_CONTROL_BYTES: Final = 256
_in_pktinfo = struct.Struct("=I4s4s")
_in6_pktinfo = struct.Struct("=16sI")
_UNSPECIFIED: Final = bytes(4)


def open_listener() -> socket.socket:
    """A UDP socket for datagrams to any address, which tells to which. Raises OSError."""
    listener = any_address.open_socket(socket.SOCK_DGRAM)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return listener


class StolenDatagrams(DatagramFlow):
    """The socket and its stream, which is the subscription's."""

    def __init__(self, link: Link, stream: int, listener: socket.socket) -> None:
        super().__init__(link, stream, listener, connected=False)
        self._is_ipv6 = listener.family == socket.AF_INET6
        self._asked: OrderedDict[InetEndpoint, bytes] = OrderedDict()
        """What belongs to IP_PKTINFO or IPV6_PKTINFO in an answer to a peer; who was heard of last comes last."""

    def _receive(self) -> tuple[bytes, InetEndpoint | None]:
        payload, control, _, source = self._socket.recvmsg(LONGEST, _CONTROL_BYTES)
        peer = addresses.unmapped(addresses.from_sockaddr(source))
        for _, _, info in control:
            self._asked[peer] = self._answer_info(info)
            self._asked.move_to_end(peer)
        if len(self._asked) > _MOST_PEERS:
            self._asked.popitem(last=False)
        return payload, peer

    def _answer_info(self, info: bytes) -> bytes:
        if self._is_ipv6:
            address, interface = _in6_pktinfo.unpack(info)
            # Only a link-local address belongs to one interface; the way to others may lead through another.
            is_on_link = ipaddress.IPv6Address(address).is_link_local
            return _in6_pktinfo.pack(address, interface if is_on_link else 0)
        return _in_pktinfo.pack(0, _in_pktinfo.unpack(info)[2], _UNSPECIFIED)

    def _transmit(self, datagram: Datagram) -> None:
        assert datagram.peer is not None
        control = []
        if info := self._asked.get(addresses.unmapped(datagram.peer)):
            level, kind = (
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if self._is_ipv6 else (socket.IPPROTO_IP, _IP_PKTINFO)
            )
            control = [(level, kind, info)]
        self._socket.sendmsg([datagram.payload], control, 0, self._address_of(datagram.peer))

    def _address_of(self, peer: InetEndpoint) -> tuple[str, int] | tuple[str, int, int, int]:
        """As this socket takes it: one of IPv6 has IPv4's mapped."""
        if self._is_ipv6 and ":" not in peer.host:
            return f"::ffff:{peer.host}", peer.port, 0, 0
        return addresses.to_sockaddr(peer)
