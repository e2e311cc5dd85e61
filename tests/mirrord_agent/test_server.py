"""The agent, spoken to frame by frame: what a session's client would never say is said here."""

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from mirrord_agent.server import SILENT_SHARES
from mirrord_agent.target import Target
from mirrord_agent.wire import encode, frames, handshake
from mirrord_agent.wire.frames import Goodbye, GoodbyeKind, InetEndpoint
from mirrord_agent.wire.windows import DATAGRAM_WINDOW, INITIAL_WINDOW
from tests.mirrord_agent.support import (
    SECRET,
    FrameClient,
    Served,
    agent_for_frames,
    in_trio,
    listener,
)

HELLO = handshake.hello(SECRET)


async def shake_hands(client: FrameClient) -> frames.Welcome:
    await client.send(HELLO)
    return await client.receive_kind(frames.Welcome)


async def expect_end(client: FrameClient, served: Served, kind: GoodbyeKind) -> str:
    """The agent says goodbye for this reason, closes, and its task ends; returns its words."""
    goodbye = await client.receive_kind(Goodbye)
    assert goodbye.kind is kind
    assert await client.receive() is None
    await served.ended.wait()
    assert served.ending == goodbye
    return goodbye.message


@in_trio
async def test_a_client_is_welcomed_with_facts() -> None:
    async with agent_for_frames() as (client, _):
        welcome = await shake_hands(client)
        assert welcome.facts.pid == os.getpid()
        assert welcome.facts.hostname == os.uname().nodename
        assert welcome.features == handshake.FEATURES


@in_trio
async def test_a_wrong_secret_gets_nothing_but_a_goodbye() -> None:
    async with agent_for_frames() as (client, served):
        await client.send(attrs.evolve(HELLO, secret=b"guess"), frames.GetEnvironment(1))
        await expect_end(client, served, GoodbyeKind.SECRET)


@in_trio
async def test_why_the_agent_cannot_serve_is_told_to_a_client_that_knows_the_secret() -> None:
    reason = Goodbye(GoodbyeKind.PERMISSION, "not allowed")
    async with agent_for_frames(reason) as (client, served):
        await client.send(HELLO)
        assert await expect_end(client, served, GoodbyeKind.PERMISSION) == "not allowed"


@in_trio
async def test_why_the_agent_cannot_serve_is_not_told_to_a_stranger() -> None:
    async with agent_for_frames(Goodbye(GoodbyeKind.PERMISSION, "not allowed")) as (client, served):
        await client.send(attrs.evolve(HELLO, secret=b"guess"))
        await expect_end(client, served, GoodbyeKind.SECRET)


@in_trio
async def test_a_client_must_begin_with_a_hello() -> None:
    async with agent_for_frames() as (client, served):
        await client.send(frames.Ping(1))
        await expect_end(client, served, GoodbyeKind.PROTOCOL)


@in_trio
async def test_requests_may_follow_the_hello_at_once() -> None:
    async with agent_for_frames() as (client, _):
        await client.send(HELLO, frames.Ping(7))
        await client.receive_kind(frames.Welcome)
        assert await client.receive_kind(frames.Pong) == frames.Pong(7)


@in_trio
async def test_garbage_ends_the_session_with_a_reason() -> None:
    async with agent_for_frames() as (client, served):
        await shake_hands(client)
        await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert "header" in await expect_end(client, served, GoodbyeKind.PROTOCOL)


LOCAL = InetEndpoint("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([HELLO], "Hello from a client"),
        ([frames.Pong(1)], "Pong from a client"),
        ([frames.GetEnvironment(2)], "stream 2"),
        ([frames.GetEnvironment(3), frames.GetEnvironment(3)], "stream 3 after stream 3"),
        ([frames.GetEnvironment(3), frames.GetEnvironment(1)], "stream 1 after stream 3"),
        ([frames.Data(1, b"x")], "never opened"),
        ([frames.Eof(5)], "never opened"),
        ([frames.Reset(1, errno.ECONNRESET)], "never opened"),
        ([frames.Close(1)], "never opened"),
        ([frames.Credit(1, 5)], "never opened"),
        ([frames.Datagram(1, None, b"x")], "never opened"),
    ],
)
def test_what_a_client_may_not_say_ends_the_session(said: list[frames.Frame], words: str) -> None:
    @in_trio
    async def test() -> None:
        async with agent_for_frames() as (client, served):
            await shake_hands(client)
            await client.send(*said)
            assert words in await expect_end(client, served, GoodbyeKind.PROTOCOL)

    test()


@in_trio
async def test_frames_of_a_stream_that_is_over_are_ignored() -> None:
    async with agent_for_frames() as (client, _):
        await shake_hands(client)
        await client.send(frames.Connect(1, InetEndpoint("127.0.0.1", 1), None))
        await client.receive_kind(frames.Failed)
        late = (frames.Data(1, b"x"), frames.Eof(1), frames.Credit(1, 5), frames.Close(1), frames.Reset(1, 104))
        await client.send(*late, frames.Ping(1))
        assert await client.receive() == frames.Pong(1)


@in_trio
async def test_more_data_than_the_window_ends_the_session() -> None:
    async with agent_for_frames() as (client, served), listener(backlog=1) as far:
        await shake_hands(client)
        await client.send(frames.Connect(1, InetEndpoint(far.host, far.port), None))
        await client.receive_kind(frames.Connected)
        async with await far.accept() as stalled:
            # The far side never reads; credit comes only for what its kernel takes.
            with suppress(trio.BrokenResourceError):
                while True:
                    await client.send(frames.Data(1, bytes(INITIAL_WINDOW)))
            await served.ended.wait()
            assert served.ending is not None
            assert served.ending.kind is GoodbyeKind.PROTOCOL
            assert "credit" in served.ending.message
            del stalled


@in_trio
async def test_data_after_the_end_of_data_ends_the_session() -> None:
    async with agent_for_frames() as (client, served), listener() as far:
        await shake_hands(client)
        await client.send(frames.Connect(1, InetEndpoint(far.host, far.port), None), frames.Ping(1))
        await client.receive_kind(frames.Connected)
        await client.send(frames.Eof(1), frames.Data(1, b"x"))
        assert "after its end" in await expect_end(client, served, GoodbyeKind.PROTOCOL)


@in_trio
async def test_excessive_credit_ends_the_session() -> None:
    async with agent_for_frames() as (client, served), listener() as far:
        await shake_hands(client)
        await client.send(frames.Connect(1, InetEndpoint(far.host, far.port), None))
        await client.receive_kind(frames.Connected)
        await client.send(frames.Credit(1, 2**60))
        assert "limit" in await expect_end(client, served, GoodbyeKind.PROTOCOL)


@in_trio
async def test_datagrams_are_held_to_their_window_and_need_a_destination() -> None:
    async with agent_for_frames() as (client, served):
        await shake_hands(client)
        await client.send(frames.OpenDatagrams(1, "inet4", None, None))
        await client.receive_kind(frames.DatagramsOpened)
        await client.send(frames.Datagram(1, None, b"x"))
        assert "destination" in await expect_end(client, served, GoodbyeKind.PROTOCOL)
    async with agent_for_frames() as (client, served):
        await shake_hands(client)
        await client.send(frames.OpenDatagrams(1, "inet4", None, None))
        await client.receive_kind(frames.DatagramsOpened)
        await client.send(frames.Datagram(1, LOCAL, bytes(DATAGRAM_WINDOW)))
        assert "credit" in await expect_end(client, served, GoodbyeKind.PROTOCOL)


@in_trio
async def test_a_client_that_asks_and_never_reads_is_left() -> None:
    pings = b"".join(encode(frames.Ping(1))[0] for _ in range(10_000))
    async with agent_for_frames() as (client, served):
        await shake_hands(client)
        with suppress(trio.BrokenResourceError):
            while True:
                await client.stream.send_all(pings)
        await served.ended.wait()
        assert served.ending is not None
        assert "does not read" in served.ending.message


@in_trio
async def test_the_agent_leaves_when_the_client_is_gone_in_the_middle_of_everything() -> None:
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder, "full")
        with trio.socket.socket(trio.socket.AF_UNIX) as listening:
            await listening.bind(str(full))
            listening.listen(0)
            async with agent_for_frames() as (client, served), listener() as far:
                await shake_hands(client)
                await client.send(
                    frames.Connect(1, InetEndpoint(far.host, far.port), None),
                    frames.OpenDatagrams(3, "inet4", None, None),
                    frames.Connect(5, frames.UnixEndpoint(os.fsencode(full)), None),
                    frames.Connect(7, frames.UnixEndpoint(os.fsencode(full)), None),
                    frames.Connect(9, InetEndpoint("192.0.2.1", 9), None),
                )
                await client.receive_kind(frames.Connected)
                async with await far.accept() as connection:
                    await client.stream.aclose()
                    await served.ended.wait()
                    assert await connection.receive_some() == b""


@in_trio
async def test_the_agent_says_goodbye_when_it_is_stopped() -> None:
    async with agent_for_frames() as (client, served):
        await shake_hands(client)
        served.scope.cancel()
        goodbye = await client.receive_kind(Goodbye)
        assert goodbye.kind is GoodbyeKind.SHUTDOWN
        assert await client.receive() is None


@in_trio
async def test_the_agent_says_goodbye_when_the_target_has_ended() -> None:
    process = await trio.lowlevel.open_process(["/bin/sleep", "60"])
    target = Target.open(process.pid)
    async with agent_for_frames(target) as (client, served):
        await shake_hands(client)
        process.kill()
        assert str(process.pid) in await expect_end(client, served, GoodbyeKind.TARGET_GONE)
    target.close()
    await process.wait()


@in_trio
async def test_an_answer_that_is_no_longer_wanted_is_not_given() -> None:
    async with agent_for_frames() as (client, _):
        await shake_hands(client)
        await client.send(frames.GetEnvironment(1), frames.Reset(1, errno.ECANCELED), frames.Ping(1))
        assert await client.receive() == frames.Pong(1)
        await client.send(frames.GetEnvironment(3))
        heard = await client.receive_kind(frames.Part)
        assert heard.stream == 3


def test_a_silent_client_is_left_and_one_that_pings_is_not() -> None:
    async def test() -> None:
        async with agent_for_frames(timeout_s=9) as (client, served):
            await shake_hands(client)
            for number in range(10):
                await trio.sleep(9 / SILENT_SHARES)
                await client.send(frames.Ping(number))
                assert await client.receive() == frames.Pong(number)
            before = trio.current_time()
            assert "9 s" in await expect_end(client, served, GoodbyeKind.TIMEOUT)
            assert 9 <= trio.current_time() - before <= 9 * (1 + 1 / SILENT_SHARES)

    # Longer than a frame's way through the kernel, so that the clock does not run ahead of it.
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_a_client_that_never_says_hello_is_left() -> None:
    async def test() -> None:
        async with agent_for_frames() as (client, served):
            assert "hello" in await expect_end(client, served, GoodbyeKind.TIMEOUT)

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_it_needs_only_what_its_image_has() -> None:
    """Everything that the agent imports is of Python, of ours, or one of the libraries that its image installs."""
    script = (
        "import sys; own = set(sys.modules); import mirrord_agent.__main__; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - own})"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=paths)
    imported = ran.stdout.split()
    ours_and_theirs = {name for name in imported if name not in sys.stdlib_module_names}
    assert "mirrord_trace" not in imported
    of_trio = {"outcome", "sniffio", "sortedcontainers", "idna"}
    allowed = {"mirrord_agent", "trio", "attr", "attrs", "msgpack", "cython_runtime"} | of_trio
    assert {name for name in ours_and_theirs if not name.startswith(("_", "__"))} <= allowed
