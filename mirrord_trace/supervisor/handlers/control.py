"""Control messages of UDP sockets that name addresses: cmsg(3), ip(7), ipv6(7).

What a process sends through a relay leaves over loopback: a source address or an interface of the pod (IP_PKTINFO),
which this machine does not have, would make the send fail. What it receives shows loopback: where the pod's address is
known, it is put there.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, decode_sockaddr, encode_sockaddr, mapped_ipv4
from mirrord_syscalls.structs import ControlMessage, decode_control, encode_control

_IP_PKTINFO: Final = (socket.IPPROTO_IP, 8)
_IPV6_PKTINFO: Final = (socket.IPPROTO_IPV6, 50)
_IP_RECVERR: Final = (socket.IPPROTO_IP, 11)
_IPV6_RECVERR: Final = (socket.IPPROTO_IPV6, 25)
_in_pktinfo = struct.Struct("=I4s4s")
_IN6_ADDR_BYTES: Final = 16
_EXTENDED_ERROR_BYTES: Final = 16  # struct sock_extended_err; the offender's address follows it


def names_a_source(messages: tuple[ControlMessage, ...]) -> bool:
    """Whether a message says where the datagram is to be sent from."""
    return any((message.level, message.type) in (_IP_PKTINFO, _IPV6_PKTINFO) for message in messages)


def without_source(messages: tuple[ControlMessage, ...]) -> bytes:
    """The control buffer without what says where the datagram is to be sent from."""
    return encode_control(
        message for message in messages if (message.level, message.type) not in (_IP_PKTINFO, _IPV6_PKTINFO)
    )


def shown_in_pod(raw: bytes, local: SocketAddress, peer: SocketAddress) -> bytes:
    """A control buffer that a connected socket received, as it would be in the pod: in as many bytes.

    `local` and `peer` are the socket's names. The interface's index stays this machine's.
    """
    messages = decode_control(raw)
    shown = [_shown(message, local, peer) for message in messages]
    changed = encode_control(shown)[: len(raw)] if shown != list(messages) else b""
    return changed + raw[len(changed) :]


def _shown(message: ControlMessage, local: SocketAddress, peer: SocketAddress) -> ControlMessage:
    data, kind = message.data, (message.level, message.type)
    if kind == _IP_PKTINFO and len(data) == _in_pktinfo.size:
        plain = mapped_ipv4(local) or local
        if isinstance(plain, Inet4):
            interface, *_ = _in_pktinfo.unpack(data)
            return attrs.evolve(message, data=_in_pktinfo.pack(interface, plain.host.packed, plain.host.packed))
    elif kind == _IPV6_PKTINFO and len(data) >= _IN6_ADDR_BYTES and isinstance(local, Inet6):
        return attrs.evolve(message, data=local.host.packed + data[_IN6_ADDR_BYTES:])
    elif kind in (_IP_RECVERR, _IPV6_RECVERR):
        offender = _offender(data[_EXTENDED_ERROR_BYTES:], peer)
        return attrs.evolve(message, data=data[:_EXTENDED_ERROR_BYTES] + offender)
    return message


def _offender(raw: bytes, peer: SocketAddress) -> bytes:
    """Whose ICMP message it was: loopback's, that is, the peer's own."""
    try:
        address = decode_sockaddr(raw)
    except ValueError:
        return raw
    plain = mapped_ipv4(peer) or peer
    if isinstance(address, Inet4) and address.host.is_loopback and isinstance(plain, Inet4):
        return encode_sockaddr(attrs.evolve(address, host=plain.host))
    if isinstance(address, Inet6) and isinstance(peer, Inet6) and _is_loopback(address.host):
        return encode_sockaddr(attrs.evolve(address, host=peer.host))
    return raw


def _is_loopback(host: IPv6Address) -> bool:
    return (host.ipv4_mapped or host).is_loopback
