"""The kernel's filter of what is captured, so that other packets cost nothing: classic BPF (linux/filter.h).

It sees packets as a socket of type SOCK_DGRAM does, from the IP header on, and what the kernel knows of them besides.
Two kinds are left out whatever their ports are:

- On loopback each packet is there twice, going out and coming in. The first of the two is left out.
- What a session sends to the target itself, which its mark shows, is passed on from a client: the client's own packets
  were seen when they came.

IPv6 packets with extension headers are all taken; they are rare, and are looked at when they are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from mirrord_agent.incoming.ruleset import LAST_ORDER, mark_of

#: A struct sock_filter: code, jumps if true and if false (instructions to leave out), operand.
INSTRUCTION: Final = struct.Struct("=HBBI")
#: Ports beyond which all are taken: each is asked for in turn, and two programs at a time have to fit 20 KiB
#: (net.core.optmem_max in socket(7)).
MOST_PORTS: Final = 64

# Codes: load a word, a half-word or a byte, from a place or behind X; X as the length of an IPv4 header; jumps; return.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_INDEXED = 0x20, 0x28, 0x30, 0x48
_LOAD_HEADER_LENGTH: Final = 0xB1
_JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_BITS = 0x05, 0x15, 0x25, 0x35, 0x45
_AND, _SHIFT_RIGHT = 0x54, 0x74
_RETURN: Final = 0x06

#: Places of what the kernel knows of a packet (SKF_AD_OFF and behind).
_ANCILLARY: Final = 0xFFFFF000
_PACKET_KIND, _MARK, _HARDWARE = _ANCILLARY + 4, _ANCILLARY + 20, _ANCILLARY + 28
_PACKET_OUTGOING: Final = 4
_ARPHRD_LOOPBACK: Final = 772

_TCP, _UDP = 6, 17
_EXTENSIONS: Final = (0, 43, 44, 60)
_ALL: Final = 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]
_TAKE: Final[_Instruction] = (_RETURN, 0, 0, _ALL)
_LEAVE: Final[_Instruction] = (_RETURN, 0, 0, 0)


def compile_filter(tcp_ports: Collection[int], udp_ports: Collection[int]) -> bytes:
    """Takes TCP packets from and to these ports, and UDP packets to these."""
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
    version_4, version_6 = _of_version_4(tcp_ports, udp_ports), _of_version_6(tcp_ports, udp_ports)
    program += [
        (_JUMP_EQUAL, 1, 0, 4),
        (_JUMP, 0, 0, len(version_4)),
        *version_4,
        (_JUMP_EQUAL, 1, 0, 6),
        _LEAVE,
        *version_6,
    ]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def _of_version_4(tcp_ports: Collection[int], udp_ports: Collection[int]) -> list[_Instruction]:
    return [
        (_LOAD_HALF, 0, 0, 6),
        (_JUMP_BITS, 0, 1, 0x1FFF),  # not the first of its fragments: no ports
        _LEAVE,
        (_LOAD_HEADER_LENGTH, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, 9),
        *_of_protocol(_TCP, _any_port(_LOAD_HALF_INDEXED, (0, 2), tcp_ports)),
        *_of_protocol(_UDP, _any_port(_LOAD_HALF_INDEXED, (2,), udp_ports)),
        _LEAVE,
    ]


def _of_version_6(tcp_ports: Collection[int], udp_ports: Collection[int]) -> list[_Instruction]:
    taken = [instruction for number in _EXTENSIONS for instruction in ((_JUMP_EQUAL, 0, 1, number), _TAKE)]
    return [
        (_LOAD_BYTE, 0, 0, 6),
        *taken,
        *_of_protocol(_TCP, _any_port(_LOAD_HALF, (40, 42), tcp_ports)),
        *_of_protocol(_UDP, _any_port(_LOAD_HALF, (42,), udp_ports)),
        _LEAVE,
    ]


def _of_protocol(number: int, rest: list[_Instruction]) -> list[_Instruction]:
    """The rest for packets of this protocol, which is loaded; the rest ends the program."""
    return [(_JUMP_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(rest)), *rest]


def _any_port(load: int, places: Collection[int], ports: Collection[int]) -> list[_Instruction]:
    """Takes a packet that has one of these ports at one of these places, and no other."""
    if len(ports) > MOST_PORTS:
        return [_TAKE]
    program: list[_Instruction] = []
    for place in places:
        program.append((load, 0, 0, place))
        for port in sorted(ports):
            program += [(_JUMP_EQUAL, 0, 1, port), _TAKE]
    return [*program, _LEAVE]
