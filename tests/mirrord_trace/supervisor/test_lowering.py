"""Verdicts lowered to registers and memory, against memory that is a dictionary of pages."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest

from mirrord_syscalls.abi import X86_64
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, decode_sockaddr, encode_sockaddr
from mirrord_syscalls.structs import Mmsghdr, Msghdr
from mirrord_trace.supervisor.delivery.base import (
    PATH_MAX,
    Call,
    MemoryFault,
    PresentAddresses,
    UseAddress,
    UseAddresses,
    UsePath,
    UsePaths,
)
from mirrord_trace.supervisor.delivery.ptrace.lowering import plan, presenter
from mirrord_trace.supervisor.delivery.ptrace.spaces import SLOT_SIZE

SLOT = 0x7000_0000
MESSAGES_AT_ONCE = SLOT_SIZE // (Mmsghdr.SIZE + 128)
ASKED = Inet4(IPv4Address("198.18.0.1"), 80)
RELAY = Inet4(IPv4Address("127.0.0.1"), 4000)
RELAY6 = Inet6(IPv6Address("::1"), 4000)


@attrs.define
class FlatMemory:
    """Memory from 0x1000 on."""

    data: bytearray = attrs.field(factory=lambda: bytearray(1 << 17))
    base: int = 0x1000

    def read(self, address: int, length: int) -> bytes:
        begin = address - self.base
        if begin < 0 or begin + length > len(self.data):
            raise MemoryFault(hex(address))
        return bytes(self.data[begin : begin + length])

    def write(self, address: int, data: bytes) -> None:
        self.read(address, len(data))
        self.data[address - self.base : address - self.base + len(data)] = data

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        return self.read(address, limit).partition(b"\0")[0]


def call(name: str, *arguments: int, memory: FlatMemory | None = None) -> Call:
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    return Call(1, name, padded, memory or FlatMemory(), X86_64)


@pytest.mark.parametrize(
    ("name", "index"), [("open", 0), ("openat", 1), ("newfstatat", 1), ("readlink", 0), ("statx", 1), ("access", 0)]
)
def test_path_goes_where_the_call_has_its_path(name: str, index: int) -> None:
    change = plan(call(name, 1, 2, 3, 4), UsePath(b"/stand/in"), SLOT)
    assert change.slot_data == b"/stand/in\0"
    assert change.arguments == ((index, SLOT),)
    assert change.at_exit(-2) == -2


@pytest.mark.parametrize(("name", "indices"), [("rename", (0, 1)), ("renameat2", (1, 3)), ("linkat", (1, 3))])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 4095), (4095, 1), (4095, 4095), (4096, 5000)])
def test_paths_go_where_the_call_has_its_paths(name: str, indices: tuple[int, int], lengths: tuple[int, int]) -> None:
    paths = tuple(letter * length for letter, length in zip((b"o", b"n"), lengths, strict=True))
    change = plan(call(name, 1, 2, 3, 4), UsePaths(paths), SLOT)
    assert tuple(index for index, _ in change.arguments) == indices
    assert len(change.slot_data) <= SLOT_SIZE
    for (_, place), path in zip(change.arguments, paths, strict=True):
        seen = change.slot_data[place - SLOT :][: len(path) + 1]
        if len(path) < PATH_MAX:
            assert seen == path + b"\0"
        else:  # the kernel looks no further: ENAMETOOLONG
            assert b"\0" not in seen[:PATH_MAX]
    assert change.at_exit(-2) == -2


@pytest.mark.parametrize(("name", "index"), [("connect", 1), ("sendto", 4)])
@pytest.mark.parametrize("address", [RELAY, RELAY6, Unix(b"\0abstract"), Unix(b"/a/path")])
def test_address_goes_where_the_call_has_its_address(name: str, index: int, address: SocketAddress) -> None:
    results: list[int] = []

    def done(result: int) -> int:
        results.append(result)
        return -5

    change = plan(call(name, 3, 0, 16, 0, 0, 16), UseAddress(address, done), SLOT)
    assert decode_sockaddr(change.slot_data) == address
    assert change.arguments == ((index, SLOT), (index + 1, len(change.slot_data)))
    assert (change.at_exit(-111), results) == (-5, [-111])


def test_message_keeps_all_but_its_address() -> None:
    memory = FlatMemory()
    before = Msghdr(0x2000, 16, 0x3000, 2, 0x4000, 24, 7)
    memory.write(0x1100, before.encode())
    change = plan(call("sendmsg", 3, 0x1100, 0, memory=memory), UseAddress(RELAY6), SLOT)
    after = Msghdr.decode(change.slot_data)
    assert after == attrs.evolve(before, name=SLOT + Msghdr.SIZE, name_length=28)
    assert decode_sockaddr(change.slot_data[Msghdr.SIZE :]) == RELAY6
    assert change.arguments == ((1, SLOT),)
    assert memory.read(0x1100, Msghdr.SIZE) == before.encode()


@pytest.mark.parametrize("count", [1, 3, MESSAGES_AT_ONCE, MESSAGES_AT_ONCE + 1, 1024])
def test_messages_fit_a_slot_and_report_their_lengths(count: int) -> None:
    memory = FlatMemory()
    array = 0x1100
    for index in range(count):
        header = Mmsghdr(Msghdr(0x2000 + index, 16, 0x3000, 1, 0, 0, 0), 0)
        memory.write(array + index * Mmsghdr.SIZE, header.encode())
    addresses = tuple(RELAY6 if index % 2 else None for index in range(count))
    change = plan(call("sendmmsg", 3, array, count, 0, memory=memory), UseAddresses(addresses), SLOT)
    made = min(count, MESSAGES_AT_ONCE)
    assert len(change.slot_data) <= SLOT_SIZE
    assert change.arguments == ((1, SLOT), (2, made))
    for index in range(made):
        header_made = Mmsghdr.decode(change.slot_data, index * Mmsghdr.SIZE).header
        if index % 2:
            place = header_made.name - SLOT
            assert decode_sockaddr(change.slot_data[place : place + header_made.name_length]) == RELAY6
        else:
            assert header_made.name == 0x2000 + index


def test_fault_in_the_arguments_is_a_fault() -> None:
    with pytest.raises(MemoryFault):
        plan(call("sendmsg", 3, 8), UseAddress(RELAY), SLOT)
    with pytest.raises(MemoryFault):
        plan(call("sendmmsg", 3, 8, 1), UseAddresses((RELAY,)), SLOT)
    with pytest.raises(MemoryFault):
        presenter(call("recvmsg", 3, 8), PresentAddresses(lambda address: address))
    with pytest.raises(MemoryFault):
        presenter(call("getpeername", 3, 0x2000, 8), PresentAddresses(lambda address: address))


@pytest.mark.parametrize(("name", "index"), [("getpeername", 1), ("getsockname", 1), ("recvfrom", 4), ("accept4", 1)])
@pytest.mark.parametrize("capacity", [16, 28, 128])
def test_address_that_a_call_hands_out_is_translated(name: str, index: int, capacity: int) -> None:
    memory = FlatMemory()
    place, length_place = 0x2000, 0x3000
    memory.write(length_place, struct.pack("=I", capacity))
    arguments = [3, 0, 0, 0, 0, 0]
    arguments[index : index + 2] = place, length_place
    shown = Inet6(IPv6Address("fd00::1"), 99)
    at_exit = presenter(
        call(name, *arguments, memory=memory), PresentAddresses(lambda seen: shown if seen == RELAY else seen)
    )
    raw = encode_sockaddr(RELAY)
    memory.write(place, raw)
    memory.write(length_place, struct.pack("=I", len(raw)))
    guard = memory.read(place + capacity, 64)
    assert at_exit(5) == 5
    assert memory.read(place, min(28, capacity)) == encode_sockaddr(shown)[:capacity]
    assert struct.unpack("=I", memory.read(length_place, 4)) == (28,)
    assert memory.read(place + capacity, 64) == guard


def test_control_messages_take_the_place_of_the_calls_own() -> None:
    memory = FlatMemory()
    memory.write(0x1100, Msghdr(0x2000, 16, 0x3000, 1, 0x4000, 24, 0).encode())
    control = bytes(range(40))
    change = plan(call("sendmsg", 3, 0x1100, 0, memory=memory), UseAddress(RELAY, control=control), SLOT)
    header = Msghdr.decode(change.slot_data)
    assert header.control % 8 == 0
    assert change.slot_data[header.control - SLOT :][: header.control_length] == control
    assert decode_sockaddr(change.slot_data[header.name - SLOT :][: header.name_length]) == RELAY
    change = plan(call("sendmsg", 3, 0x1100, 0, memory=memory), UseAddress(RELAY, control=b""), SLOT)
    header = Msghdr.decode(change.slot_data)
    assert (header.control, header.control_length) == (0, 0)


@pytest.mark.parametrize("result", [-1, -11])
def test_nothing_is_translated_when_the_call_failed(result: int) -> None:
    memory = FlatMemory()
    memory.write(0x3000, struct.pack("=I", 16))
    at_exit = presenter(call("getpeername", 3, 0x2000, 0x3000, memory=memory), PresentAddresses(lambda _: ASKED))
    before = bytes(memory.data)
    assert at_exit(result) == result
    assert bytes(memory.data) == before


def test_call_that_asks_for_no_address_is_left_alone() -> None:
    at_exit = presenter(call("recvfrom", 3, 0x2000, 10, 0, 0, 0), PresentAddresses(lambda _: ASKED))
    assert at_exit(4) == 4


def test_each_message_of_recvmmsg_is_translated() -> None:
    memory = FlatMemory()
    array = 0x1100
    for index in range(3):
        header = Msghdr(0x4000 + index * 128 if index != 1 else 0, 128 if index != 1 else 0, 0x3000, 1, 0, 0, 0)
        memory.write(array + index * Mmsghdr.SIZE, Mmsghdr(header, 0).encode())
    at_exit = presenter(call("recvmmsg", 3, array, 3, 0, 0, memory=memory), PresentAddresses(lambda _: ASKED))
    raw = encode_sockaddr(RELAY)
    for index in (0, 2):
        memory.write(0x4000 + index * 128, raw)
        memory.write(array + index * Mmsghdr.SIZE + 8, struct.pack("=I", len(raw)))
    assert at_exit(2) == 2
    assert decode_sockaddr(memory.read(0x4000, len(raw))) == ASKED
    assert decode_sockaddr(memory.read(0x4000 + 2 * 128, len(raw))) == RELAY
