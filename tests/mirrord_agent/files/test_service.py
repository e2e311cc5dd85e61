"""What a session's client would never do, frame by frame: ask and not read, write and not wait, use what is closed."""

import errno
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from mirrord_agent.server import MAX_STREAMS
from mirrord_agent.wire import file_frames as ask
from mirrord_agent.wire import frames, handshake
from mirrord_agent.wire.file_frames import HandleRequest
from mirrord_agent.wire.file_records import Change, unpack_entries
from mirrord_agent.wire.frames import Failed, GoodbyeKind
from mirrord_trace.targets.agent_process import agent_command, running_agent, with_our_modules
from tests.mirrord_agent.support import SECRET, SECRET_HASH, FrameClient, Served, agent_for_frames, in_trio

MEGABYTE = 1 << 20


@asynccontextmanager
async def agent() -> AsyncIterator[tuple[FrameClient, Served]]:
    async with agent_for_frames() as (client, served):
        await client.send(handshake.hello(SECRET))
        await client.receive_kind(frames.Welcome)
        yield client, served


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def write(path: bytes, content: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(content)


async def failure(client: FrameClient) -> int:
    return (await client.receive_kind(Failed)).errno


@pytest.mark.parametrize(
    "request_for_handle",
    [
        ask.ReadFile(1, 1, 0, 10),
        ask.WriteFile(1, 1, 0, b"x"),
        ask.GetStatus(1, 1),
        ask.ChangeFile(1, 1, Change()),
        ask.SyncFile(1, 1, False),
        ask.OpenAgain(1, 1, 0),
        ask.GiveName(1, 1, b"/tmp/name"),
    ],
)
def test_a_handle_that_is_none(path: bytes, request_for_handle: HandleRequest | ask.OpenAgain | ask.GiveName) -> None:
    @in_trio
    async def test() -> None:
        for number in range(1000):
            write(path + b"/%d" % number)
        async with agent() as (client, _):
            await client.send(ask.OpenFile(1, path + b"/1", os.O_RDONLY, 0, 0), ask.ListDirectory(3, path))
            assert {type(await client.receive()) for _ in range(2)} == {ask.FileOpened, ask.Listed}
            await client.send(frames.Close(1))
            for stream, handle in ((5, 1), (7, 3), (9, 5), (11, 12345)):
                await client.send(attrs.evolve(request_for_handle, stream=stream, handle=handle))
                assert await failure(client) == errno.EBADF
            await client.send(ask.OpenFile(13, path + b"/1", os.O_RDONLY, 0, 0), ask.ListMore(15, 13))
            assert await failure(client) == errno.EBADF

    test()


@in_trio
async def test_a_listing_is_asked_on_until_its_last_piece(path: bytes) -> None:
    names = {b"%05d" % number for number in range(3000)}
    for name in names:
        write(path + b"/" + name)
    async with agent() as (client, _):
        await client.send(ask.ListDirectory(1, path))
        listed = await client.receive_kind(ask.Listed)
        seen = [entry.name for entry in unpack_entries(listed.payload)]
        stream = 3
        while not listed.last:
            await client.send(ask.ListMore(stream, 1))
            listed = await client.receive_kind(ask.Listed)
            assert listed.stream == stream
            assert len(listed.payload) < 140_000
            seen += [entry.name for entry in unpack_entries(listed.payload)]
            stream += 2
        assert len(seen) == 3000
        assert set(seen) == names
        # It closed by itself.
        await client.send(frames.Close(1), ask.ListMore(stream, 1))
        assert await failure(client) == errno.EBADF


@in_trio
async def test_answers_that_nobody_wants_are_not_sent(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with agent() as (client, _):
        await client.send(ask.OpenFile(1, path + b"/fifo", os.O_RDONLY, 0, 0))
        await client.receive_kind(ask.FileOpened)
        await client.send(
            ask.ReadFile(3, 1, 0, 10),
            ask.OpenFile(5, path + b"/fifo", os.O_WRONLY | os.O_NONBLOCK, 0, 0),
            frames.Reset(3, errno.ECANCELED),
            frames.Reset(5, errno.ECANCELED),
            ask.GetStatus(7, 1),
        )
        while True:
            answer = await client.receive()
            if isinstance(answer, ask.FileTold):
                break
            assert isinstance(answer, ask.FileOpened), "which crossed with the reset"
            assert answer.stream == 5
        # What was opened for nobody is closed: when this writer goes the FIFO has none.
        os.close(os.open(path + b"/fifo", os.O_WRONLY))
        await client.send(ask.ReadFile(9, 1, 0, 10))
        data = await client.receive_kind(ask.FileData)
        assert (data.stream, data.payload) == (9, b"")


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1])


@in_trio
async def test_who_asks_and_does_not_read_fills_no_memory(path: bytes) -> None:
    write(path + b"/file", os.urandom(MEGABYTE))
    command = with_our_modules(agent_command(os.getpid(), SECRET_HASH))
    async with running_agent(command, own_session=True) as process:
        client = FrameClient(process.stream)
        await client.send(handshake.hello(SECRET))
        await client.receive_kind(frames.Welcome)
        await client.send(ask.OpenFile(1, path + b"/file", os.O_RDONLY, 0, 0))
        await client.receive_kind(ask.FileOpened)
        idle_kb = resident_kb(process.child.pid)
        asked = range(3, 3 + 2 * 500, 2)
        await client.send(*(ask.ReadFile(stream, 1, 0, MEGABYTE) for stream in asked))
        # Others are served meanwhile; their short answers overtake.
        await client.send(*(ask.GetStatus(2001 + 2 * number, 1) for number in range(100)))
        got: list[int] = []
        short = 0
        while len(got) < 500:
            answer = await client.receive()
            if isinstance(answer, ask.FileData):
                assert len(answer.payload) == MEGABYTE
                got.append(answer.stream)
                assert resident_kb(process.child.pid) - idle_kb < 64 << 10
            else:
                assert isinstance(answer, ask.FileTold)
                short += len(got) < 250
        assert set(got) == set(asked)
        assert short == 100


@in_trio
async def test_who_writes_and_does_not_wait_is_at_fault(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with agent() as (client, served):
        await client.send(ask.OpenFile(1, path + b"/fifo", os.O_RDWR, 0, 0))
        await client.receive_kind(ask.FileOpened)
        async with trio.open_nursery() as nursery:

            async def write_much() -> None:
                with suppress(trio.BrokenResourceError):
                    for stream in range(3, 3 + 2 * 80, 2):
                        await client.send(ask.WriteFile(stream, 1, 0, bytes(MEGABYTE)))

            nursery.start_soon(write_much)
            goodbye = await client.receive_kind(frames.Goodbye)
            assert goodbye.kind is GoodbyeKind.PROTOCOL
            assert "does not wait" in goodbye.message
        await served.ended.wait()


@in_trio
async def test_requests_are_bounded(path: bytes) -> None:
    write(path + b"/file", bytes(MEGABYTE))
    async with agent() as (client, _):
        await client.send(ask.OpenFile(1, path + b"/file", os.O_RDONLY, 0, 0))
        await client.receive_kind(ask.FileOpened)
        # Nobody reads the answers, so most are not made.
        last = 3 + 2 * MAX_STREAMS
        await client.send(*(ask.ReadFile(stream, 1, 0, MEGABYTE) for stream in range(3, last + 1000, 2)))
        assert await failure(client) == errno.EMFILE


@in_trio
async def test_a_number_is_used_once(path: bytes) -> None:
    async with agent() as (client, served):
        await client.send(ask.GetFilesystem(3, path), ask.GetFilesystem(3, path))
        assert (await client.receive_kind(frames.Goodbye)).kind is GoodbyeKind.PROTOCOL
        await served.ended.wait()


@in_trio
async def test_why_something_failed_is_said_for_people(path: bytes) -> None:
    async with agent() as (client, _):
        await client.send(ask.Rename(1, path + b"/\xff", b"/nothing", 0))
        failed = await client.receive_kind(Failed)
        name = os.fsdecode(path)
        assert failed.message == f"renaming '{name}/\\udcff' to '/nothing': No such file or directory"
        await client.send(ask.Look(3, b"/" + b"\n" * 4000 + b"\0", True, 0))
        assert len((await client.receive_kind(Failed)).message) == 4096
