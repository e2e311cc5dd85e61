"""connect(2) of real sockets of this process, decided by the handlers and carried out by the kernel."""

import errno
import os
import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from mirrord_agent.wire.frames import InetEndpoint, UnixEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, Unspecified, encode_sockaddr, to_mapped
from mirrord_trace.policy.outgoing import OutgoingPolicy
from mirrord_trace.relay.listener import Listener
from mirrord_trace.relay.tcp import Attempt
from mirrord_trace.supervisor.delivery.base import PASS, Fail, PresentAddresses, Return, UseAddress, Verdict
from mirrord_trace.supervisor.socket_table import Connected, Connecting, Refused
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.support import (
    PEER,
    PEER6,
    POD,
    FakeStream,
    Machine,
    Page,
    call_of,
    connect_call,
    inet,
    inode_of,
    machine,
    open_descriptors,
    sendto_call,
)


@contextmanager
def stream(*, family: int = socket.AF_INET, blocking: bool = True) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setblocking(blocking)
        yield made


def name_shown(here: Machine, of: socket.socket, call: str) -> SocketAddress | None:
    """What getpeername or getsockname would show; None for what the kernel says."""
    verdict = getattr(here.sockets, call)(call_of(call, of.fileno()))
    return verdict.translate(Unspecified()) if isinstance(verdict, PresentAddresses) else None


def error_shown(here: Machine, of: socket.socket) -> int:
    """SO_ERROR as the process reads it."""
    memory = Page()
    value, length = memory.put(bytes(4)), memory.put((4).to_bytes(4, "little"))
    verdict = here.sockets.get_error(
        call_of("getsockopt", of.fileno(), socket.SOL_SOCKET, socket.SO_ERROR, value, length, memory=memory)
    )
    if verdict is PASS:
        return of.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert isinstance(verdict, Return)
    assert verdict.value == 0
    return int.from_bytes(dict(verdict.writes)[value], "little")


async def connected(here: Machine, of: socket.socket, address: SocketAddress = PEER) -> FakeStream:
    far = FakeStream()
    here.target.answers(far)
    assert await here.connect(of, address) == 0
    return far


def attempt_of(here: Machine, of: socket.socket) -> Attempt:
    record = here.table.get(inode_of(of))
    assert isinstance(record, Connecting | Connected | Refused)
    return record.attempt


async def writable(of: socket.socket) -> None:
    """The kernel sends a SYN again after one second."""
    await trio.lowlevel.wait_writable(of)


@in_trio
async def test_a_connect_succeeds_when_the_far_side_answered() -> None:
    async with machine() as here:
        with stream() as mine:
            far = await connected(here, mine)
            assert here.target.asked == [(InetEndpoint("198.18.0.10", 8080), None)]
            assert name_shown(here, mine, "getpeername") == PEER
            assert name_shown(here, mine, "getsockname") == inet(POD, 40000)
            mine.sendall(b"ping")
            await far.until(lambda: bytes(far.sent) == b"ping")
            far.gives(b"pong", b"")
            assert await trio.to_thread.run_sync(mine.recv, 99) == b"pong"
            assert await trio.to_thread.run_sync(mine.recv, 99) == b""


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_connect_fails_with_the_errno_of_the_pod(number: int, blocking: bool) -> None:
    @in_trio
    async def test() -> None:
        async with machine() as here:
            with stream(blocking=blocking) as mine:
                here.target.answers(number)
                assert await here.connect(mine, PEER) == -number
                assert here.table.get(inode_of(mine)) is None
                far = FakeStream()
                here.target.answers(far)
                assert await here.connect(mine, PEER) in (0, -errno.EINPROGRESS)

    test()


@in_trio
async def test_a_connect_that_takes_longer_than_the_hold_waits_in_the_kernel_and_succeeds() -> None:
    async with machine() as here:
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            assert await here.connect(mine, PEER) == -errno.EALREADY
            poll = select.poll()
            poll.register(mine, select.POLLOUT)
            assert not poll.poll(0)
            far = FakeStream()
            here.target.answers(far)
            await writable(mine)
            assert error_shown(here, mine) == 0
            assert await here.connect(mine, PEER) == 0
            assert await here.connect(mine, PEER) == -errno.EISCONN
            assert name_shown(here, mine, "getpeername") == PEER
            mine.send(b"late")
            await far.until(lambda: bytes(far.sent) == b"late")
            assert not far.has_reset


@in_trio
async def test_a_connect_that_fails_later_tells_the_true_error_once() -> None:
    async with machine() as here:
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            here.target.answers(errno.ETIMEDOUT)
            await writable(mine)
            assert error_shown(here, mine) == errno.ETIMEDOUT
            assert error_shown(here, mine) == 0


@in_trio
async def test_a_second_connect_tells_the_true_error_too_and_the_third_begins_anew() -> None:
    async with machine() as here:
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            here.target.answers(errno.EHOSTUNREACH)
            await writable(mine)
            assert await here.connect(mine, PEER) == -errno.EHOSTUNREACH
            here.target.answers(FakeStream())
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            await writable(mine)
            assert name_shown(here, mine, "getpeername") == PEER


@in_trio
async def test_an_interrupted_connect_is_known_when_the_answer_comes() -> None:
    """The kernel does not tell of a call that will be made again (ERESTARTSYS): `done` is never called."""
    for answer, known in ((FakeStream(), Connected), (errno.ETIMEDOUT, Refused)):
        async with machine() as here:
            with stream() as mine:
                verdict = await here.decide(here.sockets.connect(connect_call(mine, PEER, signal=lambda: True)))
                assert isinstance(verdict, UseAddress)
                mine.setblocking(False)
                assert mine.connect_ex((str(verdict.address.host), verdict.address.port)) == errno.EINPROGRESS  # type: ignore[union-attr]
                here.target.answers(answer)
                await writable(mine)
                assert isinstance(here.table.get(inode_of(mine)), known)


@in_trio
async def test_two_threads_connect_one_socket_and_the_connection_lives() -> None:
    async with machine() as here:
        with stream() as mine:
            results: list[int] = []

            async def connect() -> None:
                results.append(await here.connect(mine, PEER))

            far = FakeStream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked(0.01)
                here.target.answers(far)
            assert 0 in results
            assert set(results) <= {0, -errno.EISCONN}
            assert len(here.target.asked) == 1
            mine.sendall(b"alive")
            await far.until(lambda: bytes(far.sent) == b"alive")
            assert not far.has_reset


@in_trio
async def test_a_call_that_dies_while_it_is_held_takes_the_attempt_along() -> None:
    async with machine() as here:
        with stream() as mine:
            with trio.move_on_after(0.02):
                await here.connect(mine, PEER)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert here.target.cancelled == 1
            assert here.table.get(inode_of(mine)) is None


@in_trio
async def test_of_two_held_calls_one_dies_and_the_other_is_answered() -> None:
    async with machine() as here:
        with stream() as mine:
            results: list[int] = []

            async def connect() -> None:
                results.append(await here.connect(mine, PEER))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked(0.001)
                with trio.move_on_after(0.02):
                    await here.connect(mine, PEER)
                here.target.answers(errno.ENETUNREACH)
            assert results == [-errno.ENETUNREACH]


@in_trio
async def test_what_unspec_left_behind_is_given_up() -> None:
    async with machine() as here:
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            assert await here.connect(mine, Unspecified()) == 0
            here.target.answers(FakeStream())
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert here.table.get(inode_of(mine)) is None
            assert not here.relay.waiting
            far = FakeStream()
            here.target.answers(far)
            assert await here.connect(mine, PEER) in (0, -errno.EINPROGRESS)
            await writable(mine)
            mine.send(b"new")
            await far.until(lambda: bytes(far.sent) == b"new")


@in_trio
async def test_unspec_ends_a_connection() -> None:
    async with machine() as here:
        with stream() as mine:
            far = await connected(here, mine)
            assert await here.connect(mine, Unspecified()) == 0
            await far.until(lambda: far.has_reset)
            assert name_shown(here, mine, "getpeername") is None


@in_trio
async def test_a_socket_that_is_closed_while_it_waits_is_missed() -> None:
    async with machine() as here:
        before = open_descriptors()
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
        await here.target.gave_up.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not here.relay.waiting
        assert here.target.cancelled == 1
        assert open_descriptors() == before


@in_trio
async def test_bytes_of_a_process_that_closes_at_once_arrive() -> None:
    async with machine() as here:
        before = open_descriptors()
        with stream() as mine:
            far = FakeStream()
            here.target.answers(far)
            verdict = await here.decide(here.sockets.connect(connect_call(mine, PEER)))
            assert isinstance(verdict, UseAddress)
            assert mine.connect_ex((str(verdict.address.host), verdict.address.port)) == 0  # type: ignore[union-attr]
            mine.send(b"and gone")
        assert here.relay.unsent
        await here.relay.sent()
        assert (bytes(far.sent), far.is_eof_sent) == (b"and gone", True)
        await far.until(lambda: far.has_closed)
        assert not far.has_reset
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert open_descriptors() == before


@in_trio
async def test_after_the_session_is_lost() -> None:
    async with machine() as here:
        with stream() as old, stream() as held, stream() as new:
            far = await connected(here, old)
            here.target._answered = trio.Event()
            results: list[int] = []

            async def connect() -> None:
                results.append(await here.connect(held, PEER))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked(0.001)
                here.target.is_lost()
                far.gives(OSError(errno.ENETUNREACH, "lost"))
            assert results == [-errno.ENETUNREACH]
            assert await here.connect(new, PEER) == -errno.ENETUNREACH
            with pytest.raises(ConnectionResetError):
                await trio.to_thread.run_sync(old.recv, 1)


REMOTE = [PEER, PEER6, to_mapped(PEER), inet("127.0.0.1", 9), inet("::1", 9), inet("0.0.0.0", 9)]


def prepared(state: str, family: int, stack: list[socket.socket]) -> int:
    """A descriptor of a socket in a state that a connect may find it in."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    made = socket.socket(family, socket.SOCK_DGRAM if state == "datagram" else socket.SOCK_STREAM)
    stack.append(made)
    if state == "listening":
        made.listen()
    elif state in ("connected here", "refused here"):
        server = socket.create_server((host, 0), family=family)
        stack.append(server)
        if state == "refused here":
            made.setblocking(False)
            server.close()
            made.connect_ex(server.getsockname()[:2] if server.fileno() >= 0 else (host, 9))
        else:
            made.connect(server.getsockname()[:2])
    elif state == "closed":
        number = made.fileno()
        made.close()
        return number
    elif state == "bound":
        made.bind((host, 0))
    elif state == "a file":
        made.close()
        return os.open("/dev/null", os.O_RDONLY)
    return made.fileno()


@pytest.mark.parametrize("address", REMOTE, ids=str)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "state", ["fresh", "listening", "connected here", "refused here", "closed", "bound", "a file", "datagram"]
)
def test_no_connect_goes_on_to_the_targets_address(state: str, family: int, address: Inet4 | Inet6) -> None:
    @in_trio
    async def test() -> None:
        stack: list[socket.socket] = []
        async with machine() as here:
            descriptor = prepared(state, family, stack)
            here.target.answers(errno.ECONNREFUSED)
            memory = Page()
            raw = encode_sockaddr(address)
            call = call_of("connect", descriptor, memory.put(raw), len(raw), memory=memory)
            verdict = await here.decide(here.sockets.connect(call))
            if verdict is PASS:  # only where the kernel itself refuses: the family does not fit
                assert (family == socket.AF_INET) == isinstance(address, Inet6)
                assert family == socket.AF_INET or state != "datagram"
            else:
                assert not (isinstance(verdict, UseAddress) and verdict.address == address)
            if state == "a file":
                os.close(descriptor)
        for each in stack:
            each.close()

    test()


@pytest.mark.parametrize("record", [Connecting, Connected, Refused])
@pytest.mark.parametrize("in_kernel", [False, True])
def test_no_record_lets_a_connect_through(record: type, in_kernel: bool) -> None:
    """A second handling of one call passed once, because the first had left the record of a connection."""

    @in_trio
    async def test() -> None:
        async with machine() as here:
            with stream(blocking=False) as mine, socket.create_server(("127.0.0.1", 0)) as server:
                listener = Listener(Inet4(PEER.host, 1), server)
                attempt = Attempt(inode_of(mine), InetEndpoint(POD, 1), None, listener, socket.AF_INET, print, print)
                attempt.in_kernel = in_kernel
                made: dict[type, Connecting | Connected | Refused] = {
                    Connecting: Connecting(attempt),
                    Connected: Connected(attempt, PEER, PEER),
                    Refused: Refused(attempt, errno.ETIMEDOUT),
                }
                here.table.put(inode_of(mine), made[record])
                for call in (connect_call(mine, PEER), sendto_call(mine, PEER, socket.MSG_FASTOPEN)):
                    handler = getattr(here.sockets, call.name)
                    verdict: Verdict = await here.decide(handler(call))
                    assert verdict == UseAddress(listener.address, verdict.done)  # type: ignore[union-attr]

    test()


@in_trio
async def test_late_news_of_an_old_attempt_change_nothing() -> None:
    async with machine() as here:
        with stream(blocking=False) as mine:
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            old = attempt_of(here, mine)
            assert await here.connect(mine, Unspecified()) == 0
            assert await here.connect(mine, PEER) == -errno.EINPROGRESS
            new = attempt_of(here, mine)
            assert new is not old
            here.table.advance(Refused(old, errno.EIO))
            here.table.drop(old)
            here.table.ended(old)
            assert attempt_of(here, mine) is new


@in_trio
async def test_an_ipv6_only_socket_cannot_reach_ipv4_and_the_pod_is_not_asked() -> None:
    async with machine() as here:
        with stream(family=socket.AF_INET6) as mine:
            mine.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            assert await here.connect(mine, to_mapped(PEER)) == -errno.ENETUNREACH
            assert not here.target.asked


@pytest.mark.parametrize(("address", "peer"), [(PEER6, "fd00:198:18::10"), (to_mapped(PEER), "198.18.0.10")], ids=str)
def test_dual_stack_sockets_see_names_of_their_family(address: Inet6, peer: str) -> None:
    @in_trio
    async def test() -> None:
        async with machine() as here:
            with stream(family=socket.AF_INET6) as mine:
                far = FakeStream(peer=InetEndpoint(peer, 8080))
                here.target.answers(far)
                assert await here.connect(mine, address) == 0
                assert name_shown(here, mine, "getpeername") == address
                local = name_shown(here, mine, "getsockname")
                assert local == to_mapped(Inet4(inet(POD, 1).host, 40000))  # type: ignore[arg-type]

    test()


@in_trio
async def test_a_bound_socket_wishes_for_its_port() -> None:
    async with machine() as here:
        with stream() as mine:
            mine.bind(("0.0.0.0", 0))
            port = mine.getsockname()[1]
            await connected(here, mine)
            assert here.target.asked[0][1] == InetEndpoint("0.0.0.0", port)
        with stream() as mine:
            mine.bind(("127.0.0.1", 0))
            port = mine.getsockname()[1]
            await connected(here, mine)
            assert here.target.asked[1][1] == InetEndpoint("0.0.0.0", port)


@in_trio
async def test_a_fast_open_send_connects_first() -> None:
    async with machine() as here:
        with stream() as mine:
            far = FakeStream()
            here.target.answers(far)
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, PEER, socket.MSG_FASTOPEN)))
            assert isinstance(verdict, UseAddress)
            name = (str(verdict.address.host), verdict.address.port)  # type: ignore[union-attr]
            sent = mine.sendto(b"in the SYN", socket.MSG_FASTOPEN, name)
            assert verdict.done(sent) == 10
            await far.until(lambda: bytes(far.sent) == b"in the SYN")


UNIX = OutgoingPolicy(unix_streams=(re.compile("docker"),))


@pytest.mark.parametrize("blocking", [True, False])
def test_unix_sockets_are_connected_when_the_pod_answered(blocking: bool) -> None:
    @in_trio
    async def test() -> None:
        async with machine(UNIX) as here:
            with stream(family=socket.AF_UNIX, blocking=blocking) as mine:
                path = Unix(b"/run/docker.sock")
                far = FakeStream(local=UnixEndpoint(b""), peer=UnixEndpoint(path.path))
                here.target.answers(far)
                assert await here.connect(mine, path) == 0
                assert name_shown(here, mine, "getpeername") == path
                assert await here.connect(mine, Unspecified()) == -errno.EINVAL
                assert name_shown(here, mine, "getpeername") == path
                mine.send(b"GET")
                await far.until(lambda: bytes(far.sent) == b"GET")

    test()


@pytest.mark.parametrize(
    ("blocking", "signal", "number"),
    [(False, None, errno.EAGAIN), (True, lambda: True, errno.EINTR)],
)
def test_unix_sockets_know_no_connection_in_progress(
    blocking: bool, signal: Callable[[], bool] | None, number: int
) -> None:
    @in_trio
    async def test() -> None:
        async with machine(UNIX) as here:
            with stream(family=socket.AF_UNIX, blocking=blocking) as mine:
                assert await here.connect(mine, Unix(b"\0docker"), signal) == -number
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert here.target.cancelled == 1

    test()


@pytest.mark.parametrize(
    ("path", "verdict"),
    [(b"/run/nscd/socket", Fail(errno.ENOENT)), (b"/run/dbus", PASS), (b"", PASS)],
)
def test_unix_sockets_that_are_here_or_nowhere(path: bytes, verdict: Verdict) -> None:
    @in_trio
    async def test() -> None:
        async with machine() as here:
            with stream(family=socket.AF_UNIX) as mine:
                raw = encode_sockaddr(Unix(path))
                assert here.sockets.connect(connect_call(mine, raw)) == verdict

    test()


@in_trio
async def test_a_listener_of_the_tree_is_reached_and_another_is_the_pods() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, stream() as mine:
        address = inet(*server.getsockname())
        async with machine(tree=[os.getpid()]) as here:
            assert here.sockets.connect(connect_call(mine, address)) is PASS
        async with machine(tree=[]) as here:
            here.target.answers(errno.ECONNREFUSED)
            assert await here.connect(mine, address) == -errno.ECONNREFUSED
        async with machine(OutgoingPolicy(ignore_localhost=True)) as here:
            assert here.sockets.connect(connect_call(mine, address)) is PASS
