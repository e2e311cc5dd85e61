"""Connections accepted in a task's stead, as the kernel accepts them, but for the address."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from mirrord_syscalls.sockaddr import Inet4, SocketAddress, encode_sockaddr
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.supervisor.delivery.base import MemoryFault, PresentAddresses, TaskGone
from mirrord_trace.supervisor.delivery.notify.lowering import accepts
from mirrord_trace.supervisor.delivery.notify.replies import Deferred, Descriptor, Reply, Result
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, lower

CLIENT = Inet4(IPv4Address("198.18.0.7"), 40007)
RAW = encode_sockaddr(CLIENT)
SHOW = PresentAddresses(lambda _: CLIENT)


@pytest.fixture
def listener(task: FakeTask) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def client(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(listener.getsockname()) as made:
        yield made


def raw_length(length: int) -> bytes:
    return struct.pack("=i", length)


def made(reply: Any) -> Reply:
    """The reply, made here where a worker would make it."""
    assert isinstance(reply, Deferred | Descriptor | Result)
    return reply.make() if isinstance(reply, Deferred) else reply


def taken(reply: Reply) -> socket.socket:
    assert isinstance(reply, Descriptor)
    return socket.socket(fileno=reply.number)


@pytest.mark.parametrize("room", [0, 4, 16, 128])
@pytest.mark.parametrize("call", ["accept", "accept4"])
def test_the_client_is_shown_in_the_room_there_is(
    task: FakeTask, listener: socket.socket, client: socket.socket, call: str, room: int
) -> None:
    place, length = task.buffer(room), task.buffer(raw_length(room))
    with taken(made(lower(task.call(call, listener, place, length), SHOW))) as accepted:
        assert accepted.getpeername() == client.getsockname()
        assert not os.get_inheritable(accepted.fileno())  # here; in the task it is as it asked
    assert task.read(place, room + 5) == RAW[:room].ljust(room, b"\0") + b"GUARD"
    assert task.read(length, 4 + 5) == raw_length(len(RAW)) + b"GUARD"


@pytest.mark.parametrize(
    ("flags", "blocking", "close_on_exec"),
    [(0, True, False), (socket.SOCK_NONBLOCK, False, False), (socket.SOCK_CLOEXEC, True, True)],
)
def test_flags_are_those_of_the_new_socket(
    task: FakeTask, listener: socket.socket, client: socket.socket, flags: int, blocking: bool, close_on_exec: bool
) -> None:
    place, length = task.buffer(16), task.buffer(raw_length(16))
    reply = made(lower(task.call("accept4", listener, place, length, flags), SHOW))
    with taken(reply) as accepted:
        assert os.get_blocking(accepted.fileno()) is blocking
        assert isinstance(reply, Descriptor)
        assert reply.close_on_exec is close_on_exec


def test_the_socket_is_told_after_its_peer_and_before_the_task_has_it(
    task: FakeTask, listener: socket.socket, client: socket.socket
) -> None:
    told: list[object] = []

    def show(address: SocketAddress) -> SocketAddress:
        told.append(address)
        return CLIENT

    place, length = task.buffer(16), task.buffer(raw_length(16))
    reply = made(lower(task.call("accept", listener, place, length), PresentAddresses(show, accepted=told.append)))
    with taken(reply) as accepted:
        assert told == [address_of_name(client.getsockname()), os.fstat(accepted.fileno()).st_ino]


def test_unknown_flags_accept_nobody(task: FakeTask, listener: socket.socket, client: socket.socket) -> None:
    place, length = task.buffer(16), task.buffer(raw_length(16))
    assert lower(task.call("accept4", listener, place, length, 0x40000000), SHOW) == Result(-errno.EINVAL)
    listener.accept()[0].close()


def test_where_nobody_waits_a_socket_that_does_not_block_says_so(task: FakeTask, listener: socket.socket) -> None:
    place, length = task.buffer(16), task.buffer(raw_length(16))
    assert lower(task.call("accept", listener, place, length), SHOW) == Result(-errno.EAGAIN)


def test_a_socket_that_blocks_is_waited_for_in_a_worker(task: FakeTask, listener: socket.socket) -> None:
    listener.setblocking(True)
    place, length = task.buffer(16), task.buffer(raw_length(16))
    reply = lower(task.call("accept", listener, place, length), SHOW)
    assert isinstance(reply, Deferred)
    replies: list[Reply] = []
    worker = threading.Thread(target=lambda: replies.append(reply.make()))
    worker.start()
    with socket.create_connection(listener.getsockname()):
        worker.join()
        taken(replies[0]).close()


def test_a_wait_has_the_sockets_own_end(task: FakeTask, listener: socket.socket) -> None:
    listener.setblocking(True)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 1000))
    place, length = task.buffer(16), task.buffer(raw_length(16))
    assert made(lower(task.call("accept", listener, place, length), SHOW)) == Result(-errno.EAGAIN)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_socket_that_does_not_listen_is_refused(task: FakeTask, blocking: bool) -> None:
    with socket.socket() as sock:
        sock.setblocking(blocking)
        place, length = task.buffer(16), task.buffer(raw_length(16))
        assert made(lower(task.call("accept", sock, place, length), SHOW)) == Result(-errno.EINVAL)


def test_a_client_who_cannot_be_told_is_turned_away(
    task: FakeTask, listener: socket.socket, client: socket.socket
) -> None:
    place, length = task.buffer(16), task.buffer(raw_length(-1))
    told: list[int] = []
    show = PresentAddresses(lambda _: CLIENT, accepted=told.append)
    assert lower(task.call("accept", listener, place, length), show) == Result(-errno.EINVAL)
    assert not told
    assert client.recv(1) == b""
    with socket.create_connection(listener.getsockname()) as another:
        with pytest.raises(MemoryFault):
            lower(task.call("accept", listener, NOWHERE, task.buffer(raw_length(16))), SHOW)
        assert another.recv(1) == b""


def test_nobody_is_accepted_for_a_task_that_is_gone(
    task: FakeTask, listener: socket.socket, client: socket.socket
) -> None:
    def gone() -> None:
        raise TaskGone("gone")

    task.on_check = gone
    place, length = task.buffer(16), task.buffer(raw_length(16))
    with pytest.raises(TaskGone):
        lower(task.call("accept", listener, place, length), SHOW)
    task.on_check = lambda: None
    listener.accept()[0].close()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_client_waits_on_while_the_task_has_no_room_for_it(
    task: FakeTask, listener: socket.socket, client: socket.socket, blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.setblocking(blocking)
    place, length = task.buffer(16), task.buffer(raw_length(16))
    call = task.call("accept", listener, place, length)
    with monkeypatch.context() as crowded:
        crowded.setattr(accepts, "has_room", lambda tid: tid != call.tid)
        assert lower(call, SHOW) == Result(-errno.EMFILE)
    with taken(made(lower(task.call("accept", listener, place, length), SHOW))) as accepted:
        assert accepted.getpeername() == client.getsockname()
