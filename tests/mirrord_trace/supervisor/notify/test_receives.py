"""Datagrams received in a task's stead: every byte, length and flag is where the kernel would have put it.

Where it says so a test makes the same call natively, on a socket that got the same, and compares.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import socket
import struct
from collections.abc import Coroutine, Iterator, Sequence
from ipaddress import IPv4Address
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from mirrord_syscalls.sockaddr import Inet4, encode_sockaddr
from mirrord_syscalls.structs import Iovec, Mmsghdr, Msghdr
from mirrord_trace.supervisor.delivery.base import MemoryFault, PresentAddresses, TaskGone
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, Reply, Result
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, int_of, lower, settled

POD = Inet4(IPv4Address("198.18.0.1"), 53)
RAW = encode_sockaddr(POD)
SHORT_S = 0.01
MSG_WAITFORONE = 0x10000
IP_PKTINFO, IP_RECVERR = 8, 11
SHOW = PresentAddresses(lambda _: POD)
AS_IT_IS = PresentAddresses(lambda address: address)
libc = ctypes.CDLL(None, use_errno=True)


def raw_int(value: int) -> bytes:
    return struct.pack("=i", value)


@attrs.define
class Pair:
    """A UDP socket of the task, and one that sends to it."""

    receiver: socket.socket
    peer: socket.socket

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.peer.sendto(data, self.receiver.getsockname())

    def is_empty(self) -> bool:
        try:
            self.receiver.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def pair(task: FakeTask) -> Iterator[Pair]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, udp_peer() as peer:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        yield Pair(receiver, peer)


def udp_peer() -> socket.socket:
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    return peer


# recvfrom


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 65507])
@pytest.mark.parametrize("name_room", [0, 7, 16, 128])
def test_datagram_and_its_shown_source(task: FakeTask, pair: Pair, data: bytes, name_room: int) -> None:
    pair.send(data)
    room, name, length = task.buffer(len(data) + 2), task.buffer(name_room), task.buffer(raw_int(name_room))
    call = task.call("recvfrom", pair.receiver, room, len(data) + 2, 0, name, length)
    assert lower(call, SHOW) == Result(len(data))
    assert task.read(room, len(data) + 7) == data + b"\0\0GUARD"
    assert task.read(name, name_room + 5) == RAW[:name_room].ljust(name_room, b"\0") + b"GUARD"
    assert int_of(task.read(length, 4)) == len(RAW)
    assert task.checks


@pytest.mark.parametrize(("flags", "result"), [(0, 3), (socket.MSG_TRUNC, 8), (socket.MSG_PEEK, 3)])
def test_cut_datagram(task: FakeTask, pair: Pair, flags: int, result: int) -> None:
    pair.send(b"truncate")
    room = task.buffer(3)
    call = task.call("recvfrom", pair.receiver, room, 3, flags, task.buffer(16), task.buffer(raw_int(16)))
    assert lower(call, SHOW) == Result(result)
    assert task.read(room, 8) == b"truGUARD"
    assert pair.is_empty() is not bool(flags & socket.MSG_PEEK)


@pytest.mark.parametrize("length", [1 << 20, 1 << 63, (1 << 64) - 1])
def test_room_is_as_long_as_the_task_says(task: FakeTask, pair: Pair, length: int) -> None:
    pair.send(b"data")
    room = task.buffer(4)
    call = task.call("recvfrom", pair.receiver, room, length, 0, task.buffer(16), task.buffer(raw_int(16)))
    assert lower(call, SHOW) == Result(4)
    assert task.read(room, 9) == b"dataGUARD"


def test_name_that_cannot_be_written_loses_the_datagram(task: FakeTask, pair: Pair) -> None:
    pair.send(b"one", b"two", b"three")
    room = task.buffer(9)
    call = task.call("recvfrom", pair.receiver, room, 9, 0, task.buffer(16), task.buffer(raw_int(-1)))
    assert lower(call, SHOW) == Result(-errno.EINVAL)
    assert task.read(room, 3) == b"one"
    with pytest.raises(MemoryFault):
        lower(task.call("recvfrom", pair.receiver, room, 9, 0, task.buffer(16), NOWHERE), SHOW)
    with pytest.raises(MemoryFault):
        lower(task.call("recvfrom", pair.receiver, NOWHERE, 9, 0, task.buffer(16), task.buffer(raw_int(16))), SHOW)
    assert pair.is_empty()


@pytest.mark.parametrize("is_flag", [True, False])
def test_call_that_may_not_wait_does_not(task: FakeTask, pair: Pair, is_flag: bool) -> None:
    pair.receiver.setblocking(is_flag)
    flags = socket.MSG_DONTWAIT if is_flag else 0
    call = task.call("recvfrom", pair.receiver, task.buffer(9), 9, flags, task.buffer(16), task.buffer(raw_int(16)))
    assert lower(call, SHOW) == Result(-errno.EAGAIN)


def test_empty_error_queue_is_not_waited_for(task: FakeTask, pair: Pair) -> None:
    call = task.call("recvfrom", pair.receiver, 0, 0, socket.MSG_ERRQUEUE, task.buffer(16), task.buffer(raw_int(16)))
    assert lower(call, SHOW) == Result(-errno.EAGAIN)


def test_error_of_the_socket_is_the_answer(task: FakeTask, pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(pair.peer.getsockname())
        pair.peer.close()
        sock.send(b"into the void")
        call = task.call("recvfrom", sock, task.buffer(9), 9, 0, task.buffer(16), task.buffer(raw_int(16)))
        assert lower(call, SHOW) == Result(-errno.ECONNREFUSED)


def test_other_sockets_receive_themselves(task: FakeTask) -> None:
    unix, netlink, stream, raw_name = (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        socket.socket(),
        task.buffer(16),
    )
    for sock in (unix, netlink, stream):
        with sock:
            for name in ("recvfrom", "recvmsg", "recvmmsg"):
                assert lower(task.call(name, sock, NOWHERE, 1, 0, raw_name, NOWHERE), SHOW) is CONTINUE


# recvmsg


def header(task: FakeTask, rooms: Sequence[int], name_room: int = 128, control_room: int = 128) -> Msghdr:
    vectors = b"".join(Iovec(task.buffer(room), room).encode() for room in rooms)
    return Msghdr(
        task.buffer(name_room), name_room, task.buffer(vectors), len(rooms), task.buffer(control_room), control_room, 7
    )


@attrs.define
class Seen:
    """All that recvmsg left behind."""

    result: int
    data: list[bytes]
    name: bytes
    control: bytes
    header: tuple[int, int, int]

    @classmethod
    def of(cls, task: FakeTask, result: int, place: int, before: Msghdr) -> Seen:
        after = Msghdr.decode(task.read(place, Msghdr.SIZE))
        unchanged = attrs.evolve(
            after, name_length=before.name_length, control_length=before.control_length, flags=before.flags
        )
        assert unchanged == before
        vectors = [Iovec.decode(task.read(before.iov + 16 * index, 16)) for index in range(before.iov_count)]
        return cls(
            result,
            [task.read(vector.base, vector.length + 5) for vector in vectors],
            task.read(before.name, before.name_length + 5) if before.name else b"",
            task.read(before.control, before.control_length + 5) if before.control else b"",
            (after.name_length, after.control_length, after.flags),
        )


@pytest.mark.parametrize("rooms", [(), (0,), (3,), (3, 0, 2), (2, 100), (1,) * 1024])
@pytest.mark.parametrize(("name_room", "control_room"), [(128, 128), (0, 0), (5, 16), (16, 20), (128, 70000)])
@pytest.mark.parametrize("flags", [0, socket.MSG_TRUNC, socket.MSG_PEEK, socket.MSG_DONTWAIT])
def test_message_is_as_natively(
    task: FakeTask, pair: Pair, rooms: tuple[int, ...], name_room: int, control_room: int, flags: int
) -> None:
    pair.send(b"message")
    if not flags & socket.MSG_PEEK:
        pair.send(b"message")
    seen = []
    for is_native in (True, False):
        before = header(task, rooms, name_room, control_room)
        place = task.buffer(before.encode())
        if is_native:
            result = libc.recvmsg(pair.receiver.fileno(), ctypes.c_void_p(place), flags)
        else:
            reply = lower(task.call("recvmsg", pair.receiver, place, flags), AS_IT_IS)
            assert isinstance(reply, Result)
            result = reply.value
        seen.append(Seen.of(task, result, place, before))
    assert seen[0] == seen[1]
    assert seen[0].result >= 0


def test_message_is_shown_as_the_pod_would_show_it(task: FakeTask, pair: Pair) -> None:
    pair.send(b"data")
    before = header(task, [9])
    place = task.buffer(before.encode())
    verdict = PresentAddresses(lambda _: POD, lambda raw: raw.replace(IPv4Address("127.0.0.1").packed, b"POD!"))
    assert lower(task.call("recvmsg", pair.receiver, place), verdict) == Result(4)
    assert task.read(before.name, 16) == RAW
    assert task.read(before.control, 128).count(b"POD!") == 2


def test_message_without_a_name_gets_none(task: FakeTask, pair: Pair) -> None:
    pair.send(b"data")
    before = attrs.evolve(header(task, [9]), name=0, name_length=77)
    place = task.buffer(before.encode())
    assert lower(task.call("recvmsg", pair.receiver, place), SHOW) == Result(4)
    assert Msghdr.decode(task.read(place, Msghdr.SIZE)).name_length == 77


def test_control_messages_that_cannot_be_written_are_none(task: FakeTask, pair: Pair) -> None:
    pair.send(b"data", b"data")
    results = []
    for is_native in (True, False):
        before = attrs.evolve(header(task, [9]), control=NOWHERE)
        place = task.buffer(before.encode())
        if is_native:
            results.append(libc.recvmsg(pair.receiver.fileno(), ctypes.c_void_p(place), 0))
        else:
            assert lower(task.call("recvmsg", pair.receiver, place), SHOW) == Result(results[0])
        results.append(Msghdr.decode(task.read(place, Msghdr.SIZE)).control_length)
    assert results == [4, 0, 0]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"iov_count": 1025}, errno.EMSGSIZE),
        ({"name_length": 0xFFFF_FFFF}, errno.EINVAL),
    ],
)
def test_header_that_the_kernel_refuses_takes_nothing(
    task: FakeTask, pair: Pair, change: dict[str, int], error: int
) -> None:
    pair.send(b"data")
    place = task.buffer(attrs.evolve(header(task, [9]), **change).encode())
    with pytest.raises(OSError, match=os.strerror(error)):
        lower(task.call("recvmsg", pair.receiver, place), SHOW)
    assert not pair.is_empty()


@pytest.mark.parametrize("change", [{"iov": NOWHERE}, {"name": NOWHERE}])
def test_message_that_faults_is_a_fault(task: FakeTask, pair: Pair, change: dict[str, int]) -> None:
    pair.send(b"data")
    place = task.buffer(attrs.evolve(header(task, [9]), **change).encode())
    with pytest.raises(MemoryFault):
        lower(task.call("recvmsg", pair.receiver, place), SHOW)
    with pytest.raises(MemoryFault):
        lower(task.call("recvmsg", pair.receiver, NOWHERE), SHOW)


def test_gone_task_receives_nothing(task: FakeTask, pair: Pair) -> None:
    def gone() -> None:
        raise TaskGone("killed")

    pair.send(b"data")
    task.on_check = gone
    with pytest.raises(TaskGone):
        lower(task.call("recvmsg", pair.receiver, task.buffer(header(task, [9]).encode())), SHOW)
    assert not pair.is_empty()


def test_error_queue_is_as_natively(task: FakeTask) -> None:
    with udp_peer() as closed, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.connect(closed.getsockname())
        closed.close()
        seen = []
        for is_native in (True, False):
            sock.send(b"into the void")
            before = header(task, [99])
            place = task.buffer(before.encode())
            if is_native:
                result = libc.recvmsg(sock.fileno(), ctypes.c_void_p(place), socket.MSG_ERRQUEUE)
            else:
                reply = lower(task.call("recvmsg", sock, place, socket.MSG_ERRQUEUE), AS_IT_IS)
                assert isinstance(reply, Result)
                result = reply.value
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            seen.append(Seen.of(task, result, place, before))
        assert seen[0] == seen[1]
        assert seen[0].header[2] & socket.MSG_ERRQUEUE


# waiting


def blocking_call(task: FakeTask, pair: Pair) -> tuple[int, Coroutine[Any, Any, Reply]]:
    room = task.buffer(9)
    call = task.call("recvfrom", pair.receiver, room, 9, 0, task.buffer(16), task.buffer(raw_int(16)))
    waiting = lower(call, SHOW)
    assert isinstance(waiting, Coroutine)
    return room, waiting


@in_trio
async def test_blocking_call_waits_for_a_datagram(task: FakeTask, pair: Pair) -> None:
    room, waiting = blocking_call(task, pair)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await waiting == Result(4)

        await trio.testing.wait_all_tasks_blocked()
        pair.send(b"late")
    assert task.read(room, 4) == b"late"


@in_trio
async def test_pending_errors_do_not_end_or_speed_up_the_wait(task: FakeTask) -> None:
    with udp_peer() as closed, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()
        closed.close()
        sock.sendto(b"into the void", nobody)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        call = task.call("recvfrom", sock, task.buffer(9), 9, 0, task.buffer(16), task.buffer(raw_int(16)))
        tries: list[float] = []

        def tried() -> None:
            tries.append(trio.current_time())
            if len(tries) == 10:
                with udp_peer() as peer:
                    peer.sendto(b"data", sock.getsockname())

        waiting = lower(call, SHOW)
        task.on_check = tried
        assert await settled(waiting) == Result(4)
        assert tries[9] - tries[0] > 0.02


@in_trio
async def test_signal_lets_the_tasks_own_call_go_on(task: FakeTask, pair: Pair) -> None:
    _, waiting = blocking_call(task, pair)
    task.signal_is_pending = True
    assert await waiting is CONTINUE


def test_receive_timeout_bounds_the_wait(task: FakeTask, pair: Pair) -> None:
    pair.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 3, 250_000))
    _, waiting = blocking_call(task, pair)

    async def wait() -> None:
        begun = trio.current_time()
        assert await waiting == Result(-errno.EAGAIN)
        assert math.isclose(trio.current_time() - begun, 3.25, abs_tol=0.02)

    trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0))


@in_trio
async def test_cancelled_wait_takes_nothing(task: FakeTask, pair: Pair) -> None:
    _, waiting = blocking_call(task, pair)
    with trio.move_on_after(SHORT_S):
        await waiting
    pair.send(b"data")
    assert not pair.is_empty()


# recvmmsg


@attrs.define
class Batch:
    """An array of headers of messages."""

    task: FakeTask
    headers: list[Msghdr]
    place: int

    @classmethod
    def of(cls, task: FakeTask, count: int, room: int = 9) -> Batch:
        headers = [header(task, [room]) for _ in range(count)]
        return cls(task, headers, task.buffer(b"".join(Mmsghdr(one, 0x5555).encode() for one in headers)))

    def lengths(self) -> list[int]:
        places = range(self.place, self.place + len(self.headers) * Mmsghdr.SIZE, Mmsghdr.SIZE)
        return [int_of(self.task.read(place + Mmsghdr.LENGTH_OFFSET, 4)) for place in places]

    def names(self, count: int) -> list[bytes]:
        return [self.task.read(one.name, 16) for one in self.headers[:count]]


def test_messages_are_received_and_shown(task: FakeTask, pair: Pair) -> None:
    pair.receiver.setblocking(False)
    pair.send(b"one", b"", b"three")
    batch = Batch.of(task, 5)
    call = task.call("recvmmsg", pair.receiver, batch.place, 5, 0, 0)
    assert lower(call, SHOW) == Result(3)
    assert batch.lengths() == [3, 0, 5, 0x5555, 0x5555]
    assert batch.names(3) == [RAW] * 3
    assert lower(call, SHOW) == Result(-errno.EAGAIN)


def test_no_messages_are_the_kernels_to_receive(task: FakeTask, pair: Pair) -> None:
    assert lower(task.call("recvmmsg", pair.receiver, NOWHERE, 0, 0, 0), SHOW) is CONTINUE


def test_wait_for_one_returns_with_one(task: FakeTask, pair: Pair) -> None:
    pair.send(b"one")
    batch = Batch.of(task, 2)
    assert lower(task.call("recvmmsg", pair.receiver, batch.place, 2, MSG_WAITFORONE, 0), SHOW) == Result(1)


def test_messages_before_a_fault_are_received(task: FakeTask, pair: Pair) -> None:
    pair.send(b"one", b"two")
    batch = Batch.of(task, 2)
    call = task.call("recvmmsg", pair.receiver, batch.place, 2, 0, 0)
    ctypes.memmove(batch.place + Mmsghdr.SIZE + 16, struct.pack("=Q", NOWHERE), 8)
    assert lower(call, SHOW) == Result(1)
    assert lower(task.call("recvmmsg", pair.receiver, NOWHERE, 2, 0, 0), SHOW) == Result(-errno.EFAULT)


@in_trio
async def test_blocking_messages_are_waited_for_one_by_one(task: FakeTask, pair: Pair) -> None:
    pair.send(b"one")
    batch = Batch.of(task, 3)
    waiting = lower(task.call("recvmmsg", pair.receiver, batch.place, 3, 0, 0), SHOW)
    assert isinstance(waiting, Coroutine)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await waiting == Result(3)

        for data in (b"2", b"three"):
            await trio.testing.wait_all_tasks_blocked()
            pair.send(data)
    assert batch.lengths() == [3, 1, 5]


@pytest.mark.parametrize("ends_with", ["signal", "timeout"])
def test_what_is_there_counts_when_the_wait_ends(task: FakeTask, pair: Pair, ends_with: str) -> None:
    pair.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 3, 0))
    pair.send(b"one")
    batch = Batch.of(task, 3)
    task.signal_is_pending = ends_with == "signal"

    async def wait() -> None:
        call = task.call("recvmmsg", pair.receiver, batch.place, 3, 0, 0)
        assert await settled(lower(call, SHOW)) == Result(1)
        if ends_with == "signal":
            assert await settled(lower(call, SHOW)) is CONTINUE
        else:
            assert await settled(lower(call, SHOW)) == Result(-errno.EAGAIN)

    trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0))


def test_timeout_is_looked_at_after_a_message(task: FakeTask, pair: Pair) -> None:
    pair.send(b"one", b"two", b"three")
    batch = Batch.of(task, 3)
    no_time = task.buffer(struct.pack("=qq", 0, 0))
    assert lower(task.call("recvmmsg", pair.receiver, batch.place, 3, 0, no_time), SHOW) == Result(1)
    an_hour = task.buffer(struct.pack("=qq", 3600, 0))
    assert lower(task.call("recvmmsg", pair.receiver, batch.place, 2, 0, an_hour), SHOW) == Result(2)
    seconds, nanoseconds = struct.unpack("=qq", task.read(an_hour, 16))
    assert 3500 < seconds < 3600
    assert 0 <= nanoseconds < 1_000_000_000


@pytest.mark.parametrize("wrong", [(-1, 0), (0, -1), (0, 1_000_000_000)])
def test_wrong_timeout_is_invalid(task: FakeTask, pair: Pair, wrong: tuple[int, int]) -> None:
    pair.send(b"one")
    batch = Batch.of(task, 1)
    call = task.call("recvmmsg", pair.receiver, batch.place, 1, 0, task.buffer(struct.pack("=qq", *wrong)))
    with pytest.raises(OSError, match="Invalid argument"):
        lower(call, SHOW)
    assert not pair.is_empty()
