"""Files changed through an agent as targets start it, and the same calls on this machine for comparison."""

import errno
import os
import stat
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from mirrord_trace.remote_files import MAX_PIECE, NOW, Change, RemoteFiles
from tests.mirrord_agent.real import session_with
from tests.mirrord_agent.support import in_trio

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return os.fsencode(tmp_path_factory.mktemp("changes"))


@asynccontextmanager
async def remote_files() -> AsyncIterator[RemoteFiles]:
    """The files of this process."""
    async with session_with(os.getpid()) as session:
        yield session.files


async def expect_errno(number: int, ask: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(OSError, match=r"\w") as error:
        await ask()
    assert error.value.errno == number


def write(path: bytes, content: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(content)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# Open files.


@in_trio
async def test_a_file_is_made_with_exactly_the_mode(path: bytes) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    async with remote_files() as files:
        for mode in (0o666, 0o7777, 0, 0o600):
            name = b"%s/%o" % (path, mode)
            handle = await files.open(name, flags, mode)
            assert stat.S_IMODE(handle.status.mode) == mode
            assert stat.S_IMODE(os.stat(name).st_mode) == mode
            assert await handle.write(0, b"content") == 7
            assert await handle.read(0, 100) == b"content"
            await expect_errno(errno.EEXIST, lambda name=name: files.open(name, flags, 0o600))  # type: ignore[misc]
            handle.close()
        handle = await files.open(path, os.O_RDWR | os.O_TMPFILE, 0o640)
        assert (handle.status.nlink, stat.S_IMODE(handle.status.mode)) == (0, 0o640)


@in_trio
async def test_a_mask_counts_unless_the_directory_says_what_is_inherited(path: bytes) -> None:
    # acl(5): version 2; owner, a group by number, group, mask, others with rwx each.
    entries = ((0x01, ~0), (0x04, ~0), (0x08, 12345), (0x10, ~0), (0x20, ~0))
    acl = struct.pack("=I", 2) + b"".join(struct.pack("=HHI", tag, 7, owner & 0xFFFF_FFFF) for tag, owner in entries)
    os.mkdir(path + b"/inherited")
    os.setxattr(path + b"/inherited", "system.posix_acl_default", acl)
    async with remote_files() as files:
        for directory, expected in ((path, 0o640), (path + b"/inherited", 0o666)):
            made = [
                (await files.open(directory + b"/file", os.O_WRONLY | os.O_CREAT, 0o666, 0o027)).status,
                (await files.open(directory, os.O_WRONLY | os.O_TMPFILE, 0o666, 0o027)).status,
                await files.make_directory(directory + b"/directory", 0o666, 0o027),
                await files.make_node(directory + b"/node", stat.S_IFIFO | 0o666, 0, 0o027),
            ]
            assert [stat.S_IMODE(status.mode) for status in made] == [expected] * 4


@in_trio
async def test_an_open_file_is_opened_again_and_gets_names(path: bytes) -> None:
    write(path + b"/removed", b"removed")
    async with remote_files() as files:
        unnamed = await files.open(path, os.O_RDWR | os.O_TMPFILE, 0o600)
        await unnamed.write(0, b"content")
        again = await unnamed.open_again(os.O_RDONLY)
        assert await again.read(0, 100) == b"content"
        await expect_errno(errno.EBADF, lambda: again.write(0, b"x"))
        assert (await again.give_name(path + b"/one")).nlink == 1
        assert (await unnamed.give_name(path + b"/two")).nlink == 2
        assert read(path + b"/two") == b"content"
        await expect_errno(errno.EEXIST, lambda: unnamed.give_name(path + b"/two"))
        await expect_errno(errno.ENOENT, lambda: unnamed.give_name(path + b"/nothing/x"))
        await expect_errno(errno.EEXIST, lambda: unnamed.give_name(b"/"))
        removed = await files.open(path + b"/removed", os.O_RDONLY)
        os.unlink(path + b"/removed")
        await expect_errno(errno.ENOENT, lambda: removed.give_name(path + b"/back"))
        assert await (await removed.open_again(os.O_RDWR)).write(0, b"R") == 1
        assert await removed.read(0, 100) == b"Removed"
        private = await files.open(path, os.O_RDWR | os.O_TMPFILE | os.O_EXCL, 0o600)
        await expect_errno(errno.ENOENT, lambda: private.give_name(path + b"/private"))


@in_trio
async def test_writing_at_offsets_and_at_the_end(path: bytes) -> None:
    write(path + b"/file", b"0123456789")
    async with remote_files() as files:
        handle = await files.open(path + b"/file", os.O_RDWR)
        assert await handle.write(3, memoryview(b"xyz")) == 3
        assert await handle.write(12, b"end") == 3
        assert read(path + b"/file") == b"012xyz6789\0\0end"
        await handle.sync(data_only=False)
        await handle.sync(data_only=True)
        appending = await files.open(path + b"/file", os.O_WRONLY | os.O_APPEND)
        assert await appending.write(0, b"!") == 1
        assert read(path + b"/file").endswith(b"end!")
        await expect_errno(errno.EBADF, lambda: appending.read(0, 1))
        reading = await files.open(path + b"/file", os.O_RDONLY)
        await expect_errno(errno.EBADF, lambda: reading.write(0, b"x"))
        (await files.open(path + b"/file", os.O_WRONLY | os.O_TRUNC)).close()
        assert read(path + b"/file") == b""
        assert (await reading.status_now()).size == 0


@in_trio
async def test_much_is_written_by_many_at_once(path: bytes) -> None:
    content = os.urandom(32 << 20)
    async with remote_files() as files:
        handle = await files.open(path + b"/file", os.O_WRONLY | os.O_CREAT, 0o600)

        async def put(offset: int) -> None:
            assert await handle.write(offset, memoryview(content)[offset:]) == MAX_PIECE

        async with trio.open_nursery() as nursery:
            for offset in range(0, len(content), MAX_PIECE):
                nursery.start_soon(put, offset)
        assert read(path + b"/file") == content


@in_trio
async def test_a_write_that_is_cancelled_leaves_the_session_whole(path: bytes) -> None:
    async with remote_files() as files:
        handle = await files.open(path + b"/file", os.O_RDWR | os.O_CREAT, 0o600)
        for ticks in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel(ticks: int = ticks, scope: trio.CancelScope = scope) -> None:
                        for _ in range(ticks):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    for _ in range(6):
                        nursery.start_soon(handle.write, 0, b"x" * MAX_PIECE)
        assert await handle.write(0, b"y" * MAX_PIECE) == MAX_PIECE
        assert await handle.read(0, MAX_PIECE) == b"y" * MAX_PIECE


@in_trio
async def test_an_open_file_is_changed(path: bytes) -> None:
    write(path + b"/file", b"0123456789")
    async with remote_files() as files:
        handle = await files.open(path + b"/file", os.O_RDWR)
        os.unlink(path + b"/file")
        status = await handle.set(Change(size=4, mode=0o4711, atime_ns=5, mtime_ns=10**18 + 7))
        assert (status.size, stat.S_IMODE(status.mode), status.nlink) == (4, 0o4711, 0)
        assert (status.atime_ns, status.mtime_ns) == (5, 10**18 + 7)
        before = time.time_ns()
        status = await handle.set(Change(mtime_ns=NOW))
        assert status.atime_ns == 5
        assert abs(status.mtime_ns - before) < 10**10
        assert await handle.set(Change()) == status
        reading = await files.open(path, os.O_RDONLY)
        await expect_errno(errno.EINVAL, lambda: reading.set(Change(size=1)))


# By path.


@in_trio
async def test_a_path_is_changed_and_no_link_followed(path: bytes) -> None:
    write(path + b"/file", b"0123456789")
    os.symlink("file", path + b"/link")
    async with remote_files() as files:
        status = await files.set(path + b"/file", Change(size=20, mode=0o640, atime_ns=-1, mtime_ns=-1_500_000_000))
        assert (status.size, stat.S_IMODE(status.mode)) == (20, 0o640)
        assert (status.atime_ns, status.mtime_ns) == (-1, -1_500_000_000)
        assert os.stat(path + b"/file").st_mtime_ns == -1_500_000_000
        told = await files.set(path + b"/link", Change(mtime_ns=7, uid=os.getuid(), gid=os.getgid()))
        assert told.mtime_ns == 7
        assert os.lstat(path + b"/link").st_mtime_ns == 7
        assert os.stat(path + b"/file").st_mtime_ns == -1_500_000_000
        await expect_errno(errno.EOPNOTSUPP, lambda: files.set(path + b"/link", Change(mode=0o600)))
        await expect_errno(errno.EINVAL, lambda: files.set(path + b"/link", Change(size=1)))
        await expect_errno(errno.EISDIR, lambda: files.set(path, Change(size=1)))
        await expect_errno(errno.ENOENT, lambda: files.set(path + b"/nothing", Change(mode=0o600)))


@in_trio
async def test_entries_are_made_renamed_and_removed(path: bytes) -> None:
    async with remote_files() as files:
        directory = await files.make_directory(path + b"/d", 0o1753)
        assert directory.mode == stat.S_IFDIR | 0o1753
        fifo = await files.make_node(path + b"/d/fifo", stat.S_IFIFO | 0o622, 0)
        assert fifo.mode == stat.S_IFIFO | 0o622
        link = await files.make_link(b"\xff/nowhere", path + b"/d/link")
        assert stat.S_ISLNK(link.mode)
        assert await files.read_link(path + b"/d/link") == os.readlink(path + b"/d/link") == b"\xff/nowhere"
        again = await files.link(path + b"/d/link", path + b"/d/again")
        assert (again.ino, again.nlink) == (link.ino, 2)
        moved = await files.rename(path + b"/d/again", path + b"/moved")
        assert moved.ino == link.ino
        await files.rename(path + b"/moved", path + b"/d/fifo", RENAME_EXCHANGE)
        assert stat.S_ISFIFO(os.lstat(path + b"/moved").st_mode)
        await expect_errno(errno.EEXIST, lambda: files.rename(path + b"/moved", path + b"/d/link", RENAME_NOREPLACE))
        await expect_errno(errno.ENOTEMPTY, lambda: files.remove(path + b"/d", directory=True))
        await expect_errno(errno.EISDIR, lambda: files.remove(path + b"/d", directory=False))
        await expect_errno(errno.ENOTDIR, lambda: files.remove(path + b"/moved", directory=True))
        for name in (b"/d/fifo", b"/d/link", b"/moved"):
            await files.remove(path + name, directory=False)
        await files.remove(path + b"/d", directory=True)
        assert os.listdir(path) == []


@in_trio
async def test_what_is_there_is_not_made_and_what_is_not_is_not_removed(path: bytes) -> None:
    write(path + b"/file")
    file, nothing = path + b"/file", path + b"/nothing"
    async with remote_files() as files:
        cases: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (errno.EEXIST, lambda: files.make_directory(file, 0o700)),
            (errno.EEXIST, lambda: files.make_node(file, stat.S_IFREG | 0o600, 0)),
            (errno.EEXIST, lambda: files.make_link(b"x", file)),
            (errno.EEXIST, lambda: files.link(file, file)),
            (errno.ENOENT, lambda: files.make_link(b"", nothing)),
            (errno.ENOENT, lambda: files.make_directory(nothing + b"/x", 0o700)),
            (errno.ENOENT, lambda: files.link(nothing, file)),
            (errno.ENOENT, lambda: files.rename(nothing, file)),
            (errno.ENOENT, lambda: files.remove(nothing, directory=False)),
            (errno.ENOENT, lambda: files.read_link(nothing)),
            (errno.EINVAL, lambda: files.read_link(file)),
            (errno.ENOTDIR, lambda: files.make_directory(file + b"/x", 0o700)),
            (errno.EPERM, lambda: files.link(path, path + b"/directory")),
            (errno.EINVAL, lambda: files.rename(path, path + b"/below")),
            (errno.EINVAL, lambda: files.rename(file, nothing, 1 << 30)),
            (errno.EXDEV, lambda: files.rename(file, b"/proc/nothing")),
            (errno.EXDEV, lambda: files.link(file, b"/dev/shm/nothing")),
            (errno.EEXIST, lambda: files.make_directory(b"/", 0o700)),
            (errno.EEXIST, lambda: files.make_directory(path + b"/.", 0o700)),
            (errno.EBUSY, lambda: files.remove(b"/", directory=True)),
            (errno.EBUSY, lambda: files.remove(path + b"/..", directory=True)),
            (errno.EBUSY, lambda: files.rename(b"/", nothing)),
        ]
        for number, ask in cases:
            await expect_errno(number, ask)
        assert os.listdir(path) == [b"file"]


@in_trio
async def test_attributes(path: bytes) -> None:
    write(path + b"/file")
    os.symlink("file", path + b"/link")
    file = path + b"/file"
    async with remote_files() as files:
        assert not (await files.look(file, follow=False)).visited[-1].status.has_attributes  # type: ignore[union-attr]
        assert await files.list_attributes(file) == ()
        await expect_errno(errno.ENODATA, lambda: files.get_attribute(file, b"user.a"))
        await files.set_attribute(file, b"user.a", b"\0value\xff")
        await files.set_attribute(file, b"user.long", b"x" * 3000)
        assert os.getxattr(file, "user.a") == b"\0value\xff"
        assert await files.get_attribute(file, b"user.long") == b"x" * 3000
        assert sorted(await files.list_attributes(file)) == [b"user.a", b"user.long"]
        status = (await files.look(file, follow=False)).result.status
        assert status is not None
        assert status.has_attributes
        await expect_errno(errno.EEXIST, lambda: files.set_attribute(file, b"user.a", b"", os.XATTR_CREATE))
        await expect_errno(errno.ENODATA, lambda: files.set_attribute(file, b"user.b", b"", os.XATTR_REPLACE))
        await expect_errno(errno.EPERM, lambda: files.set_attribute(path + b"/link", b"user.a", b""))
        await expect_errno(errno.EOPNOTSUPP, lambda: files.set_attribute(file, b"nonsense", b""))
        await expect_errno(errno.E2BIG, lambda: files.set_attribute(file, b"user.a", b"x" * 65537))
        await expect_errno(errno.EINVAL, lambda: files.set_attribute(file, b"user.a", b"", 0xFFFFFFFF))
        await files.remove_attribute(file, b"user.a")
        await expect_errno(errno.ENODATA, lambda: files.remove_attribute(file, b"user.a"))


@in_trio
async def test_a_filesystem_is_told_as_it_is(path: bytes) -> None:
    async with remote_files() as files:
        for where in (path, b"/proc", b"/dev/shm"):
            told, found = await files.filesystem(where), os.statvfs(where)
            assert (told.bsize, told.frsize, told.namelen) == (found.f_bsize, found.f_frsize, found.f_namemax)
            assert (told.blocks, told.files) == (found.f_blocks, found.f_files)
        assert (await files.filesystem(b"/proc")).type == 0x9FA0
        await expect_errno(errno.ENOENT, lambda: files.filesystem(path + b"/nothing"))


@in_trio
async def test_access_is_asked_of_the_kernel(path: bytes) -> None:
    write(path + b"/file")
    os.chmod(path + b"/file", 0o600)
    async with remote_files() as files:
        for mode in (os.F_OK, os.R_OK, os.R_OK | os.W_OK):
            await files.access(path + b"/file", mode)
        await expect_errno(errno.EACCES, lambda: files.access(path + b"/file", os.X_OK))
        await expect_errno(errno.EINVAL, lambda: files.access(path + b"/file", 0o10))
        await expect_errno(errno.ENOENT, lambda: files.access(path + b"/nothing", os.F_OK))
