"""A send that connects, made in a task's stead."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from ipaddress import IPv4Address
from types import FrameType

import attrs
import pytest
import trio
import trio.testing

from mirrord_syscalls.sockaddr import Inet4
from mirrord_syscalls.structs import Iovec, Msghdr
from mirrord_trace.relay.listener import Listener, listen_for
from mirrord_trace.supervisor.delivery.base import UseAddress
from mirrord_trace.supervisor.delivery.notify.lowering import kernel
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, NotifiedCall, Result
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, lower, settled

FAST_OPEN = socket.MSG_FASTOPEN
LONG = os.urandom(3 << 20)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = listen_for(Inet4(IPv4Address("198.18.0.1"), 80), socket.AF_INET)
    yield listener
    listener.close()


@attrs.define
class Told:
    """What `done` was told."""

    results: list[int] = attrs.field(factory=list)

    def to(self, listener: Listener) -> UseAddress:
        return UseAddress(listener.address, self.done)

    def done(self, result: int) -> int:
        self.results.append(result)
        return result


def sendto(task: FakeTask, sock: socket.socket, data: bytes, flags: int = 0) -> NotifiedCall:
    return task.call("sendto", sock, task.buffer(data), len(data), FAST_OPEN | flags, NOWHERE, 16)


async def received(listener: Listener) -> bytes:
    """All that the one who connects sends."""
    server = trio.socket.from_stdlib_socket(listener.socket)
    connection, _ = await server.accept()
    with connection:
        data = b""
        while part := await connection.recv(1 << 16):
            data += part
        return data


@in_trio
async def test_data_and_connection_in_one_call(task: FakeTask, listener: Listener) -> None:
    for data in (b"", b"hello", LONG):
        told = Told()
        got: list[bytes] = []
        one = listen_for(Inet4(IPv4Address("198.18.0.1"), 80), socket.AF_INET)
        with socket.socket() as sock:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def serve(one: Listener = one, got: list[bytes] = got) -> None:
                    got.append(await received(one))

                reply = await settled(lower(sendto(task, sock, data), told.to(one)))
                assert reply == Result(len(data))
                assert os.get_blocking(sock.fileno())
                sock.close()
        one.close()
        assert told.results == [len(data)]
        assert got == [data]


@pytest.mark.parametrize("is_flag", [True, False])
def test_call_that_may_not_wait_says_that_it_connects(task: FakeTask, listener: Listener, is_flag: bool) -> None:
    told = Told()
    with socket.socket() as sock:
        sock.setblocking(is_flag)
        call = sendto(task, sock, b"hello", socket.MSG_DONTWAIT if is_flag else 0)
        assert lower(call, told.to(listener)) == Result(-errno.EINPROGRESS)
    assert told.results == [-errno.EINPROGRESS]


@in_trio
async def test_refusal_is_the_answer(task: FakeTask, listener: Listener) -> None:
    told = Told()
    listener.close()
    with socket.socket() as sock:
        assert await settled(lower(sendto(task, sock, b"hello"), told.to(listener))) == Result(-errno.ECONNREFUSED)
    assert told.results == [-errno.ECONNREFUSED]


@in_trio
async def test_signal_lets_the_tasks_own_call_go_on(task: FakeTask, listener: Listener) -> None:
    listener.silence()
    told = Told()
    with socket.socket() as sock:
        waiting = lower(sendto(task, sock, b"hello"), told.to(listener))
        assert isinstance(waiting, Coroutine)
        task.signal_is_pending = True
        assert await waiting is CONTINUE
    assert not told.results


@in_trio
async def test_what_was_sent_before_a_fault_counts(task: FakeTask, listener: Listener) -> None:
    told = Told()
    vectors = Iovec(task.buffer(LONG), 1 << 18).encode() + Iovec(NOWHERE, 9).encode()
    place = task.buffer(Msghdr(0, 0, task.buffer(vectors), 2, 0, 0, 0).encode())
    with socket.socket() as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(received, listener)
            reply = await settled(lower(task.call("sendmsg", sock, place, FAST_OPEN), told.to(listener)))
            assert reply == Result(1 << 18)
            sock.close()
    with socket.socket() as sock:
        call = task.call("sendto", sock, NOWHERE, 9, FAST_OPEN, NOWHERE, 16)
        assert lower(call, told.to(listener)) == Result(-errno.EFAULT)
    assert told.results == [1 << 18, -errno.EFAULT]


@pytest.mark.parametrize(("flags", "signals"), [(0, 1), (socket.MSG_NOSIGNAL, 0)])
def test_broken_pipe_is_told_to_the_task(
    task: FakeTask, listener: Listener, monkeypatch: pytest.MonkeyPatch, flags: int, signals: int
) -> None:
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)

    monkeypatch.setattr(kernel, "send_stream", lambda *_: -errno.EPIPE)
    before = signal.signal(signal.SIGPIPE, note)
    try:
        with socket.socket() as sock:
            assert lower(sendto(task, sock, b"x", flags), Told().to(listener)) == Result(-errno.EPIPE)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert caught == [signal.SIGPIPE] * signals
