"""What the kernel's filter of a capture takes: programs are run by a small machine here, and checked by the kernel."""

from __future__ import annotations

import ctypes
import itertools
import socket
import struct
from collections.abc import Collection

import attrs
import pytest

from mirrord_agent.incoming import families
from mirrord_agent.incoming.capture_filter import INSTRUCTION, MOST_PORTS, ONE_IN, SHORT_BYTES, compile_filter
from mirrord_agent.incoming.families import Port
from mirrord_agent.incoming.packets import ACK, FIN, RST, SYN
from mirrord_agent.incoming.ruleset import LAST_ORDER, mark_of
from mirrord_agent.wire.frames import InetEndpoint
from tests.mirrord_agent.incoming.crafted import CLIENT, CLIENT6, HOP_BY_HOP, LOCAL, LOCAL6, TCP, ip4, ip6, tcp, udp

_SO_ATTACH_FILTER = 26
_OUTGOING, _LOOPBACK, _ETHERNET = 4, 772, 1
_ANCILLARY = 0xFFFFF000


@attrs.frozen
class Captured:
    """A packet, and what the kernel knows of it besides."""

    packet: bytes
    mark: int = 0
    kind: int = 0
    hardware: int = _ETHERNET
    random: int = 1


def takes(program: bytes, captured: Captured) -> bool:
    """Classic BPF as linux/filter.h has it, as much of it as there is in these programs."""
    packet = captured.packet
    ancillary = {4: captured.kind, 20: captured.mark, 28: captured.hardware, 56: captured.random}
    known = {_ANCILLARY + place: value for place, value in ancillary.items()}
    instructions = list(INSTRUCTION.iter_unpack(program))
    accumulator = index = position = 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        size = {0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2, 0x50: 1}.get(code)
        match code:
            case 0x20 if operand in known:
                accumulator = known[operand]
            case 0x80:
                accumulator = len(packet)
            case 0x28 | 0x30 | 0x48 | 0x50:
                start = operand + (index if code in (0x48, 0x50) else 0)
                assert size is not None
                if start + size > len(packet):
                    return False
                accumulator = int.from_bytes(packet[start : start + size], "big")
            case 0xB1:
                index = (packet[operand] & 0xF) * 4
            case 0x74:
                accumulator >>= operand
            case 0x05:
                position += operand
            case 0x15 | 0x25 | 0x35 | 0x45:
                differs, exceeds = accumulator != operand, accumulator > operand
                meets = accumulator & operand != 0
                holds = {0x15: not differs, 0x25: exceeds, 0x35: exceeds or not differs, 0x45: meets}[code]
                position += if_true if holds else if_false
            case 0x06:
                return bool(operand)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def verified(tcp_ports: Collection[Port], udp_ports: Collection[Port]) -> bytes:
    """The program, which the kernel takes."""
    program = compile_filter(tcp_ports, udp_ports)
    instructions = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // INSTRUCTION.size, ctypes.addressof(instructions))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    return program


WATCHED = compile_filter(families.ports(80, 443), families.ports(53))
PAIRS = [(CLIENT, LOCAL), (CLIENT6, LOCAL6)]


def at(endpoint: InetEndpoint, port: int) -> InetEndpoint:
    return attrs.evolve(endpoint, port=port)


@pytest.mark.parametrize(("client", "local"), PAIRS)
@pytest.mark.parametrize(("port", "taken"), [(80, True), (443, True), (81, False), (53, False)])
def test_tcp_from_and_to_the_ports(client: InetEndpoint, local: InetEndpoint, port: int, taken: bool) -> None:
    for source, destination in itertools.permutations((client, at(local, port))):
        assert takes(WATCHED, Captured(tcp(source, destination, 1, 1, 0, b"data"))) == taken


@pytest.mark.parametrize(("client", "local"), PAIRS)
@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("client_port", [40000, 443])
@pytest.mark.parametrize("random", [0, 1, 15, 16, 7 * ONE_IN])
def test_what_is_long_is_taken_of_the_client_and_now_and_then_of_the_target(
    client: InetEndpoint, local: InetEndpoint, port: int, client_port: int, random: int
) -> None:
    there, here = at(client, client_port), at(local, port)
    headers = len(tcp(here, there, 1, 1, ACK))
    for length in (SHORT_BYTES - headers, SHORT_BYTES - headers + 1, 60_000):
        assert takes(WATCHED, Captured(tcp(there, here, 1, 1, ACK, bytes(length))))
        is_taken = headers + length <= SHORT_BYTES or random % ONE_IN == 0 or client_port == 443
        assert takes(WATCHED, Captured(tcp(here, there, 1, 1, ACK, bytes(length)), random=random)) == is_taken
        for flag in (SYN, FIN, RST):
            assert takes(WATCHED, Captured(tcp(here, there, 1, 1, ACK | flag, bytes(length))))


@pytest.mark.parametrize(("client", "local"), PAIRS)
@pytest.mark.parametrize(("port", "taken"), [(80, False), (53, True)])
def test_udp_to_the_ports(client: InetEndpoint, local: InetEndpoint, port: int, taken: bool) -> None:
    assert takes(WATCHED, Captured(udp(client, at(local, port), b"data"))) == taken
    assert not takes(WATCHED, Captured(udp(at(local, port), client, b"data")))


@pytest.mark.parametrize(
    ("packet", "taken"),
    [
        (b"", False),
        (b"\x45", False),
        (bytes(60), False),
        (ip4("198.18.0.1", "198.18.0.2", 1, b"\0\x50\0\x50" * 8), False),
        (ip4("198.18.0.1", "198.18.0.2", TCP, b"\0\x50\0\x50" * 8, options=b"\1" * 8), True),
        (ip4("198.18.0.1", "198.18.0.2", TCP, b"\0\x50\0\x50" * 8, fragment=0x2000), True),
        (ip4("198.18.0.1", "198.18.0.2", TCP, b"\0\x50\0\x50" * 8, fragment=0x2001), False),
        (ip6("fd00::1", "fd00::2", HOP_BY_HOP, bytes(16)), True),
        (ip6("fd00::1", "fd00::2", 58, b"\0\x50\0\x50" * 8), False),
    ],
)
def test_other_packets(packet: bytes, taken: bool) -> None:
    assert takes(WATCHED, Captured(packet)) == taken


@pytest.mark.parametrize(
    ("mark", "taken"),
    [(0, True), (1, True), (mark_of(1) - 1, True), (mark_of(1), False), (mark_of(LAST_ORDER), False), (1 << 31, True)],
)
def test_what_sessions_send_is_left_out(mark: int, taken: bool) -> None:
    assert takes(WATCHED, Captured(tcp(CLIENT, LOCAL, 1, 1, 0), mark=mark)) == taken


@pytest.mark.parametrize(
    ("kind", "hardware", "taken"),
    [(_OUTGOING, _LOOPBACK, False), (0, _LOOPBACK, True), (_OUTGOING, _ETHERNET, True), (0, _ETHERNET, True)],
)
def test_packets_on_loopback_are_taken_once(kind: int, hardware: int, taken: bool) -> None:
    assert takes(WATCHED, Captured(tcp(CLIENT, LOCAL, 1, 1, 0), kind=kind, hardware=hardware)) == taken


@pytest.mark.parametrize(("client", "local"), PAIRS)
def test_ports_of_one_version_of_ip(client: InetEndpoint, local: InetEndpoint) -> None:
    program = verified({("inet4", 80), ("inet6", 81)}, {("inet4", 81), ("inet6", 80)})
    tcp_port, udp_port = (80, 81) if local == LOCAL else (81, 80)
    for port in (80, 81):
        assert takes(program, Captured(tcp(client, at(local, port), 1, 1, 0))) == (port == tcp_port)
        assert takes(program, Captured(udp(client, at(local, port), b"?"))) == (port == udp_port)


@pytest.mark.parametrize("count", [0, 1, MOST_PORTS, MOST_PORTS + 1])
def test_the_kernel_takes_programs_of_any_length(count: int) -> None:
    ports = range(1000, 1000 + count)
    program = verified(families.ports(*ports), families.ports(*ports))
    packets = [tcp(CLIENT, at(LOCAL, port), 1, 1, 0) for port in (999, *ports)]
    taken = [takes(program, Captured(packet)) for packet in packets]
    assert taken == [count > MOST_PORTS] + [True] * count
