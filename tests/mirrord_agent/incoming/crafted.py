"""Packets as a capture gives them, made by hand: from the IP header on, without checksums."""

from __future__ import annotations

import ipaddress
import struct

import attrs

from mirrord_agent.incoming.packets import ACK, SYN
from mirrord_agent.wire.frames import InetEndpoint

CLIENT = InetEndpoint("198.18.0.1", 40000)
LOCAL = InetEndpoint("198.18.0.2", 80)
CLIENT6 = InetEndpoint("fd00::1", 40000)
LOCAL6 = InetEndpoint("fd00::2", 80)

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
TCP, UDP = 6, 17


def ip4(source: str, destination: str, protocol: int, body: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    size = 20 + len(options)
    length = size + len(body) if size + len(body) < 1 << 16 else 0
    head = struct.pack(">BBHHHBBH", 0x40 | size >> 2, 0, length, 7, fragment, 64, protocol, 0)
    return head + addresses + options + body


def ip6(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    length = len(body) if len(body) < 1 << 16 else 0
    return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + addresses + body


def packet(source: InetEndpoint, destination: InetEndpoint, protocol: int, body: bytes) -> bytes:
    make = ip6 if ":" in source.host else ip4
    return make(source.host, destination.host, protocol, body)


def tcp_header(ports: tuple[int, int], sequence: int, acknowledgment: int, flags: int, options: bytes = b"") -> bytes:
    wrapped = sequence % (1 << 32), acknowledgment % (1 << 32)
    return struct.pack(">HHIIBBHHH", *ports, *wrapped, 20 + len(options) << 2, flags, 0xFFFF, 0, 0) + options


def tcp(
    source: InetEndpoint,
    destination: InetEndpoint,
    sequence: int,
    acknowledgment: int,
    flags: int,
    payload: bytes = b"",
) -> bytes:
    header = tcp_header((source.port, destination.port), sequence, acknowledgment, flags, b"\1" * 12)
    return packet(source, destination, TCP, header + payload)


def udp(source: InetEndpoint, destination: InetEndpoint, payload: bytes) -> bytes:
    header = struct.pack(">HHHH", source.port, destination.port, 8 + len(payload), 0)
    return packet(source, destination, UDP, header + payload)


@attrs.frozen
class Conversation:
    """Both sides of a connection. Positions are those of the streams' bytes: the first one's is 0."""

    client: InetEndpoint = CLIENT
    local: InetEndpoint = LOCAL
    client_initial: int = 1000
    target_initial: int = 90_000

    def from_client(self, position: int, payload: bytes = b"", flags: int = ACK, acknowledged: int = 0) -> bytes:
        sequences = self.client_initial + 1 + position, self.target_initial + 1 + acknowledged
        return tcp(self.client, self.local, *sequences, flags, payload)

    def from_target(self, acknowledged: int, payload: bytes = b"", flags: int = ACK, position: int = 0) -> bytes:
        sequences = self.target_initial + 1 + position, self.client_initial + 1 + acknowledged
        return tcp(self.local, self.client, *sequences, flags, payload)

    def syn(self, payload: bytes = b"") -> bytes:
        return tcp(self.client, self.local, self.client_initial, 0, SYN, payload)

    def syn_ack(self, acknowledged: int = 0) -> bytes:
        return self.from_target(acknowledged, flags=SYN | ACK, position=-1)

    def handshake(self) -> list[bytes]:
        return [self.syn(), self.syn_ack(), self.from_client(0)]
