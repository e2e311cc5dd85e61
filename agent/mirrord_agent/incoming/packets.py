"""Captured packets, from the IP header on, as TCP segments and UDP datagrams.

That is what an AF_PACKET socket of type SOCK_DGRAM gives (packet(7)): no link header. Three facts shape this module:

- A capture is not what went over a wire. Segmentation is left to a device that is not there on loopback and veth, so
  one packet is up to 64 KiB, or longer with a length of zero ("BIG TCP", Linux 5.19 for IPv6 and 6.3 for IPv4). What is
  captured may be shorter than the packet (a snapshot length) or longer (padding of short Ethernet frames).
- Checksums are left to that device too: between containers of one machine nobody ever computes them, and what is in the
  field is the sum of the pseudo-header. So they cannot be checked here. A packet that a real network damaged is taken
  for good until its flow shows otherwise; network cards drop nearly all of those.
- Anyone can send anything. Whatever comes, `decode` returns: a packet, or why it is none.

At 200 MB/s every microsecond counts: so results are tuples, and payloads are not copied.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
from typing import Final, NamedTuple

from mirrord_agent.wire.frames import InetEndpoint

Buffer = bytes | bytearray | memoryview

#: TCP's control bits (RFC 9293 section 3.1).
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_TCP, _UDP = 6, 17
#: Header of IPv4 without options (RFC 791): version and length, total length, fragment, protocol, both addresses.
_IP4: Final = struct.Struct(">BxH2xHxB2x8s")
#: Header of IPv6 (RFC 8200): payload length, next header, both addresses.
_IP6: Final = struct.Struct(">4xHBx32s")
#: TCP: both ports, sequence number, acknowledgment number, data offset, flags, and what has a fixed length behind them.
_TCP_HEADER: Final = struct.Struct(">4sIIBB6x")
#: UDP (RFC 768): both ports, length.
_UDP_HEADER: Final = struct.Struct(">4sH2x")
_UDP_BYTES = 8

#: More Fragments and the offset of IPv4, the same of IPv6's fragment header; without either it is a whole packet.
_IP4_FRAGMENT = 0x3FFF
_IP6_FRAGMENT = 0xFFF9
#: Extension headers of IPv6 (RFC 8200 section 4) that may precede TCP and UDP.
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS = 0, 43, 44, 60
_MOST_EXTENSIONS = 8


class TcpSegment(NamedTuple):
    """A TCP segment."""

    flow: bytes
    """Who sends to whom: see `endpoints`."""
    sequence: int
    acknowledgment: int
    flags: int
    length: int
    """Bytes of payload that the packet had."""
    payload: Buffer
    """Those of them that were captured, a part of the buffer that was decoded: valid as long as that is."""


class UdpDatagram(NamedTuple):
    """A UDP datagram, complete."""

    flow: bytes
    payload: Buffer
    """A part of the buffer that was decoded, as in `TcpSegment`."""


class Undecoded(enum.Enum):
    """Why a packet is neither of them."""

    NOT_IP = "not IP"
    OTHER_PROTOCOL = "neither TCP nor UDP, or on its way elsewhere"
    FRAGMENT = "a fragment"
    """The pieces of a packet are not put together: TCP avoids them (RFC 1191), and large UDP datagrams are rare."""
    TRUNCATED = "not captured as far as it would have to be"
    MALFORMED = "not what it says that it is"


def decode(packet: Buffer) -> TcpSegment | UdpDatagram | Undecoded:
    """What a packet is. `packet` begins with the IP header; a memoryview is not copied, and is cheapest."""
    try:
        version = packet[0] >> 4
        if version == 4:
            first, total, fragment, protocol, addresses = _IP4.unpack_from(packet)
            if fragment & _IP4_FRAGMENT:
                return Undecoded.FRAGMENT
            start = (first & 0xF) << 2
            end = total or len(packet)
            if start < _IP4.size:
                return Undecoded.MALFORMED
        elif version == 6:
            length, protocol, addresses = _IP6.unpack_from(packet)
            start = _IP6.size
            end = start + length if length else len(packet)
            if protocol not in (_TCP, _UDP):
                found = _behind_extensions(packet, protocol)
                if isinstance(found, Undecoded):
                    return found
                protocol, start = found
        else:
            return Undecoded.NOT_IP
        if protocol == _TCP:
            ports, sequence, acknowledgment, offset, flags = _TCP_HEADER.unpack_from(packet, start)
            data = start + (offset >> 4 << 2)
            if data < start + _TCP_HEADER.size or data > end:
                return Undecoded.MALFORMED
            return TcpSegment(addresses + ports, sequence, acknowledgment, flags, end - data, packet[data:end])
        if protocol == _UDP:
            return _datagram(packet, addresses, start, end)
    except (struct.error, IndexError):
        return Undecoded.TRUNCATED
    return Undecoded.OTHER_PROTOCOL


def _behind_extensions(packet: Buffer, protocol: int) -> tuple[int, int] | Undecoded:
    """The protocol behind an IPv6 packet's extension headers, and where it begins. Raises IndexError."""
    start = _IP6.size
    for _ in range(_MOST_EXTENSIONS):
        if protocol in (_TCP, _UDP):
            return protocol, start
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS):
            return Undecoded.OTHER_PROTOCOL
        if protocol == _FRAGMENT:
            if (packet[start + 2] << 8 | packet[start + 3]) & _IP6_FRAGMENT:
                return Undecoded.FRAGMENT
            size = 8
        else:
            if protocol == _ROUTING and packet[start + 3]:
                return Undecoded.OTHER_PROTOCOL  # segments are left: the destination is only the next of them
            size = (packet[start + 1] + 1) << 3
        protocol, start = packet[start], start + size
    return Undecoded.MALFORMED


def _datagram(packet: Buffer, addresses: bytes, start: int, end: int) -> UdpDatagram | Undecoded:
    """Raises struct.error."""
    ports, length = _UDP_HEADER.unpack_from(packet, start)
    if length < _UDP_BYTES or start + length > end:
        return Undecoded.MALFORMED
    if start + length > len(packet):
        return Undecoded.TRUNCATED
    return UdpDatagram(addresses + ports, packet[start + _UDP_BYTES : start + length])


# A flow is the addresses and ports of source and destination as packets have them: 12 bytes (IPv4) or 36 (IPv6).


def reversed_flow(flow: bytes) -> bytes:
    """The flow of what is sent back."""
    middle = (len(flow) - 4) // 2
    return flow[middle:-4] + flow[:middle] + flow[-2:] + flow[-4:-2]


def destination_address(flow: bytes) -> bytes:
    """The address that packets of this flow are sent to: 4 or 16 bytes."""
    return flow[(len(flow) - 4) // 2 : -4]


def destination_port(flow: bytes) -> int:
    """The port that packets of this flow are sent to."""
    return flow[-2] << 8 | flow[-1]


@functools.lru_cache(maxsize=1024)
def endpoints(flow: bytes) -> tuple[InetEndpoint, InetEndpoint]:
    """Source and destination of a flow. A packet does not tell the interface that a link-local address belongs to."""
    middle = (len(flow) - 4) // 2
    source, destination = ipaddress.ip_address(flow[:middle]), ipaddress.ip_address(flow[middle:-4])
    return (
        InetEndpoint(str(source), flow[-4] << 8 | flow[-3]),
        InetEndpoint(str(destination), destination_port(flow)),
    )
