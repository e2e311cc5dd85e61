"""A session with an agent in this process, and real sockets on the loopback interface."""

import errno
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from mirrord_agent.wire import encode, frames, handshake
from mirrord_agent.wire.frames import Frame
from mirrord_trace.session import (
    AgentRefused,
    GoodbyeKind,
    InetEndpoint,
    RemoteStream,
    Session,
    SessionLost,
    UnixEndpoint,
    open_session,
)
from tests.mirrord_agent.support import (
    SECRET,
    FrameClient,
    agent_for_frames,
    in_trio,
    listener,
    reset,
    session_with_agent,
    stream_pair,
)

MEGABYTE = 1 << 20


@asynccontextmanager
async def connected(session: Session, host: str = "127.0.0.1") -> AsyncIterator[tuple[RemoteStream, trio.SocketStream]]:
    """Both ends of a connection that the agent opened."""
    async with listener(host) as far:
        stream = await session.connect(InetEndpoint(far.host, far.port))
        async with await far.accept() as accepted:
            yield stream, accepted


async def receive_all(stream: RemoteStream) -> bytes:
    pieces = []
    while piece := await stream.receive():
        pieces.append(piece)
    return b"".join(pieces)


@in_trio
async def test_facts_environment_and_files() -> None:
    async with session_with_agent() as (session, _):
        assert session.facts.pid == os.getpid()
        own = await trio.Path("/proc/self/environ").read_bytes()
        assert await session.environment() == dict(
            variable.split(b"=", 1) for variable in own.split(b"\0") if b"=" in variable
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(os.urandom(600_000))
            file.flush()
            os.fchmod(file.fileno(), 0o640)
            content = await session.read_file(os.fsencode(file.name))
            status = os.fstat(file.fileno())
            assert content.data == await trio.Path(file.name).read_bytes()
            assert (content.mode, content.mtime_ns) == (status.st_mode, status.st_mtime_ns)
            with pytest.raises(OSError, match="longer than 599999 bytes") as long:
                await session.read_file(os.fsencode(file.name), 599_999)
            assert long.value.errno == errno.EFBIG
            assert len((await session.read_file(os.fsencode(file.name), 600_000)).data) == 600_000
        with pytest.raises(FileNotFoundError):
            await session.read_file(b"/nowhere/at/all")
        with pytest.raises(IsADirectoryError):
            await session.read_file(b"/etc")
        with pytest.raises(OSError, match="not a regular file"):
            await session.read_file(b"/dev/null")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_has_true_addresses_and_carries_data_both_ways(host: str) -> None:
    @in_trio
    async def test() -> None:
        async with session_with_agent() as (session, _), connected(session, host) as (stream, far):
            assert isinstance(stream.local, InetEndpoint)
            assert isinstance(stream.peer, InetEndpoint)
            assert (stream.local.host, stream.local.port) == far.socket.getpeername()[:2]
            assert (stream.peer.host, stream.peer.port) == far.socket.getsockname()[:2]
            await stream.send(b"hello")
            assert await far.receive_some() == b"hello"
            await far.send_all(b"there")
            assert await stream.receive() == b"there"

    test()


@in_trio
async def test_a_v4_mapped_address_is_reached_over_ipv4() -> None:
    async with session_with_agent() as (session, _), listener() as far:
        stream = await session.connect(InetEndpoint(f"::ffff:{far.host}", far.port))
        assert stream.peer == InetEndpoint(far.host, far.port)
        await stream.aclose()


@in_trio
async def test_refused_and_unreachable_have_their_errno() -> None:
    async with session_with_agent() as (session, _):
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1:1: Connection refused"):
            await session.connect(InetEndpoint("127.0.0.1", 1))
        with pytest.raises(ConnectionRefusedError):
            await session.connect(InetEndpoint("::1", 1))
        with pytest.raises(OSError, match="255") as broadcast:
            await session.connect(InetEndpoint("255.255.255.255", 1))
        assert broadcast.value.errno in {errno.ENETUNREACH, errno.EACCES}


@in_trio
async def test_half_close_by_us_then_by_them() -> None:
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        await stream.send(b"question")
        await stream.send_eof()
        await stream.send_eof()
        assert await far.receive_some() == b"question"
        assert await far.receive_some() == b""
        await far.send_all(b"answer")
        await far.send_eof()
        assert await receive_all(stream) == b"answer"
        assert await stream.receive() == b""
        with pytest.raises(BrokenPipeError):
            await stream.send(b"more")
        await stream.aclose()


@in_trio
async def test_half_close_by_them_then_by_us() -> None:
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        await far.send_eof()
        assert await stream.receive() == b""
        await stream.send(b"still here")
        assert await far.receive_some() == b"still here"
        await stream.aclose()
        assert await far.receive_some() == b""


@in_trio
async def test_a_reset_from_the_far_side_comes_behind_its_data() -> None:
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        await far.send_all(b"last words")
        assert await stream.receive() == b"last words"
        reset(far)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await stream.receive()
            with pytest.raises(ConnectionResetError):
                await stream.send(b"x")
        await stream.aclose()


@in_trio
async def test_a_reset_from_us_reaches_the_far_side_as_one() -> None:
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        stream.reset()
        stream.reset()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await far.receive_some()
        assert isinstance(broken.value.__cause__, ConnectionResetError)
        with pytest.raises(OSError, match="closed"):
            await stream.send(b"x")
        with pytest.raises(OSError, match="closed"):
            await stream.receive()


@in_trio
async def test_a_reset_wakes_who_waits_on_the_stream() -> None:
    async with (
        session_with_agent() as (session, _),
        connected(session) as (stream, _far),
        trio.open_nursery() as nursery,
    ):

        async def wait() -> None:
            with pytest.raises(OSError, match="closed"):
                await stream.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        stream.reset()


@in_trio
async def test_an_answer_that_came_before_a_refused_upload_is_still_read() -> None:
    """A server that answers early and closes while an upload still runs, as many do for 413."""
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        await stream.send(b"begin")
        assert await far.receive_some(1) == b"b"
        await far.send_all(b"413 too large")
        await far.aclose()  # with unread data: the kernel sends a RST
        assert await stream.receive() == b"413 too large"
        with pytest.raises(ConnectionResetError):
            await stream.send(bytes(64 * MEGABYTE))


@in_trio
async def test_close_delivers_what_was_sent_before() -> None:
    data = os.urandom(3 * MEGABYTE)
    async with session_with_agent() as (session, _), connected(session) as (stream, far):
        heard = bytearray()

        async def read() -> None:
            async for piece in far:
                heard.extend(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await stream.send(data)
            await stream.aclose()
        assert heard == data


@in_trio
async def test_the_end_of_a_session_delivers_what_was_sent_before() -> None:
    data = os.urandom(MEGABYTE)
    async with listener() as far:
        async with session_with_agent() as (session, _):
            stream = await session.connect(InetEndpoint(far.host, far.port))
            accepted = await far.accept()
            await stream.send(data)
        heard = b"".join([piece async for piece in accepted])
        assert heard == data
        await accepted.aclose()


@in_trio
async def test_bulk_in_both_directions_at_once_on_several_streams() -> None:
    """Everything full on both sides, and nothing gets stuck."""
    data = os.urandom(8 * MEGABYTE)

    async with session_with_agent() as (session, _), listener() as far:

        async def echo(accepted: trio.SocketStream) -> None:
            async with accepted:
                async for piece in accepted:
                    await accepted.send_all(piece)
                await accepted.send_eof()

        async def serve() -> None:
            async with trio.open_nursery() as echoes:
                for _ in range(4):
                    echoes.start_soon(echo, await far.accept())

        async def talk() -> None:
            stream = await session.connect(InetEndpoint(far.host, far.port))
            async with trio.open_nursery() as both:

                async def send() -> None:
                    await stream.send(data)
                    await stream.send_eof()

                both.start_soon(send)
                assert await receive_all(stream) == data
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for _ in range(4):
                nursery.start_soon(talk)


@in_trio
async def test_a_stalled_reader_stops_only_its_own_stream() -> None:
    async with (
        session_with_agent() as (session, _),
        connected(session) as (stalled, stalled_far),
        connected(session) as (lively, lively_far),
    ):
        async with trio.open_nursery() as nursery:
            # Nobody reads at either end of the first connection.
            nursery.start_soon(stalled.send, bytes(64 * MEGABYTE))
            nursery.start_soon(stalled_far.send_all, bytes(64 * MEGABYTE))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                await lively.send(b"ping")
                assert await lively_far.receive_some() == b"ping"
                await lively_far.send_all(b"pong")
                assert await lively.receive() == b"pong"
            nursery.cancel_scope.cancel()
        stalled.reset()


@in_trio
async def test_a_source_port_is_kept_if_it_can_be_had() -> None:
    async with session_with_agent() as (session, _), listener() as far:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            taken = await session.connect(InetEndpoint(far.host, far.port), InetEndpoint("127.0.0.1", port))
            assert taken.local != InetEndpoint("127.0.0.1", port)
        for wish in (InetEndpoint("127.0.0.1", port), InetEndpoint("0.0.0.0", port), InetEndpoint("192.0.2.1", port)):
            stream = await session.connect(InetEndpoint(far.host, far.port), wish)
            assert stream.local == InetEndpoint("127.0.0.1", port)
            stream.reset()
            async with await far.accept(), await far.accept() as mine:
                with pytest.raises(trio.BrokenResourceError):
                    await mine.receive_some()
            await (await session.connect(InetEndpoint(far.host, far.port))).aclose()
        other = await session.connect(InetEndpoint(far.host, far.port), InetEndpoint("127.0.0.2", 0))
        assert isinstance(other.local, InetEndpoint)
        assert other.local.host == "127.0.0.2"


@in_trio
async def test_a_cancelled_connect_leaves_nothing_in_the_pod() -> None:
    async with session_with_agent() as (session, _), listener() as far:
        # Cancelled before it is sent, on its way, and when its answer is there: each time the far side sees an end.
        for ticks in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel(ticks: int = ticks, scope: trio.CancelScope = scope) -> None:
                        for _ in range(ticks):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    stream = await session.connect(InetEndpoint(far.host, far.port))
                    stream.reset()
        await session.environment()  # what went before has been dispatched
        with trio.move_on_after(0.2):
            while True:
                async with await far.accept() as accepted:
                    with suppress(trio.BrokenResourceError):
                        assert await accepted.receive_some() == b""
        assert not session._streams
        assert not session._requests


@in_trio
async def test_unix_sockets_by_path_and_by_abstract_name() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.fsencode(Path(folder, "socket"))
        abstract = b"\0mirrord-trace-test-" + os.urandom(8).hex().encode()
        async with session_with_agent() as (session, _):
            for name in (path, abstract):
                with trio.socket.socket(socket.AF_UNIX) as listening:
                    await listening.bind(name)
                    listening.listen(0)
                    stream = await session.connect(UnixEndpoint(name))
                    assert stream.peer == UnixEndpoint(name)
                    assert stream.local == UnixEndpoint(b"")
                    second: list[RemoteStream] = []

                    async def connect_second(name: bytes = name, second: list[RemoteStream] = second) -> None:
                        second.append(await session.connect(UnixEndpoint(name)))

                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(connect_second)  # the backlog of 0 holds one: this waits its turn
                        await session.environment()
                        for _ in range(2):
                            accepted = trio.SocketStream((await listening.accept())[0])
                            await accepted.send_all(b"hi")
                            await accepted.aclose()
                    assert await receive_all(stream) == b"hi"
                    assert await receive_all(second[0]) == b"hi"
            with pytest.raises(ConnectionRefusedError):
                await session.connect(UnixEndpoint(path))
            with pytest.raises(ConnectionRefusedError):
                await session.connect(UnixEndpoint(abstract))
            with pytest.raises(FileNotFoundError):
                await session.connect(UnixEndpoint(path + b"-not"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connected_datagrams(host: str) -> None:
    @in_trio
    async def test() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        async with session_with_agent() as (session, _):
            with trio.socket.socket(family, socket.SOCK_DGRAM) as far:
                await far.bind((host, 0))
                peer = InetEndpoint(host, far.getsockname()[1])
                flow = await session.open_datagrams("inet6" if ":" in host else "inet4", peer)
                assert flow.peer == peer
                assert flow.local.host == host
                for size in (0, 1, 1472, 65487):
                    flow.send(bytes(size))
                    data, source = await far.recvfrom(65536)
                    assert data == bytes(size)
                    assert source[1] == flow.local.port
                    await far.sendto(data, source)
                    assert await flow.receive() == (bytes(size), None)
                with pytest.raises(OSError, match="connected"):
                    flow.send(b"x", peer)
            flow.send(b"nobody there")
            with pytest.raises(ConnectionRefusedError):
                await flow.receive()
            flow.send(b"still nobody")
            with pytest.raises(ConnectionRefusedError):
                await flow.receive()
            flow.send(bytes(70_000))
            with pytest.raises(OSError, match="too long"):
                await flow.receive()
            await session.environment()
            assert not flow._inbox  # said once
            flow.close()
            flow.close()
            with pytest.raises(trio.ClosedResourceError):
                await flow.receive()
            with pytest.raises(OSError, match="closed"):
                flow.send(b"x")

    test()


@in_trio
async def test_unconnected_datagrams_have_true_sources_and_the_wished_port() -> None:
    async with session_with_agent() as (session, _):
        with (
            trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
            trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        ):
            await first.bind(("127.0.0.1", 0))
            await second.bind(("127.0.0.1", 0))
            flow = await session.open_datagrams("inet4", None)
            again = await session.open_datagrams("inet4", None, InetEndpoint("0.0.0.0", flow.local.port))
            assert flow.local.host == "0.0.0.0"
            assert again.local.port not in {0, flow.local.port}
            for far in (first, second):
                endpoint = InetEndpoint(*far.getsockname())
                flow.send(b"who are you", endpoint)
                data, source = await far.recvfrom(100)
                assert source[1] == flow.local.port
                await far.sendto(data, source)
                assert await flow.receive() == (b"who are you", endpoint)
            with pytest.raises(OSError, match="Destination"):
                flow.send(b"x")
            port = flow.local.port
            flow.close()
            await session.environment()
            kept = await session.open_datagrams("inet4", None, InetEndpoint("127.0.0.1", port))
            assert kept.local == InetEndpoint("127.0.0.1", port)
            flow = await session.open_datagrams("inet4", None)
            flow.send(b"x", InetEndpoint("255.255.255.255", 9))
            with pytest.raises(PermissionError):
                await flow.receive()


@in_trio
async def test_a_socket_connected_to_port_0_only_tells_its_own_address() -> None:
    """What getaddrinfo(3) does to sort addresses; the kernel then names no peer."""
    async with session_with_agent() as (session, _):
        flow = await session.open_datagrams("inet4", InetEndpoint("127.0.0.1", 0))
        assert flow.local.host == "127.0.0.1"
        assert flow.peer == InetEndpoint("127.0.0.1", 0)


@in_trio
async def test_datagrams_of_the_wrong_family_are_an_error() -> None:
    async with session_with_agent() as (session, _):
        with pytest.raises(OSError, match="family") as wrong:
            await session.open_datagrams("inet6", InetEndpoint("127.0.0.1", 9))
        assert wrong.value.errno == errno.EAFNOSUPPORT


@in_trio
async def test_datagrams_beyond_the_window_are_dropped_and_the_flow_goes_on() -> None:
    async with session_with_agent() as (session, _):
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            await far.bind(("127.0.0.1", 0))
            flow = await session.open_datagrams("inet4", InetEndpoint(*far.getsockname()))
            for _ in range(1000):
                flow.send(bytes(10_000))  # never yields: at most a window gets through
            received = 0
            with trio.move_on_after(0.2):
                while True:
                    await far.recvfrom(65536)
                    received += 1
            assert 0 < received < 30
            for _ in range(1000):
                await far.sendto(bytes(10_000), (flow.local.host, flow.local.port))
            await trio.testing.wait_all_tasks_blocked(0.05)
            got = 0
            with trio.move_on_after(0.2):
                while True:
                    await flow.receive()
                    got += 1
            assert 0 < got < 1000
            flow.send(b"alive")
            assert (await far.recvfrom(100))[0] == b"alive"
            await far.sendto(b"and well", (flow.local.host, flow.local.port))
            assert (await flow.receive())[0] == b"and well"


@in_trio
async def test_a_wrong_secret_is_refused() -> None:
    async with agent_for_frames() as (client, _):
        with pytest.raises(AgentRefused) as refused:
            async with open_session(client.stream, b"x" * 32):
                pytest.fail("the block must not begin")
        assert refused.value.kind is GoodbyeKind.SECRET


@in_trio
async def test_an_agent_that_ends_before_it_answers_is_a_loss() -> None:
    async with stream_pair() as (ours, theirs):
        await theirs.aclose()
        with pytest.raises(SessionLost, match="before it answered"):
            async with open_session(ours, SECRET):
                pytest.fail("the block must not begin")


@in_trio
async def test_what_is_no_agent_is_a_loss() -> None:
    async with stream_pair() as (ours, theirs):
        await theirs.send_all(b"220 mail.example ESMTP\r\n")
        with pytest.raises(SessionLost, match="not an agent"):
            async with open_session(ours, SECRET):
                pytest.fail("the block must not begin")


@in_trio
async def test_what_leaves_the_block_is_what_was_raised_in_it() -> None:
    with trio.CancelScope() as scope, pytest.raises(ExceptionGroup) as group:
        async with session_with_agent() as (_, _served):
            raise KeyError("mine")
    assert not scope.cancelled_caught
    assert isinstance(group.value.exceptions[0], KeyError)  # of the test's own nursery; open_session adds none


@in_trio
async def test_a_lost_agent_is_told_to_everyone_once_and_the_block_goes_on() -> None:
    async with session_with_agent() as (session, served), connected(session) as (stream, far):
        flow = await session.open_datagrams("inet4", None)
        await far.send_all(b"before")
        while not stream._inbox:
            await trio.testing.wait_all_tasks_blocked()
        seen: list[str] = []

        async def expect_loss(wait: object) -> None:
            with pytest.raises(SessionLost, match="told to stop") as loss:
                await wait()  # type: ignore[operator]
            assert loss.value.errno == errno.ENETUNREACH
            seen.append(str(loss.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_loss, lambda: stream.send(bytes(64 * MEGABYTE)))
            nursery.start_soon(expect_loss, flow.receive)
            nursery.start_soon(expect_loss, lambda: session.connect(UnixEndpoint(b"\0nobody" * 3)))
            served.scope.cancel()
        await session.lost.wait()
        assert session.loss_reason == "the agent left: the agent was told to stop"
        assert await stream.receive() == b"before"
        await expect_loss(stream.receive)
        await expect_loss(session.environment)
        await expect_loss(lambda: session.read_file(b"/etc/hosts"))
        with pytest.raises(SessionLost):
            flow.send(b"x", InetEndpoint("127.0.0.1", 9))
        await stream.aclose()
        flow.close()


class FakeAgent(FrameClient):
    """An agent that says what a test wants."""

    async def welcome(self) -> None:
        assert isinstance(await self.receive(), frames.Hello)
        await self.send(frames.Welcome(handshake.VERSION, (), frames.Facts("pod", "(none)", 1, 0.0)))


@pytest.mark.parametrize(
    "said",
    [
        frames.Ping(1),
        frames.Data(1, b"x"),
        frames.Connected(1, InetEndpoint("127.0.0.1", 1), InetEndpoint("127.0.0.1", 2)),
        frames.Eof(2),
    ],
)
def test_an_agent_that_says_what_it_may_not_is_lost(said: Frame) -> None:
    @in_trio
    async def test() -> None:
        async with stream_pair() as (ours, theirs):
            agent = FakeAgent(theirs)
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    await agent.welcome()
                    await agent.send(said)

                nursery.start_soon(serve)
                async with open_session(ours, SECRET) as session:
                    await session.lost.wait()
                    assert "may not" in (session.loss_reason or "")

    test()


@in_trio
async def test_data_that_comes_together_with_the_answer_is_not_lost() -> None:
    async with stream_pair() as (ours, theirs):
        agent = FakeAgent(theirs)
        endpoint = InetEndpoint("127.0.0.1", 1)

        async def serve() -> None:
            await agent.welcome()
            assert isinstance(await agent.receive(), frames.Connect)
            answer = (frames.Connected(1, endpoint, endpoint), frames.Data(1, b"early"), frames.Eof(1))
            await theirs.send_all(b"".join(piece for frame in answer for piece in encode(frame)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_session(ours, SECRET) as session:
                stream = await session.connect(endpoint)
                assert await receive_all(stream) == b"early"
                await theirs.aclose()


def test_an_agent_that_falls_silent_is_lost() -> None:
    async def test() -> None:
        async with stream_pair() as (ours, theirs):

            async def serve() -> None:
                agent = FakeAgent(theirs)
                await agent.receive()
                await agent.send(frames.Welcome(handshake.VERSION, (), frames.Facts("pod", "(none)", 1, 9.0)))
                for _ in range(5):
                    ping = await agent.receive()
                    assert isinstance(ping, frames.Ping)
                    await agent.send(frames.Pong(ping.number))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                async with open_session(ours, SECRET) as session:
                    await session.lost.wait()
                    assert 5 * 3 <= trio.current_time() <= 5 * 3 + 15
                    assert "9 s" in (session.loss_reason or "")

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0.05))
