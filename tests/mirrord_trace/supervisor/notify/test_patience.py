"""Memory that comes from a file which this process serves: whoever touches it lets Trio's thread serve meanwhile."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Address

import pytest
import trio

from mirrord_syscalls.sockaddr import Inet4
from mirrord_syscalls.structs import Iovec, Mmsghdr, Msghdr
from mirrord_trace.relay.listener import listen_for
from mirrord_trace.supervisor.delivery.base import MemoryFault, PresentAddresses, UseAddress, UseAddresses
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import touching_task
from mirrord_trace.supervisor.delivery.notify.memory import MemoryAccess, TaskMemory
from mirrord_trace.supervisor.delivery.notify.replies import Result
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.notify.late_pages import PAGE, LatePages, late_pages
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, lower, settled

CONTENT = b"content of a page that came late"
AS_IT_IS = PresentAddresses(lambda address: address)
LONG_TIME = struct.pack("=qq", 1000, 0)


@pytest.fixture
def patient() -> FakeTask:
    return FakeTask(access=MemoryAccess(patient=True))


@pytest.fixture
def pages() -> Iterator[LatePages]:
    with late_pages(4, CONTENT) as pages:
        yield pages


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@in_trio
async def test_memory_is_read_and_written_while_the_page_is_served(pages: LatePages) -> None:
    memory = TaskMemory(os.getpid(), MemoryAccess(patient=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pages.serve)
        assert await trio.to_thread.run_sync(memory.read, pages.address, len(CONTENT)) == CONTENT
        assert await trio.to_thread.run_sync(memory.read_string, pages.address + PAGE) == CONTENT
        await trio.to_thread.run_sync(memory.write, pages.address + 2 * PAGE, b"written")
        assert memory.read(pages.address + 2 * PAGE, 14) == b"written" + CONTENT[7:14]
        with pytest.raises(MemoryFault):
            memory.read(NOWHERE, 1)
        nursery.cancel_scope.cancel()
    assert pages.served == 3


@in_trio
async def test_patience_may_begin_at_any_time(pages: LatePages) -> None:
    access = MemoryAccess()
    memory = TaskMemory(os.getpid(), access)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pages.serve)
        assert await trio.to_thread.run_sync(TaskMemory(os.getpid(), MemoryAccess(patient=True)).read, pages.address, 1)
        assert memory.read(pages.address, 7) == b"content"
        access.patient = True
        assert await trio.to_thread.run_sync(memory.read, pages.address + PAGE, 7) == b"content"
        nursery.cancel_scope.cancel()


@in_trio
async def test_datagram_that_is_waited_for(patient: FakeTask, pages: LatePages) -> None:
    with udp_socket() as sock, udp_socket() as peer:
        call = patient.call("recvfrom", sock, pages.address, 100, 0, 0, 0)
        waiting = lower(call, AS_IT_IS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.serve)
            peer.sendto(b"data", sock.getsockname())
            assert await settled(waiting) == Result(4)
            nursery.cancel_scope.cancel()
    assert patient.read(pages.address, 8) == b"data" + CONTENT[4:8]


@in_trio
async def test_messages_and_the_time_that_is_left(patient: FakeTask, pages: LatePages) -> None:
    """What is left is handed out at the end, of a call that has waited."""
    with udp_socket() as sock, udp_socket() as peer:
        iovec = patient.buffer(Iovec(pages.address, 100).encode())
        header = patient.buffer(Mmsghdr(Msghdr(0, 0, iovec, 1, 0, 0, 0), 0).encode() * 2)
        timeout = patient.buffer(LONG_TIME)
        waiting = lower(patient.call("recvmmsg", sock, header, 2, 0, timeout), AS_IT_IS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.serve)
            for data in (b"one", b"two"):
                peer.sendto(data, sock.getsockname())
            assert await settled(waiting) == Result(2)
            nursery.cancel_scope.cancel()
    assert patient.read(pages.address, 5) == b"two" + CONTENT[3:5]
    assert struct.unpack("=qq", patient.read(timeout, 16))[0] in (999, 1000)


@in_trio
async def test_what_is_sent_later(patient: FakeTask, pages: LatePages) -> None:
    """A send that connects, of more than is taken from the task's memory at once."""
    listener = listen_for(Inet4(IPv4Address("198.18.0.1"), 80), socket.AF_INET)
    beginning = patient.buffer(bytes(1 << 18))
    segments = patient.buffer(Iovec(beginning, 1 << 18).encode() + Iovec(pages.address, 2 * PAGE).encode())
    header = patient.buffer(Msghdr(NOWHERE, 16, segments, 2, 0, 0, 0).encode())
    got: list[bytes] = []

    async def receive() -> None:
        connection, _ = await trio.socket.from_stdlib_socket(listener.socket).accept()
        with connection:
            while part := await connection.recv(1 << 16):
                got.append(part)
        nursery.cancel_scope.cancel()

    with closing(listener), socket.socket() as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.serve)
            nursery.start_soon(receive)
            call = patient.call("sendmsg", sock, header, socket.MSG_FASTOPEN)
            assert await settled(lower(call, UseAddress(listener.address))) == Result((1 << 18) + 2 * PAGE)
            sock.close()
    assert b"".join(got) == bytes(1 << 18) + CONTENT.ljust(PAGE, b"\0") * 2


@in_trio
async def test_messages_that_are_sent_from_a_thread(patient: FakeTask, pages: LatePages) -> None:
    """As a delivery does it when a handler's coroutine has decided."""
    with udp_socket() as sock, udp_socket() as peer:
        address = Inet4(IPv4Address("127.0.0.1"), peer.getsockname()[1])
        iovec = patient.buffer(Iovec(pages.address, len(CONTENT)).encode())
        header = patient.buffer(Mmsghdr(Msghdr(0, 0, iovec, 1, 0, 0, 0), 0).encode())
        call = patient.call("sendmmsg", sock, header, 1, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.serve)
            reply = await trio.to_thread.run_sync(lower, call, UseAddresses((address,)))
            assert await settled(reply) == Result(1)
            nursery.cancel_scope.cancel()
        assert peer.recv(100) == CONTENT


@in_trio
async def test_what_is_done_in_a_thread_may_give_a_coroutine(patient: FakeTask) -> None:
    """A call that was held, and then is made where it must wait again."""

    async def later() -> str:
        return "later"

    with udp_socket() as sock:
        call = patient.call("connect", sock)
    for access in (MemoryAccess(patient=False), MemoryAccess(patient=True)):
        call.access = access
        assert await (await touching_task(call, later)) == "later"
