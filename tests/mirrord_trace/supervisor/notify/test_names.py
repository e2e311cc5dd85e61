"""getsockname and getpeername as the kernel answers them, but for the address."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from mirrord_syscalls.sockaddr import Inet4, Inet6, OtherFamily, SocketAddress, encode_sockaddr
from mirrord_trace.supervisor.delivery.base import MemoryFault, PresentAddresses
from mirrord_trace.supervisor.delivery.notify.replies import Result
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, int_of, lower

POD = Inet4(IPv4Address("198.18.0.1"), 80)


@pytest.fixture
def datagrams(task: FakeTask) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def raw_length(length: int) -> bytes:
    return struct.pack("=i", length)


@pytest.mark.parametrize("room", [0, 1, 16, 28, 128, 1000])
@pytest.mark.parametrize("seen", [POD, Inet6(IPv6Address("fd00::1"), 443)])
def test_name_fills_the_room_there_is_and_says_its_length(
    task: FakeTask, datagrams: socket.socket, room: int, seen: SocketAddress
) -> None:
    place, length = task.buffer(room), task.buffer(raw_length(room))
    call = task.call("getsockname", datagrams, place, length)
    assert lower(call, PresentAddresses(lambda _: seen)) == Result(0)
    raw = encode_sockaddr(seen)
    assert task.read(place, room + 5) == raw[:room].ljust(room, b"\0") + b"GUARD"
    assert task.read(length, 4 + 5) == raw_length(len(raw)) + b"GUARD"
    assert task.checks


def test_translation_gets_the_kernels_name(task: FakeTask, datagrams: socket.socket) -> None:
    datagrams.connect(("127.0.0.1", 9))
    place, length = task.buffer(16), task.buffer(raw_length(16))
    asked: list[SocketAddress] = []

    def translate(address: SocketAddress) -> SocketAddress:
        asked.append(address)
        return address

    assert lower(task.call("getpeername", datagrams, place, length), PresentAddresses(translate)) == Result(0)
    assert asked == [Inet4(IPv4Address("127.0.0.1"), 9)]
    assert task.read(place, 16) == encode_sockaddr(asked[0])


def test_name_of_a_family_that_nobody_knows_stays(task: FakeTask) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        place, length = task.buffer(64), task.buffer(raw_length(64))
        call = task.call("getsockname", netlink, place, length)
        assert lower(call, PresentAddresses(lambda address: address)) == Result(0)
    assert int_of(task.read(length, 4)) == 12
    raw = task.read(place, 12)
    assert OtherFamily(socket.AF_NETLINK, raw).raw[:2] == struct.pack("=H", socket.AF_NETLINK)


def test_error_of_the_kernel_is_the_answer(task: FakeTask, datagrams: socket.socket) -> None:
    call = task.call("getpeername", datagrams, NOWHERE, NOWHERE)
    assert lower(call, PresentAddresses(lambda _: POD)) == Result(-errno.ENOTCONN)
    with open("/dev/null", "rb") as no_socket:
        call = task.call("getpeername", datagrams, NOWHERE, NOWHERE)
        call.arguments = (no_socket.fileno(), *call.arguments[1:])
        assert lower(call, PresentAddresses(lambda _: POD)) == Result(-errno.ENOTSOCK)


def test_negative_length_is_invalid(task: FakeTask, datagrams: socket.socket) -> None:
    call = task.call("getsockname", datagrams, task.buffer(16), task.buffer(raw_length(-1)))
    assert lower(call, PresentAddresses(lambda _: POD)) == Result(-errno.EINVAL)


def test_fault_is_a_fault(task: FakeTask, datagrams: socket.socket) -> None:
    show = PresentAddresses(lambda _: POD)
    with pytest.raises(MemoryFault):
        lower(task.call("getsockname", datagrams, task.buffer(16), NOWHERE), show)
    with pytest.raises(MemoryFault):
        lower(task.call("getsockname", datagrams, NOWHERE, task.buffer(raw_length(16))), show)
    no_room = task.buffer(raw_length(0))
    assert lower(task.call("getsockname", datagrams, NOWHERE, no_room), show) == Result(0)


def test_closed_descriptor_is_an_error(task: FakeTask, datagrams: socket.socket) -> None:
    call = task.call("getsockname", datagrams, NOWHERE, NOWHERE)
    call.arguments = (1 << 20, *call.arguments[1:])
    with pytest.raises(OSError, match="Bad file descriptor"):
        lower(call, PresentAddresses(lambda _: POD))
