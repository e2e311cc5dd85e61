"""The kernel's filter of what is captured, so that other packets cost nothing: classic BPF (linux/filter.h).

It sees packets as a socket of type SOCK_DGRAM does, from the IP header on, and what the kernel knows of them besides.
Two kinds are left out whatever their ports are:

- On loopback each packet is there twice, going out and coming in. The first of the two is left out.
- What a session sends to the target itself, which its mark shows, is passed on from a client: the client's own packets
  were seen when they came.

Of what the target sends by TCP only the ends of a connection, what carries no data, and one packet in 16 of the others
are taken: they tell by their acknowledgments whether the target has got what was lost here. Its data would cost the
target dearly: a copy keeps the pages that the data is in, and the target has to take cold ones for what it says next
(measured: a third of its throughput), and where answers are short, each costs as much as the request did.

IPv6 packets with extension headers are all taken if there are ports of IPv6; they are rare, and are looked at when they
are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from mirrord_agent.incoming.families import Port
from mirrord_agent.incoming.ruleset import LAST_ORDER, mark_of
from mirrord_agent.wire.frames import AddressFamily

#: A struct sock_filter: code, jumps if true and if false (instructions to leave out), operand.
INSTRUCTION: Final = struct.Struct("=HBBI")
#: Ports beyond which all are taken: each is asked for in turn, and two programs at a time have to fit 20 KiB
#: (net.core.optmem_max in socket(7)).
MOST_PORTS: Final = 64
#: What is short: an acknowledgment with all options and no data.
SHORT_BYTES: Final = 100
#: Of what is longer one packet in so many is taken as well: a power of two.
ONE_IN: Final = 16

# Codes: load a word, a half-word or a byte, from a place or behind X, or a packet's length; X as the length of an IPv4
# header; jumps; return.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_INDEXED, _LOAD_BYTE_INDEXED = 0x20, 0x28, 0x30, 0x48, 0x50
_LOAD_LENGTH: Final = 0x80
_LOAD_HEADER_LENGTH: Final = 0xB1
_JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_BITS = 0x05, 0x15, 0x25, 0x35, 0x45
_AND, _SHIFT_RIGHT = 0x54, 0x74
_RETURN: Final = 0x06

#: Places of what the kernel knows of a packet (SKF_AD_OFF and behind).
_ANCILLARY: Final = 0xFFFFF000
_PACKET_KIND, _MARK, _HARDWARE, _RANDOM = (_ANCILLARY + place for place in (4, 20, 28, 56))
_PACKET_OUTGOING: Final = 4
_ARPHRD_LOOPBACK: Final = 772

_TCP, _UDP = 6, 17
_FIN_SYN_RST: Final = 0x07
_EXTENSIONS: Final = (0, 43, 44, 60)
_ALL: Final = 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]
_TAKE: Final[_Instruction] = (_RETURN, 0, 0, _ALL)
_LEAVE: Final[_Instruction] = (_RETURN, 0, 0, 0)


def compile_filter(tcp_ports: Collection[Port], udp_ports: Collection[Port]) -> bytes:
    """Takes TCP packets to these ports, those from them that tell of a connection, and UDP packets to them."""
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _MARK),
        (_JUMP_GREATER_EQUAL, 0, 2, mark_of(1)),
        (_JUMP_GREATER, 1, 0, mark_of(LAST_ORDER)),
        _LEAVE,
        (_LOAD_WORD, 0, 0, _PACKET_KIND),
        (_JUMP_EQUAL, 0, 3, _PACKET_OUTGOING),
        (_LOAD_WORD, 0, 0, _HARDWARE),
        (_JUMP_EQUAL, 0, 1, _ARPHRD_LOOPBACK),
        _LEAVE,
        (_LOAD_BYTE, 0, 0, 0),
        (_SHIFT_RIGHT, 0, 0, 4),
    ]
    version_4 = _of_version_4(_of("inet4", tcp_ports), _of("inet4", udp_ports))
    version_6 = _of_version_6(_of("inet6", tcp_ports), _of("inet6", udp_ports))
    program += [
        (_JUMP_EQUAL, 1, 0, 4),
        (_JUMP, 0, 0, len(version_4)),
        *version_4,
        (_JUMP_EQUAL, 1, 0, 6),
        _LEAVE,
        *version_6,
    ]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def _of(family: AddressFamily, ports: Collection[Port]) -> list[int]:
    return [number for version, number in ports if version == family]


def _of_version_4(tcp_ports: Collection[int], udp_ports: Collection[int]) -> list[_Instruction]:
    return [
        (_LOAD_HALF, 0, 0, 6),
        (_JUMP_BITS, 0, 1, 0x1FFF),  # not the first of its fragments: no ports
        _LEAVE,
        (_LOAD_HEADER_LENGTH, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, 9),
        *_of_protocol(_TCP, _of_tcp(_LOAD_HALF_INDEXED, _LOAD_BYTE_INDEXED, 0, tcp_ports)),
        *_of_protocol(_UDP, _of_udp(_LOAD_HALF_INDEXED, 0, udp_ports)),
        _LEAVE,
    ]


def _of_version_6(tcp_ports: Collection[int], udp_ports: Collection[int]) -> list[_Instruction]:
    if not tcp_ports and not udp_ports:
        return [_LEAVE]
    taken = [instruction for number in _EXTENSIONS for instruction in ((_JUMP_EQUAL, 0, 1, number), _TAKE)]
    return [
        (_LOAD_BYTE, 0, 0, 6),
        *taken,
        *_of_protocol(_TCP, _of_tcp(_LOAD_HALF, _LOAD_BYTE, 40, tcp_ports)),
        *_of_protocol(_UDP, _of_udp(_LOAD_HALF, 40, udp_ports)),
        _LEAVE,
    ]


def _of_protocol(number: int, rest: list[_Instruction]) -> list[_Instruction]:
    """The rest for packets of this protocol, which is loaded; the rest ends the program."""
    return [(_JUMP_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(rest)), *rest]


def _of_tcp(load_half: int, load_byte: int, header: int, ports: Collection[int]) -> list[_Instruction]:
    """Takes a packet to one of these ports, and some that come from them."""
    if len(ports) > MOST_PORTS:
        return [_TAKE]
    from_target = [
        (load_byte, 0, 0, header + 13),
        (_JUMP_BITS, 4, 0, _FIN_SYN_RST),
        (_LOAD_LENGTH, 0, 0, 0),
        (_JUMP_GREATER, 0, 2, SHORT_BYTES),
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_JUMP_BITS, 1, 0, ONE_IN - 1),
        _TAKE,
        _LEAVE,
    ]
    from_ports: list[_Instruction] = [_LEAVE]
    for port in sorted(ports, reverse=True):
        from_ports[:0] = [(_JUMP_EQUAL, 0, 1, port), (_JUMP, 0, 0, len(from_ports))]
    return [*_to_ports(load_half, header, ports), (load_half, 0, 0, header), *from_ports, *from_target]


def _of_udp(load_half: int, header: int, ports: Collection[int]) -> list[_Instruction]:
    """Takes a packet to one of these ports."""
    if len(ports) > MOST_PORTS:
        return [_TAKE]
    return [*_to_ports(load_half, header, ports), _LEAVE]


def _to_ports(load_half: int, header: int, ports: Collection[int]) -> list[_Instruction]:
    """Takes what goes to one of these ports, and goes on with the next instruction for the rest."""
    taken = [each for port in sorted(ports) for each in ((_JUMP_EQUAL, 0, 1, port), _TAKE)]
    return [(load_half, 0, 0, header + 2), *taken]
