"""Datagrams sent in a task's stead: what arrives, what the call says, and what a fault leaves undone."""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
from collections.abc import Coroutine, Iterator, Sequence
from ipaddress import IPv4Address

import attrs
import pytest
import trio
import trio.testing

from mirrord_syscalls.sockaddr import Inet4, encode_sockaddr
from mirrord_syscalls.structs import ControlMessage, Iovec, Mmsghdr, Msghdr, encode_control
from mirrord_trace.supervisor.delivery.base import TaskGone, UseAddress, UseAddresses
from mirrord_trace.supervisor.delivery.notify.lowering import kernel
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, Result
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, int_of, lower, settled

POD = encode_sockaddr(Inet4(IPv4Address("198.18.0.1"), 53))
MSG_MORE = socket.MSG_MORE
IOV_MAXIMUM = 1024


@attrs.define
class Pair:
    """A UDP socket of the task, and one that stands for a relay."""

    sender: socket.socket
    relay: socket.socket

    @property
    def address(self) -> Inet4:
        host, port = self.relay.getsockname()
        return Inet4(IPv4Address(host), port)

    def arrived(self) -> bytes:
        return self.relay.recv(1 << 16, socket.MSG_DONTWAIT)

    def nothing_arrived(self) -> bool:
        try:
            self.arrived()
        except BlockingIOError:
            return True
        return False


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture
def pair(task: FakeTask) -> Iterator[Pair]:
    with udp() as sender, udp() as relay:
        relay.bind(("127.0.0.1", 0))
        sender.bind(("127.0.0.1", 0))
        yield Pair(sender, relay)


def header(task: FakeTask, parts: Sequence[bytes], control: bytes = b"", name: bytes = POD) -> Msghdr:
    vectors = b"".join(Iovec(task.buffer(part), len(part)).encode() for part in parts)
    return Msghdr(
        task.buffer(name) if name else 0,
        len(name),
        task.buffer(vectors),
        len(parts),
        task.buffer(control) if control else 0,
        len(control),
        0,
    )


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 65507])
def test_datagram_goes_where_the_verdict_says(task: FakeTask, pair: Pair, data: bytes) -> None:
    told: list[int] = []

    def done(result: int) -> int:
        told.append(result)
        return result + 1

    place = task.buffer(data) if data else 0
    call = task.call("sendto", pair.sender, place, len(data), 0, NOWHERE, 16)
    assert lower(call, UseAddress(pair.address, done)) == Result(len(data) + 1)
    assert told == [len(data)]
    assert task.checks
    assert pair.arrived() == data
    assert pair.nothing_arrived()


@pytest.mark.parametrize("length", [65508, 65536, 1 << 20, 1 << 31, (1 << 63) + 7, (1 << 64) - 1])
def test_datagram_that_is_too_long_is_not_read(task: FakeTask, pair: Pair, length: int) -> None:
    place = task.buffer(65536) if length <= 65536 else NOWHERE
    call = task.call("sendto", pair.sender, place, length, 0, NOWHERE, 16)
    assert lower(call, UseAddress(pair.address)) == Result(-errno.EMSGSIZE)
    assert pair.nothing_arrived()


def test_flags_are_the_calls_own(task: FakeTask, pair: Pair) -> None:
    one, two = (task.call("sendto", pair.sender, task.buffer(b"ab"), 2, flags, 0, 0) for flags in (MSG_MORE, 0))
    assert lower(one, UseAddress(pair.address)) == Result(2)
    assert pair.nothing_arrived()
    assert lower(two, UseAddress(pair.address)) == Result(2)
    assert pair.arrived() == b"abab"
    wrong = task.call("sendto", pair.sender, task.buffer(b"ab"), 2, socket.MSG_OOB, 0, 0)
    assert lower(wrong, UseAddress(pair.address)) == Result(-errno.EOPNOTSUPP)


@pytest.mark.parametrize("parts", [[], [b""], [b"one"], [b"one", b"", b"two"], [b"x"] * IOV_MAXIMUM])
def test_message_is_gathered(task: FakeTask, pair: Pair, parts: list[bytes]) -> None:
    place = task.buffer(header(task, parts).encode())
    assert lower(task.call("sendmsg", pair.sender, place), UseAddress(pair.address)) == Result(len(b"".join(parts)))
    assert pair.arrived() == b"".join(parts)


def pktinfo(host: str) -> bytes:
    packed = IPv4Address(host).packed
    return encode_control([ControlMessage(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, packed, packed))])


def test_control_messages_are_the_calls_own_or_the_verdicts(task: FakeTask, pair: Pair) -> None:
    with udp() as sender:
        for own, replaced, source in [
            (pktinfo("127.0.0.3"), None, "127.0.0.3"),
            (pktinfo("127.0.0.3"), pktinfo("127.0.0.4"), "127.0.0.4"),
            (pktinfo("198.18.0.1"), b"", "127.0.0.1"),
        ]:
            place = task.buffer(header(task, [b"data"], own).encode())
            verdict = UseAddress(pair.address, control=replaced)
            assert lower(task.call("sendmsg", sender, place), verdict) == Result(4)
            assert pair.relay.recvfrom(9)[1][0] == source


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"iov": NOWHERE}, errno.EFAULT),
        ({"iov_count": IOV_MAXIMUM + 1}, errno.EMSGSIZE),
        ({"iov_count": 1 << 63}, errno.EMSGSIZE),
        ({"name_length": 0xFFFF_FFFF}, errno.EINVAL),
        ({"control": NOWHERE, "control_length": 16}, errno.EFAULT),
        ({"control_length": 1 << 20}, errno.ENOBUFS),
    ],
)
def test_message_that_cannot_be_read_is_told(task: FakeTask, pair: Pair, change: dict[str, int], number: int) -> None:
    told: list[int] = []

    def done(result: int) -> int:
        told.append(result)
        return result

    place = task.buffer(attrs.evolve(header(task, [b"data"], bytes(16)), **change).encode())
    verdict = UseAddress(pair.address, done)
    assert lower(task.call("sendmsg", pair.sender, place), verdict) == Result(-number)
    assert told == [-number]
    assert pair.nothing_arrived()


@pytest.mark.parametrize(
    ("vectors", "number"),
    [
        ([Iovec(NOWHERE, 1)], errno.EFAULT),
        ([Iovec(NOWHERE, 1 << 63)], errno.EINVAL),
        ([Iovec(NOWHERE, (1 << 63) - 1), Iovec(NOWHERE, (1 << 63) - 1)], errno.EMSGSIZE),
    ],
)
def test_segments_that_cannot_be_read_are_told(task: FakeTask, pair: Pair, vectors: list[Iovec], number: int) -> None:
    place = task.buffer(b"".join(vector.encode() for vector in vectors))
    message = task.buffer(Msghdr(0, 0, place, len(vectors), 0, 0, 0).encode())
    assert lower(task.call("sendmsg", pair.sender, message), UseAddress(pair.address)) == Result(-number)
    assert pair.nothing_arrived()


def test_message_without_a_header_is_told(task: FakeTask, pair: Pair) -> None:
    assert lower(task.call("sendmsg", pair.sender, NOWHERE), UseAddress(pair.address)) == Result(-errno.EFAULT)


def test_gone_task_sends_nothing(task: FakeTask, pair: Pair) -> None:
    def gone() -> None:
        raise TaskGone("killed")

    task.on_check = gone
    call = task.call("sendto", pair.sender, task.buffer(b"data"), 4, 0, 0, 0)
    with pytest.raises(TaskGone):
        lower(call, UseAddress(pair.address))
    assert pair.nothing_arrived()


def array(task: FakeTask, headers: Sequence[Msghdr]) -> int:
    return task.buffer(b"".join(Mmsghdr(one, 0x5555).encode() for one in headers))


def lengths(task: FakeTask, place: int, count: int) -> list[int]:
    return [int_of(task.read(place + index * Mmsghdr.SIZE + Mmsghdr.LENGTH_OFFSET, 4)) for index in range(count)]


def test_messages_go_where_the_verdict_says_or_where_they_say(task: FakeTask, pair: Pair) -> None:
    with udp() as other:
        other.bind(("127.0.0.1", 0))
        theirs = encode_sockaddr(Inet4(IPv4Address("127.0.0.1"), other.getsockname()[1]))
        headers = [header(task, [b"one"]), header(task, [b"to ", b"other"], name=theirs), header(task, [])]
        place = array(task, headers)
        call = task.call("sendmmsg", pair.sender, place, 3, 0)
        assert lower(call, UseAddresses((pair.address, None, pair.address))) == Result(3)
        assert [pair.arrived(), other.recv(99), pair.arrived()] == [b"one", b"to other", b""]
        assert lengths(task, place, 3) == [3, 8, 0]


def test_fewer_addresses_than_messages_send_so_many(task: FakeTask, pair: Pair) -> None:
    place = array(task, [header(task, [b"a"]) for _ in range(3)])
    verdict = UseAddresses((pair.address, pair.address), {1: pktinfo("127.0.0.1")})
    assert lower(task.call("sendmmsg", pair.sender, place, 3, 0), verdict) == Result(2)
    assert lengths(task, place, 3) == [1, 1, 0x5555]
    assert lower(task.call("sendmmsg", pair.sender, place, 1, 0), verdict) == Result(1)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_messages_before_one_at_fault_are_sent(task: FakeTask, pair: Pair, bad: int) -> None:
    headers = [header(task, [b"data"]) for _ in range(3)]
    headers[bad] = attrs.evolve(headers[bad], iov=NOWHERE)
    place = array(task, headers)
    call = task.call("sendmmsg", pair.sender, place, 3, 0)
    assert lower(call, UseAddresses((pair.address,) * 3)) == Result(bad or -errno.EFAULT)
    assert lengths(task, place, 3) == [4] * bad + [0x5555] * (3 - bad)
    for _ in range(bad):
        assert pair.arrived() == b"data"
    assert pair.nothing_arrived()


def test_messages_before_an_error_are_sent(task: FakeTask, pair: Pair) -> None:
    nobodys = Inet4(IPv4Address(0), 0)
    place = array(task, [header(task, [b"data"]) for _ in range(3)])
    call = task.call("sendmmsg", pair.sender, place, 3, 0)
    assert lower(call, UseAddresses((pair.address, nobodys, pair.address))) == Result(1)
    assert lower(call, UseAddresses((nobodys, pair.address, pair.address))) == Result(-errno.EINVAL)


def test_messages_that_stay_as_they_are_go_on(task: FakeTask, pair: Pair) -> None:
    call = task.call("sendmmsg", pair.sender, NOWHERE, 2, 0)
    assert lower(call, UseAddresses((None, None))) is CONTINUE
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        call = task.call("sendmmsg", left, NOWHERE, 99, 0)
        assert lower(call, UseAddresses((None, None))) is CONTINUE
    assert pair.nothing_arrived()


@attrs.define
class Narrow:
    """A UDP socket that has no room, as far as `kernel.send_datagram` says, for so many tries."""

    tries: int
    made: int = 0

    def send(self, number: int, data: bytes, flags: int, name: bytes | None, control: bytes) -> int:
        self.made += 1
        return -errno.EAGAIN if self.made <= self.tries else len(data)


@in_trio
async def test_blocking_send_waits_for_room(task: FakeTask, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Narrow(3)
    monkeypatch.setattr(kernel, "send_datagram", narrow.send)
    call = task.call("sendto", pair.sender, task.buffer(b"data"), 4, 0, 0, 0)
    waiting = lower(call, UseAddress(pair.address))
    assert isinstance(waiting, Coroutine)
    assert await waiting == Result(4)
    assert narrow.made == 4


@in_trio
async def test_blocking_sends_wait_in_the_middle(task: FakeTask, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    place = array(task, [header(task, [b"data"]) for _ in range(2)])
    call = task.call("sendmmsg", pair.sender, place, 2, 0)
    monkeypatch.setattr(kernel, "send_datagram", Narrow(1).send)
    assert await settled(lower(call, UseAddresses((pair.address,) * 2))) == Result(2)
    assert lengths(task, place, 2) == [4, 4]


@pytest.mark.parametrize("is_flag", [True, False])
def test_send_that_may_not_wait_does_not(
    task: FakeTask, pair: Pair, monkeypatch: pytest.MonkeyPatch, is_flag: bool
) -> None:
    monkeypatch.setattr(kernel, "send_datagram", Narrow(1).send)
    pair.sender.setblocking(is_flag)
    flags = socket.MSG_DONTWAIT if is_flag else 0
    call = task.call("sendto", pair.sender, task.buffer(b"data"), 4, flags, 0, 0)
    assert lower(call, UseAddress(pair.address)) == Result(-errno.EAGAIN)


def test_wait_for_room_ends_with_a_signal_or_the_timeout(
    task: FakeTask, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 3, 0))
    monkeypatch.setattr(kernel, "send_datagram", Narrow(1 << 30).send)
    call = task.call("sendto", pair.sender, task.buffer(b"data"), 4, 0, 0, 0)
    told: list[int] = []

    def done(result: int) -> int:
        told.append(result)
        return result

    async def wait() -> None:
        begin = trio.current_time()
        assert await settled(lower(call, UseAddress(pair.address, done))) == Result(-errno.EAGAIN)
        assert math.isclose(trio.current_time() - begin, 3, abs_tol=0.02)
        task.signal_is_pending = True
        assert await settled(lower(call, UseAddress(pair.address, done))) == Result(-errno.EINTR)
        assert trio.current_time() - begin < 4

    trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0))
    assert told == [-errno.EAGAIN, -errno.EINTR]
    assert os.get_blocking(pair.sender.fileno())
