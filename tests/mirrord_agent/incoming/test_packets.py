import struct
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.packets import (
    ACK,
    FIN,
    SYN,
    TcpSegment,
    UdpDatagram,
    Undecoded,
    decode,
    destination_address,
    destination_port,
    endpoints,
    reversed_flow,
)
from mirrord_agent.wire.frames import InetEndpoint
from tests.mirrord_agent.incoming import crafted
from tests.mirrord_agent.incoming.crafted import CLIENT, CLIENT6, LOCAL, LOCAL6, ip4, ip6, tcp, tcp_header, udp

HEADER = tcp_header((CLIENT.port, LOCAL.port), 5, 6, ACK)
FLOW4 = bytes([198, 18, 0, 1, 198, 18, 0, 2]) + struct.pack(">HH", 40000, 80)
FLOW6 = b"\xfd" + bytes(14) + b"\1\xfd" + bytes(14) + b"\2" + struct.pack(">HH", 40000, 80)
PLAIN = TcpSegment(FLOW4, 5, 6, ACK, 3, b"abc")
PLAIN6 = PLAIN._replace(flow=FLOW6)

inet4 = st.builds(InetEndpoint, st.ip_addresses(v=4).map(str), st.integers(0, 65535))
inet6 = st.builds(InetEndpoint, st.ip_addresses(v=6).map(str), st.integers(0, 65535))
pairs = st.tuples(inet4, inet4) | st.tuples(inet6, inet6)
numbers = st.integers(0, (1 << 32) - 1)


def four(body: bytes, protocol: int = crafted.TCP, options: bytes = b"", fragment: int = 0) -> bytes:
    return ip4(CLIENT.host, LOCAL.host, protocol, body, options=options, fragment=fragment)


def six(body: bytes, protocol: int = crafted.TCP) -> bytes:
    return ip6(CLIENT6.host, LOCAL6.host, protocol, body)


def extension(following: int, size: int = 8, *, third: int = 0) -> bytes:
    return bytes([following, (size >> 3) - 1, 4, third]) + bytes(size - 4)


def fragment(following: int, word: int) -> bytes:
    return struct.pack(">BBHI", following, 0, word, 1)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (four(HEADER + b"abc"), PLAIN),
        (four(HEADER + b"abc", options=b"\1" * 40), PLAIN),
        (four(HEADER), PLAIN._replace(length=0, payload=b"")),
        (four(HEADER + b"abc", fragment=0x4000), PLAIN),
        (four(HEADER + b"abc") + bytes(6), PLAIN),
        (four(HEADER + b"abcdef")[:-3], PLAIN._replace(length=6)),
        (four(HEADER + b"abcdef")[:40], PLAIN._replace(length=6, payload=b"")),
        (six(HEADER + b"abc"), PLAIN6),
        (six(HEADER + b"abc") + bytes(6), PLAIN6),
        (six(HEADER + b"abcdef")[:-3], PLAIN6._replace(length=6)),
        (four(tcp_header((40000, 80), 5, 6, SYN | FIN, b"\1" * 40) + b"abc"), PLAIN._replace(flags=SYN | FIN)),
        (four(tcp_header((40000, 80), 5, 6, ACK, b"\1" * 40) + b"abc")[:50], PLAIN._replace(payload=b"")),
    ],
    ids=count(),
)
def test_tcp(packet: bytes, expected: TcpSegment) -> None:
    assert decode(packet) == expected


@pytest.mark.parametrize(
    ("protocol", "extensions"),
    [
        (crafted.HOP_BY_HOP, extension(crafted.TCP)),
        (crafted.HOP_BY_HOP, extension(crafted.TCP, 2048)),
        (crafted.DESTINATION_OPTIONS, extension(crafted.TCP, 16)),
        (crafted.ROUTING, extension(crafted.TCP, 24)),
        (
            crafted.HOP_BY_HOP,
            extension(crafted.ROUTING) + extension(crafted.DESTINATION_OPTIONS, 16) + extension(crafted.TCP),
        ),
        (crafted.FRAGMENT, fragment(crafted.TCP, 0)),
    ],
    ids=count(),
)
def test_extension_headers_of_ipv6_are_skipped(protocol: int, extensions: bytes) -> None:
    assert decode(six(extensions + HEADER + b"abc", protocol)) == PLAIN6


@pytest.mark.parametrize("size", [70_000, 500_000])
def test_packets_longer_than_their_length_field_can_tell(size: int) -> None:
    payload = bytes(size)
    jumbo = struct.pack(">BBBBI", crafted.TCP, 0, 0xC2, 4, size + 28)
    assert decode(four(HEADER + payload)) == PLAIN._replace(length=size, payload=payload)
    assert decode(six(HEADER + payload)) == PLAIN6._replace(length=size, payload=payload)
    packet = six(jumbo + HEADER + payload, crafted.HOP_BY_HOP)
    assert decode(packet) == PLAIN6._replace(length=size, payload=payload)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", Undecoded.TRUNCATED),
        (b"\x45", Undecoded.TRUNCATED),
        (b"\x00\x01\x08\x00\x06\x04\x00\x01", Undecoded.NOT_IP),
        (four(HEADER)[:39], Undecoded.TRUNCATED),
        (six(HEADER)[:59], Undecoded.TRUNCATED),
        (b"\x44" + four(HEADER)[1:], Undecoded.MALFORMED),
        (four(HEADER[:19]) + bytes(9), Undecoded.MALFORMED),
        (six(HEADER[:19]) + bytes(9), Undecoded.MALFORMED),
        (four(HEADER[:12] + b"\x40" + HEADER[13:]), Undecoded.MALFORMED),
        (four(HEADER[:12] + b"\x60" + HEADER[13:]), Undecoded.MALFORMED),
        (four(HEADER, fragment=0x2000), Undecoded.FRAGMENT),
        (four(HEADER, fragment=0x0001), Undecoded.FRAGMENT),
        (four(HEADER, protocol=1), Undecoded.OTHER_PROTOCOL),
        (six(HEADER, protocol=58), Undecoded.OTHER_PROTOCOL),
        (six(extension(58) + HEADER, crafted.HOP_BY_HOP), Undecoded.OTHER_PROTOCOL),
        (six(extension(crafted.TCP) + HEADER, crafted.AUTHENTICATION), Undecoded.OTHER_PROTOCOL),
        (six(extension(crafted.TCP, third=1) + HEADER, crafted.ROUTING), Undecoded.OTHER_PROTOCOL),
        (six(fragment(crafted.TCP, 1) + HEADER, crafted.FRAGMENT), Undecoded.FRAGMENT),
        (six(fragment(crafted.TCP, 8) + HEADER, crafted.FRAGMENT), Undecoded.FRAGMENT),
        (six(extension(crafted.HOP_BY_HOP) * 9 + HEADER, crafted.HOP_BY_HOP), Undecoded.MALFORMED),
        (six(extension(crafted.TCP)[:7], crafted.HOP_BY_HOP), Undecoded.TRUNCATED),
        (six(b"", crafted.HOP_BY_HOP), Undecoded.TRUNCATED),
        (udp(CLIENT, LOCAL, b"abc")[:-1], Undecoded.TRUNCATED),
        (udp(CLIENT, LOCAL, b"")[:27], Undecoded.TRUNCATED),
        (four(struct.pack(">HHHH", 40000, 80, 7, 0), crafted.UDP), Undecoded.MALFORMED),
        (four(struct.pack(">HHHH", 40000, 80, 9, 0), crafted.UDP) + b"a", Undecoded.MALFORMED),
    ],
    ids=count(),
)
def test_what_is_neither(packet: bytes, reason: Undecoded) -> None:
    assert decode(packet) is reason


@pytest.mark.parametrize("payload", [b"", b"abc", bytes(65507)], ids=len)
def test_udp(payload: bytes) -> None:
    assert decode(udp(CLIENT, LOCAL, payload)) == UdpDatagram(FLOW4, payload)
    assert decode(udp(CLIENT6, LOCAL6, payload)) == UdpDatagram(FLOW6, payload)
    assert decode(udp(CLIENT6, LOCAL6, payload) + bytes(9)) == UdpDatagram(FLOW6, payload)


def test_a_datagram_may_be_shorter_than_its_packet() -> None:
    assert decode(four(struct.pack(">HHHH", 40000, 80, 11, 0) + b"abcdef", crafted.UDP)) == UdpDatagram(FLOW4, b"abc")


@given(pairs, numbers, numbers, st.integers(0, 255), st.binary(max_size=40), st.data())
def test_any_segment_however_much_of_it_is_captured(
    pair: tuple[InetEndpoint, InetEndpoint],
    sequence: int,
    acknowledgment: int,
    flags: int,
    payload: bytes,
    data: st.DataObject,
) -> None:
    packet = tcp(*pair, sequence, acknowledgment, flags, payload)
    captured = data.draw(st.integers(0, len(packet)))
    segment = decode(packet[:captured])
    header = len(packet) - len(payload) - 12
    if captured < header:
        assert segment is Undecoded.TRUNCATED
    else:
        assert isinstance(segment, TcpSegment)
        assert segment[1:5] == (sequence, acknowledgment, flags, len(payload))
        assert segment.payload == payload[: max(0, captured - header - 12)]
        assert endpoints(segment.flow) == pair


@given(st.binary(max_size=120) | st.builds(lambda first, rest: bytes([first]) + rest, st.just(0x60), st.binary()))
def test_any_bytes_are_something_in_any_kind_of_buffer(packet: bytes) -> None:
    result = decode(packet)
    assert isinstance(result, TcpSegment | UdpDatagram | Undecoded)
    assert decode(bytearray(packet)) == decode(memoryview(packet)) == result


@given(pairs)
def test_flows(pair: tuple[InetEndpoint, InetEndpoint]) -> None:
    source, destination = pair
    segment = decode(tcp(source, destination, 1, 1, ACK))
    back = decode(tcp(destination, source, 1, 1, ACK))
    assert isinstance(segment, TcpSegment)
    assert isinstance(back, TcpSegment)
    assert reversed_flow(segment.flow) == back.flow
    assert destination_port(segment.flow) == destination.port
    assert len(destination_address(segment.flow)) == (16 if ":" in destination.host else 4)
    assert destination_address(segment.flow) == back.flow[: len(destination_address(segment.flow))]
