"""connect on a duplicate of a socket: the kernel's results, waits that end as natively, and O_NONBLOCK as it was."""

from __future__ import annotations

import errno
import gc
import math
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import IPv4Address

import attrs
import pytest
import trio
import trio.testing

from mirrord_syscalls.sockaddr import Inet4, SocketAddress, Unix, Unspecified
from mirrord_trace.relay.listener import Listener, listen_for
from mirrord_trace.supervisor.delivery.base import TaskGone, UseAddress
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, Reply, Result
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.notify.tasks import NOWHERE, FakeTask, lower, open_descriptors, settled

FAR = Inet4(IPv4Address("198.18.0.1"), 80)
SHORT_S = 0.01


@attrs.define
class Results:
    """What `done` was told, and what it makes of it."""

    told: list[int] = attrs.field(factory=list)
    makes: Callable[[int], int] = lambda result: result

    def done(self, result: int) -> int:
        self.told.append(result)
        return self.makes(result)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = listen_for(FAR, socket.AF_INET)
    yield listener
    listener.close()


@pytest.fixture
def stream() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


@attrs.define
class Connect:
    """connect of a socket, whose own address nobody may look at."""

    task: FakeTask
    sock: socket.socket
    results: Results = attrs.field(factory=Results)

    def to(self, address: SocketAddress) -> Reply | Coroutine[object, object, Reply]:
        call = self.task.call("connect", self.sock, NOWHERE, 16)
        return lower(call, UseAddress(address, self.results.done))


@pytest.mark.parametrize(("is_blocking", "result"), [(True, 0), (False, -errno.EINPROGRESS)])
def test_stream_connects_at_once(
    task: FakeTask, stream: socket.socket, listener: Listener, is_blocking: bool, result: int
) -> None:
    stream.setblocking(is_blocking)
    connect = Connect(task, stream)
    assert connect.to(listener.address) == Result(result)
    assert connect.results.told == [result]
    assert os.get_blocking(stream.fileno()) is is_blocking
    assert stream.getpeername() == listener.socket.getsockname()
    assert task.checks
    again = -errno.EISCONN if is_blocking else 0
    assert connect.to(listener.address) == Result(again)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_refusal_is_told_and_may_be_shown_as_another(task: FakeTask, stream: socket.socket, is_blocking: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refusing = Inet4(IPv4Address("127.0.0.1"), taken.getsockname()[1])
        stream.setblocking(is_blocking)
        connect = Connect(task, stream, Results(makes=lambda _: -errno.EHOSTUNREACH))
        if not is_blocking:
            assert connect.to(refusing) == Result(-errno.EHOSTUNREACH)
            assert connect.results.told.pop() == -errno.EINPROGRESS
        assert connect.to(refusing) == Result(-errno.EHOSTUNREACH)
    assert connect.results.told == [-errno.ECONNREFUSED]
    assert os.get_blocking(stream.fileno()) is is_blocking


def test_datagram_socket_is_never_made_non_blocking(task: FakeTask) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        connect = Connect(task, sock)
        assert connect.to(Inet4(IPv4Address("127.0.0.1"), 9)) == Result(0)
        assert sock.getpeername() == ("127.0.0.1", 9)
        assert connect.to(Unspecified()) == Result(0)
        assert connect.results.told == [0, 0]
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()


@in_trio
async def test_blocking_connect_waits_for_the_answer(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    listener.silence()
    connect = Connect(task, stream)
    waiting = connect.to(listener.address)
    assert isinstance(waiting, Coroutine)
    assert os.get_blocking(stream.fileno())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await waiting == Result(0)

        await trio.testing.wait_all_tasks_blocked(SHORT_S)
        assert not connect.results.told
        assert os.get_blocking(stream.fileno())
        listener.admit()  # the SYN is retransmitted within a second
    assert connect.results.told == [0]
    assert stream.getpeername() == listener.socket.getsockname()


@in_trio
async def test_refusal_ends_the_wait(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    listener.silence()
    connect = Connect(task, stream)
    waiting = connect.to(listener.address)
    listener.close()
    assert await settled(waiting) == Result(-errno.ECONNREFUSED)
    assert connect.results.told == [-errno.ECONNREFUSED]


@in_trio
async def test_signal_lets_the_tasks_own_call_go_on(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    listener.silence()
    connect = Connect(task, stream)
    waiting = connect.to(listener.address)
    task.signal_is_pending = True
    assert await settled(waiting) is CONTINUE
    assert not connect.results.told
    stream.setblocking(False)
    assert stream.connect_ex(("127.0.0.1", 9)) == errno.EALREADY  # whatever the address


@in_trio
async def test_signal_that_another_thread_takes_changes_nothing(
    task: FakeTask, stream: socket.socket, listener: Listener
) -> None:
    listener.silence()
    looks: list[bool] = []

    def seen_once() -> bool:
        looks.append(len(looks) == 0)
        if len(looks) == 3:
            listener.close()
        return looks[-1]

    call = task.call("connect", stream, NOWHERE, 16)
    call.is_interrupted = seen_once
    assert await settled(lower(call, UseAddress(listener.address))) == Result(-errno.ECONNREFUSED)


@pytest.mark.parametrize("was_begun", [False, True])
def test_send_timeout_bounds_the_wait(
    task: FakeTask, stream: socket.socket, listener: Listener, was_begun: bool
) -> None:
    listener.silence()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 7, 500_000))
    connect = Connect(task, stream)
    if was_begun:
        stream.setblocking(False)
        assert connect.to(listener.address) == Result(-errno.EINPROGRESS)
        stream.setblocking(True)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 7, 500_000))

    async def wait() -> None:
        begin = trio.current_time()
        expected = -errno.EALREADY if was_begun else -errno.EINPROGRESS
        assert await settled(connect.to(listener.address)) == Result(expected)
        assert math.isclose(trio.current_time() - begin, 7.5, abs_tol=0.02)

    trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0))
    assert os.get_blocking(stream.fileno())


@in_trio
async def test_cancelled_wait_leaves_nothing_open(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    listener.silence()
    connect = Connect(task, stream)
    before = open_descriptors()
    with trio.move_on_after(SHORT_S):
        await settled(connect.to(listener.address))
    assert open_descriptors() == before
    assert not connect.results.told
    assert os.get_blocking(stream.fileno())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_coroutine_that_is_dropped_leaves_nothing_open(
    task: FakeTask, stream: socket.socket, listener: Listener
) -> None:
    listener.silence()
    before = open_descriptors()
    waiting = Connect(task, stream).to(listener.address)
    assert open_descriptors() != before
    del waiting
    gc.collect()
    assert open_descriptors() == before


def test_gone_task_connects_nowhere(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    def gone() -> None:
        raise TaskGone("killed")

    task.on_check = gone
    connect = Connect(task, stream)
    before = open_descriptors()
    with pytest.raises(TaskGone):
        connect.to(listener.address)
    assert open_descriptors() == before
    assert not connect.results.told
    with pytest.raises(OSError, match="not connected"):
        stream.getpeername()


def test_descriptor_that_was_closed_is_told(task: FakeTask, stream: socket.socket, listener: Listener) -> None:
    results = Results()
    call = task.call("connect", stream, NOWHERE, 16)
    call.arguments = (1 << 20, *call.arguments[1:])
    assert lower(call, UseAddress(listener.address, results.done)) == Result(-errno.EBADF)
    with open("/dev/null", "rb") as no_socket:
        call.arguments = (no_socket.fileno(), *call.arguments[1:])
        assert lower(call, UseAddress(listener.address, results.done)) == Result(-errno.ENOTSOCK)
    assert results.told == [-errno.EBADF, -errno.ENOTSOCK]


class FullBacklog:
    """A Unix listener that has no room for one more."""

    def __init__(self) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(b"\0mirrord-trace-test-" + os.urandom(8).hex().encode())
        self.server.listen(0)
        self.first = socket.socket(socket.AF_UNIX)
        self.first.connect(self.server.getsockname())

    @property
    def address(self) -> Unix:
        return Unix(self.server.getsockname())

    def __enter__(self) -> FullBacklog:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self.first.close()


def test_non_blocking_unix_connect_says_that_the_backlog_is_full(task: FakeTask) -> None:
    with FullBacklog() as full, socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        assert Connect(task, sock).to(full.address) == Result(-errno.EAGAIN)


@in_trio
async def test_blocking_unix_connect_waits_for_room(task: FakeTask) -> None:
    with FullBacklog() as full, socket.socket(socket.AF_UNIX) as sock:
        waiting = Connect(task, sock).to(full.address)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert await settled(waiting) == Result(0)

            tried_again = trio.Event()
            task.on_check = tried_again.set
            await tried_again.wait()
            full.server.accept()[0].close()
        assert sock.getpeername() == full.server.getsockname()


@in_trio
async def test_interrupted_unix_connect_never_goes_to_its_own_address(task: FakeTask) -> None:
    with FullBacklog() as full, socket.socket(socket.AF_UNIX) as sock:
        task.signal_is_pending = True
        assert await settled(Connect(task, sock).to(full.address)) == Result(-errno.EINTR)
        assert os.get_blocking(sock.fileno())
