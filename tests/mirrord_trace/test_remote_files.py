"""Files read through an agent in this process: what hostile trees, files that change and files that wait make of it."""

import errno
import os
import pty
import resource
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from mirrord_agent.wire import encode, file_frames, frames, handshake
from mirrord_agent.wire.frames import Frame
from mirrord_trace.remote_files import MAX_PIECE, Entry, RemoteFiles, RemoteHandle, Status
from mirrord_trace.session import SessionLost, open_session
from mirrord_trace.session_requests import Request
from tests.mirrord_agent.support import SECRET, FrameClient, in_trio, session_with_agent, stream_pair
from tests.waiting import holds_within

RDONLY = os.O_RDONLY


def write(path: bytes, content: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(content)


@asynccontextmanager
async def remote_files() -> AsyncIterator[RemoteFiles]:
    """This process's own files, through an agent in it."""
    async with session_with_agent() as (session, _):
        yield session.files


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def expected(path: bytes) -> list[int]:
    found = os.lstat(path)
    return [found.st_mode, found.st_ino, found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns]


def told(status: Status | None) -> list[int]:
    assert status is not None
    return [status.mode, status.ino, status.nlink, status.uid, status.gid, status.size, status.mtime_ns]


async def read_all(handle: RemoteHandle) -> bytes:
    pieces = []
    offset = 0
    while piece := await handle.read(offset, MAX_PIECE):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


async def entries(files: RemoteFiles, path: bytes) -> dict[bytes, Status | None]:
    return {entry.name: entry.status async for piece in files.list(path) for entry in piece}


async def expect_errno(number: int, ask: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r"\w") as error:
        await ask()  # type: ignore[misc]
    assert error.value.errno == number


# Looking.


@in_trio
async def test_a_look_tells_each_step_and_brings_the_content(path: bytes) -> None:
    os.mkdir(path + b"/d")
    write(path + b"/d/file", b"content")
    os.symlink("d/file", path + b"/link")
    async with remote_files() as files:
        looked = await files.look(path + b"/link", follow=True, content_limit=7)
        link, directory, file = looked.visited[-3:]
        assert (link.path, link.target) == (path + b"/link", b"d/file")
        assert (directory.path, file.path) == (path + b"/d", path + b"/d/file")
        assert told(file.status) == expected(path + b"/d/file")
        assert looked.result == file
        assert looked.content == b"content"
        looked = await files.look(path + b"/link", follow=True, content_limit=6)
        assert (looked.content, looked.content_errno) == (None, errno.EFBIG)
        looked = await files.look(path + b"/d", follow=True, content_limit=6)
        assert (looked.content, looked.content_errno) == (None, 0)
        looked = await files.look(path + b"/nothing", follow=True, content_limit=6)
        assert looked.result.errno == errno.ENOENT
        assert looked.result.path == path + b"/nothing"


@in_trio
async def test_other_threads_ask_while_trio_asks_and_each_gets_its_own_answer(path: bytes) -> None:
    count = 500
    for number in range(count):
        write(path + b"/%d" % number, b"%d" % number)

    async with remote_files() as files, trio.open_nursery() as nursery:

        async def check(number: int, request: Request | None) -> None:
            name = path + b"/%d" % number
            looked = files.answered_look(request) if request else files.look(name, follow=True, content_limit=9)
            assert (await looked).content == b"%d" % number

        def ask_all() -> list[Request | None]:
            return [files.ask_ahead(path + b"/%d" % n, follow=True, content_limit=9) for n in range(count)]

        async def ask_in_thread() -> None:
            for number, request in enumerate(await trio.to_thread.run_sync(ask_all)):
                nursery.start_soon(check, number, request)

        first = await trio.to_thread.run_sync(lambda: files.ask_ahead(path + b"/7", follow=True, content_limit=9))
        assert first is not None
        await check(7, first)
        nursery.start_soon(ask_in_thread)
        nursery.start_soon(ask_in_thread)
        for number in range(count):
            await check(number, None)


@in_trio
async def test_what_was_asked_ahead_ends_with_the_session(path: bytes) -> None:
    async with stream_pair() as (ours, theirs):
        await theirs.send_all(b"".join(encode(handshake.Accepted(()).welcome(frames.Facts("", "", 1, 0)))))
        async with open_session(ours, SECRET) as session:
            request = await trio.to_thread.run_sync(lambda: session.files.ask_ahead(path, follow=True))
            assert request is not None
            await theirs.aclose()
            with pytest.raises(SessionLost):
                await session.files.answered_look(request)
            assert session.files.ask_ahead(path, follow=True) is None


@in_trio
async def test_the_longest_content_that_comes_along(path: bytes) -> None:
    content = os.urandom(256 << 10)
    write(path + b"/file", content)
    write(path + b"/more", content + b"x")
    async with remote_files() as files:
        assert (await files.look(path + b"/file", follow=True, content_limit=1 << 30)).content == content
        assert (await files.look(path + b"/more", follow=True, content_limit=1 << 30)).content_errno == errno.EFBIG


@in_trio
async def test_paths_that_cannot_be(path: bytes) -> None:
    async with remote_files() as files:
        asked: list[Callable[[bytes], object]] = [
            lambda it: files.look(it, follow=True),
            lambda it: files.open(it, RDONLY),
            lambda it: files.filesystem(it),
            lambda it: files.read_link(it),
            lambda it: files.make_directory(it, 0o700),
            lambda it: files.rename(it, path),
            lambda it: files.rename(path, it),
            lambda it: anext(files.list(it)),
        ]
        for ask in asked:
            await expect_errno(errno.ENAMETOOLONG, lambda ask=ask: ask(b"/" + b"n" * 4095))  # type: ignore[misc]
            await expect_errno(errno.EINVAL, lambda ask=ask: ask(path + b"/a\0b"))  # type: ignore[misc]
        await expect_errno(errno.EINVAL, lambda: files.get_attribute(path, b"user.a\0b"))
        await expect_errno(errno.ERANGE, lambda: files.get_attribute(path, b"user." + b"n" * 255))
        await expect_errno(errno.ENAMETOOLONG, lambda: files.make_link(b"t" * 4096, path + b"/link"))
        await expect_errno(errno.EINVAL, lambda: files.make_link(b"a\0b", path + b"/link"))


@in_trio
async def test_times_that_no_number_of_nanoseconds_tells(path: bytes) -> None:
    write(path + b"/file", b"x")
    for seconds in (-(1 << 31), 1 << 33, 15032385535):  # ext4: 1901, 2242, 2446
        os.utime(path + b"/file", (seconds, seconds))
        found = os.stat(path + b"/file").st_mtime_ns
        async with remote_files() as files:
            looked = await files.look(path + b"/file", follow=True, content_limit=1)
            assert looked.result.status is not None
            assert looked.result.status.mtime_ns == min(found, (1 << 63) - 1)
            assert (await entries(files, path))[b"file"] == looked.result.status


@in_trio
async def test_times_long_before_and_after_all_that_the_wire_tells(path: bytes) -> None:
    # A tmpfs keeps all 64 bits of seconds; what is on disk here may not.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = os.fsencode(folder) + b"/file"
        write(file, b"x")
        async with remote_files() as files:
            for seconds, told_ns in ((-(1 << 40), -1 << 63), (1 << 40, (1 << 63) - 1)):
                os.utime(file, (seconds, seconds))
                assert os.stat(file).st_mtime == seconds
                status = (await entries(files, os.fsencode(folder)))[b"file"]
                assert status is not None
                assert (status.atime_ns, status.mtime_ns) == (told_ns, told_ns)


# Reading.


@in_trio
async def test_ten_gigabytes_are_read_at_any_offset_without_being_fetched(path: bytes) -> None:
    size = 10 << 30
    file = os.open(path + b"/sparse", os.O_WRONLY | os.O_CREAT)
    for offset in (0, 3 << 30, (7 << 30) + 12345, size - 5):
        os.pwrite(file, b"here.", offset)
    os.close(file)
    async with remote_files() as files:
        handle = await files.open(path + b"/sparse", RDONLY)
        assert handle.seekable
        assert handle.status.size == size
        assert await handle.read(0, 7) == b"here.\0\0"
        assert await handle.read((3 << 30) - 2, 9) == b"\0\0here.\0\0"
        assert await handle.read((7 << 30) + 12345, 5) == b"here."
        assert await handle.read(size - 7, 100) == b"\0\0here."
        assert await handle.read(size, 100) == b""
        assert await handle.read(size + (1 << 40), 100) == b""
        assert len(await handle.read(5 << 30, 5 << 20)) == MAX_PIECE
        await expect_errno(errno.EINVAL, lambda: handle.read((1 << 63) - 1, 100))
        handle.close()


@in_trio
async def test_many_reads_are_under_way_at_once_and_each_gets_its_own(path: bytes) -> None:
    content = os.urandom(40 << 20)
    write(path + b"/file", content)
    async with remote_files() as files:
        handle = await files.open(path + b"/file", RDONLY)

        async def check(offset: int, length: int) -> None:
            assert await handle.read(offset, length) == content[offset : offset + length]

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(check, (number * 7919 * 4099) % len(content), (number * 104729) % MAX_PIECE)
        assert await read_all(handle) == content


@in_trio
async def test_a_file_that_changes_and_vanishes_while_it_is_open(path: bytes) -> None:
    file = path + b"/file"
    write(file, b"a" * 100)
    async with remote_files() as files:
        handle = await files.open(path + b"/file", RDONLY)
        assert await handle.read(50, 100) == b"a" * 50
        os.truncate(file, 110)
        assert await handle.read(50, 100) == b"a" * 50 + bytes(10)
        assert (await handle.status_now()).size == 110
        os.truncate(file, 60)
        assert await handle.read(50, 100) == b"a" * 10
        os.unlink(file)
        assert await handle.read(50, 100) == b"a" * 10
        assert (await handle.status_now()).nlink == 0
        await expect_errno(errno.ENOENT, lambda: files.open(path + b"/file", RDONLY))
        handle.close()
        handle.close()
        await expect_errno(errno.EBADF, lambda: handle.read(0, 1))


@in_trio
async def test_files_of_proc_have_no_size_and_are_read_all_the_same() -> None:
    async with remote_files() as files:
        handle = await files.open(b"/proc/%d/smaps" % os.getpid(), RDONLY)
        assert handle.status.size == 0
        content = await read_all(handle)
        assert len(content) > 5000, "more than the kernel gives at a time"
        assert content.startswith(content.splitlines()[0])
        assert await handle.read(100, 20) == content[100:120]
        environment = await files.read_whole(b"/proc/%d/environ" % os.getpid(), 1 << 20)
        assert environment.data == await trio.Path("/proc/self/environ").read_bytes()
        await expect_errno(errno.EFBIG, lambda: files.read_whole(b"/proc/%d/environ" % os.getpid(), 3))


@in_trio
async def test_room_for_answers_is_given_back_whatever_is_read(path: bytes) -> None:
    write(path + b"/file", bytes(MAX_PIECE))
    write(path + b"/empty")
    async with remote_files() as files:
        for name in (b"/proc/self/status", path + b"/empty", path + b"/file", path):
            handle = await files.open(name.replace(b"self", b"%d" % os.getpid()), RDONLY)
            for _ in range(100):
                with suppress(IsADirectoryError):
                    await handle.read(0, MAX_PIECE)
            handle.close()
        for _ in range(100):
            await files.look(path + b"/file", follow=True, content_limit=1 << 30)
            await entries(files, path)


@in_trio
async def test_what_waits_for_room_when_its_file_is_closed_is_still_of_that_file(path: bytes) -> None:
    """Otherwise it would be of the next one that gets the number."""
    for number in range(60):
        write(path + b"/%d" % number, b"%02d" % number * (MAX_PIECE // 2))
    async with remote_files() as files:

        async def check(number: int) -> None:
            handle = await files.open(path + b"/%d" % number, RDONLY)
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    assert await handle.read(0, MAX_PIECE) == b"%02d" % number * (MAX_PIECE // 2)

                for _ in range(4):
                    nursery.start_soon(read)
                for _ in range(2):  # tasks come in any order; after this each has had its turn
                    await trio.lowlevel.checkpoint()
                handle.close()

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(check, number)


@pytest.mark.parametrize(
    ("name", "flags", "number"),
    [
        (b"nothing", RDONLY, errno.ENOENT),
        (b"file/x", RDONLY, errno.ENOTDIR),
        (b"file", RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
        (b"link", RDONLY | os.O_NOFOLLOW, errno.ELOOP),
        (b"loop", RDONLY, errno.ELOOP),
        (b"directory", os.O_WRONLY, errno.EISDIR),
        (b"file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        (b"socket", RDONLY, errno.ENXIO),
        (b"fifo", os.O_WRONLY | os.O_NONBLOCK, errno.ENXIO),
    ],
)
def test_why_a_file_does_not_open(path: bytes, name: bytes, flags: int, number: int) -> None:
    @in_trio
    async def test() -> None:
        write(path + b"/file")
        os.mkdir(path + b"/directory")
        os.symlink("file", path + b"/link")
        os.symlink("loop", path + b"/loop")
        os.mkfifo(path + b"/fifo")
        os.mknod(path + b"/socket", 0o140600)
        async with remote_files() as files:
            await expect_errno(number, lambda: files.open(path + b"/" + name, flags))

    test()


# What waits.


@in_trio
async def test_a_fifo_is_waited_for_and_holds_up_nobody(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    write(path + b"/file", b"content")
    async with remote_files() as files, trio.open_nursery() as nursery:
        handles = [await files.open(path + b"/fifo", RDONLY) for _ in range(100)]
        handle = handles.pop()
        assert not handle.seekable
        for blocked in handles:
            nursery.start_soon(blocked.read, 0, MAX_PIECE)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(50):
            assert (await files.read_whole(path + b"/file", 100)).data == b"content"
        assert len(await entries(files, path)) == 2
        nursery.cancel_scope.cancel()
    async with remote_files() as files:
        handle = await files.open(path + b"/fifo", RDONLY)
        got: list[bytes] = []

        async def read() -> None:
            while piece := await handle.read(12345, 4):
                got.append(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            writer = os.open(path + b"/fifo", os.O_WRONLY)
            await trio.testing.wait_all_tasks_blocked()
            assert not got, "a writer that has written nothing is not the end"
            os.write(writer, b"one two")
            os.close(writer)
        assert b"".join(got) == b"one two"


@in_trio
async def test_a_read_that_is_cancelled_loses_nothing(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with remote_files() as files:
        handle = await files.open(path + b"/fifo", RDONLY)
        writer = os.open(path + b"/fifo", os.O_WRONLY)
        got = b""
        for number in range(60):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel(number: int = number, scope: trio.CancelScope = scope) -> None:
                        with trio.CancelScope(shield=True):
                            for _ in range(number % 12):
                                await trio.lowlevel.checkpoint()
                        os.write(writer, b"%02d" % number)
                        for _ in range(number % 7):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    got += await handle.read(0, 100)
                    nursery.cancel_scope.cancel()
        os.close(writer)
        while piece := await handle.read(0, 100):
            got += piece
        assert got == b"".join(b"%02d" % number for number in range(60))


@in_trio
async def test_who_does_not_wait_is_told_so(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with remote_files() as files:
        handle = await files.open(path + b"/fifo", RDONLY | os.O_NONBLOCK)
        assert await handle.read(0, 10) == b"", "nobody writes"
        writer = os.open(path + b"/fifo", os.O_WRONLY)
        await expect_errno(errno.EAGAIN, lambda: handle.read(0, 10))
        os.write(writer, b"x")
        assert await handle.read(0, 10) == b"x"
        os.close(writer)


def has_no_writer(reader: int) -> bool:
    """Whether nobody has the other end of an empty FIFO open."""
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


@in_trio
async def test_writing_to_a_fifo_waits_for_a_reader_and_for_room(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with remote_files() as files:
        with trio.move_on_after(0.1) as scope:
            await files.open(path + b"/fifo", os.O_WRONLY)
        assert scope.cancelled_caught
        opened: list[RemoteHandle] = []

        async def write() -> None:
            opened.append(await files.open(path + b"/fifo", os.O_WRONLY))
            assert await opened[0].write(0, b"x" * 300_000) == 300_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            reader = os.open(path + b"/fifo", os.O_RDONLY | os.O_NONBLOCK)
            length = 0
            while length < 300_000:
                await trio.lowlevel.wait_readable(reader)
                length += len(os.read(reader, 100_000))
        os.close(reader)
        await expect_errno(errno.EPIPE, lambda: opened[0].write(0, b"more"))
        # Whoever waited before and was cancelled has left no writer behind.
        opened[0].close()
        await files.filesystem(path)
        reader = os.open(path + b"/fifo", os.O_RDONLY | os.O_NONBLOCK)
        assert holds_within(5, lambda: has_no_writer(reader)), "the agent's threads close what is given up"
        os.close(reader)


@in_trio
async def test_a_terminal_is_read_line_by_line() -> None:
    here, there = pty.openpty()
    async with remote_files() as files:
        handle = await files.open(os.ttyname(there).encode(), os.O_RDWR)
        assert not handle.seekable
        os.write(here, b"hello\n")
        assert await handle.read(0, 100) == b"hello\n"
        with trio.move_on_after(0.05) as scope:
            await handle.read(0, 100)
        assert scope.cancelled_caught
        os.write(here, b"again\n")
        assert await handle.read(0, 100) == b"again\n"
    os.close(here)
    os.close(there)


# Listing.


@in_trio
async def test_a_listing_has_every_entry_with_its_status(path: bytes) -> None:
    names = [
        b"\xff\xfe",
        b"n" * 255,
        b"caf\xe9",
        b" ",
        b"\n",
        b"...",
        *(b"file-%03d" % number for number in range(300)),
    ]
    for name in names:
        write(path + b"/" + name)
    os.mkdir(path + b"/directory")
    os.symlink(b"nowhere", path + b"/link")
    os.mkfifo(path + b"/fifo")
    async with remote_files() as files:
        listed = await entries(files, path)
        assert sorted(listed) == sorted([*names, b"directory", b"link", b"fifo"])
        for name, status in listed.items():
            assert told(status) == expected(path + b"/" + name)
        os.mkdir(path + b"/directory/empty")
        assert await entries(files, path + b"/directory/empty") == {}
        await expect_errno(errno.ENOTDIR, lambda: entries(files, path + b"/fifo"))
        await expect_errno(errno.ENOENT, lambda: entries(files, path + b"/nothing"))


@in_trio
async def test_a_hundred_thousand_entries_come_in_pieces(path: bytes) -> None:
    directory = path + b"/many"
    os.mkdir(directory)
    target = path + b"/target"
    write(target)
    for number in range(100_000):
        os.symlink(b"x", b"%s/%06d" % (directory, number))
    async with remote_files() as files:
        seen: set[bytes] = set()
        most = 0
        async with aclosing(files.list(directory)) as pieces:
            async for piece in pieces:
                most = max(most, len(piece))
                seen |= {entry.name for entry in piece}
        assert len(seen) == 100_000
        assert most < 2000
        # Others are served between two pieces.
        async with aclosing(files.list(directory)) as pieces:
            await anext(pieces)
            assert (await files.filesystem(path)).namelen == 255
            await anext(pieces)


@in_trio
async def test_a_directory_that_changes_while_it_is_listed(path: bytes) -> None:
    for number in range(5000):
        write(path + b"/stays-%d" % number)
        write(path + b"/goes-%d" % number)
    async with remote_files() as files:
        seen: list[Entry] = []
        async with aclosing(files.list(path)) as pieces:
            async for piece in pieces:
                if not seen:
                    for number in range(5000):
                        os.unlink(path + b"/goes-%d" % number)
                        write(path + b"/comes-%d" % number)
                seen += piece
        names = [entry.name for entry in seen]
        assert len(names) == len(set(names))
        assert {name for name in names if name.startswith(b"stays")} == {b"stays-%d" % number for number in range(5000)}
        assert all(entry.status is not None for entry in seen if entry.name.startswith(b"stays"))


# What stays open.


def open_below(path: bytes) -> list[bytes]:
    """What this process, the agent among it, has open below a path."""
    found = []
    for number in os.listdir(b"/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(b"/proc/self/fd/" + number)
            if target.startswith(path):
                found.append(target)
    return found


async def until_closed(files: RemoteFiles, path: bytes) -> None:
    """What was told to be closed is; workers do that, so it is not there at once."""
    while open_below(path):
        await files.filesystem(b"/")


@in_trio
async def test_nothing_stays_open_at_the_agent(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    for number in range(2000):
        write(path + b"/file-%d" % number)
    async with remote_files() as files:
        (await files.open(path + b"/file-1", RDONLY)).close()
        await until_closed(files, path)
        async with aclosing(files.list(path)) as pieces:
            await anext(pieces)
        await until_closed(files, path)

        async def open_file() -> None:
            (await files.open(path + b"/file-1", RDONLY)).close()

        async def open_fifo() -> None:
            (await files.open(path + b"/fifo", os.O_WRONLY)).close()

        async def begin_listing() -> None:
            async with aclosing(files.list(path)) as pieces:
                await anext(pieces)

        for ticks in range(12):
            for ask in (open_file, open_fifo, begin_listing):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def cancel(ticks: int = ticks, scope: trio.CancelScope = scope) -> None:
                            for _ in range(ticks):
                                await trio.lowlevel.checkpoint()
                            scope.cancel()

                        nursery.start_soon(cancel)
                        await ask()
        await until_closed(files, path)
        handle = await files.open(path + b"/fifo", RDONLY)
        with trio.move_on_after(0.05):
            await handle.read(0, 10)
        kept = [await files.open(path + b"/file-%d" % number, RDONLY) for number in range(50)]
        assert len(open_below(path)) == 51
        assert all(handle.seekable for handle in kept)
    while open_below(path):  # workers close what the session had open
        await trio.lowlevel.checkpoint()


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
def test_handles_are_bounded_and_leave_descriptors_to_others(path: bytes) -> None:
    @in_trio
    async def test() -> None:
        write(path + b"/file", b"x")
        async with remote_files() as files:
            handles = []
            for _ in range(100):
                handles.append(await files.open(path + b"/file", RDONLY))  # noqa: PERF401
            await expect_errno(errno.EMFILE, lambda: files.open(path + b"/file", RDONLY))
            assert (await files.look(path + b"/file", follow=True, content_limit=1)).content == b"x"
            await expect_errno(errno.EMFILE, lambda: entries(files, path))
            handles.pop().close()
            (await files.open(path + b"/file", RDONLY)).close()

    test()


# What the target has mounted.


@in_trio
async def test_mounts_are_the_targets_own() -> None:
    async with remote_files() as files:
        before = await trio.Path("/proc/self/mountinfo").read_bytes()
        mounts = {mount.path: mount for mount in await files.mounts()}
        after = await trio.Path("/proc/self/mountinfo").read_bytes()
    assert mounts[b"/proc"].type == b"proc"
    assert mounts[b"/proc"].root == b"/"
    assert mounts[b"/proc"].is_directory
    assert b"/" in mounts
    stayed = {line.split()[4] for line in before.splitlines()} & {line.split()[4] for line in after.splitlines()}
    assert len(stayed) > 2
    assert stayed <= set(mounts)


# When the agent goes, or is none.


@in_trio
async def test_when_the_session_is_lost_everyone_is_told(path: bytes) -> None:
    os.mkfifo(path + b"/fifo")
    async with session_with_agent() as (session, served):
        files = session.files
        handle = await files.open(path + b"/fifo", RDONLY)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(SessionLost):
                    await handle.read(0, 1)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            served.scope.cancel()
        with pytest.raises(SessionLost):
            await files.look(path, follow=True)
        with pytest.raises(SessionLost):
            await handle.status_now()
        handle.close()


@pytest.mark.parametrize(
    "answer",
    [
        file_frames.Looked(1, None, 0, b"nonsense"),
        file_frames.Looked(1, None, 0, b""),
        file_frames.Looked(1, 500, 0, b"short"),
    ],
)
def test_an_agent_that_makes_no_sense_loses_the_session(answer: Frame) -> None:
    @in_trio
    async def test() -> None:
        async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:

            async def agent() -> None:
                client = FrameClient(theirs)
                await client.receive_kind(frames.Hello)
                await theirs.send_all(b"".join(encode(handshake.Accepted(()).welcome(frames.Facts("", "", 1, 0)))))
                await client.receive_kind(file_frames.Look)
                await theirs.send_all(b"".join(encode(answer)))
                await client.receive()

            nursery.start_soon(agent)
            async with open_session(ours, SECRET) as session:
                with pytest.raises(SessionLost, match="may not"):
                    await session.files.look(b"/", follow=True, content_limit=100)
                assert session.lost.is_set()
            nursery.cancel_scope.cancel()

    test()
