"""Opening, reading and writing files.

What the kernel has of a file in its page cache it may keep over opens as long as the file's version is the same. Where
the content is here already it is put there before the open is answered, which saves a request. That must never wait for
a page that the kernel has locked, for it would be us whom the page's owner waits for: so it is done only while nobody
has the file open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

import attrs
import pyfuse3

from mirrord_trace.remote_files import MAX_PIECE, RemoteHandle
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.creations import NewMode
from mirrord_trace.tree.fuse.opened import OpenFile, OpenFiles, open_at_agent
from mirrord_trace.tree.fuse.reading import Memory
from mirrord_trace.tree.fuse.serving import SMALL_FILE_BYTES, Serving, failure
from mirrord_trace.tree.fuse.unnamed import Unnamed
from mirrord_trace.tree.inodes import UNKNOWN_VERSION, Inode
from mirrord_trace.tree.known import Fact, is_settled, version_of


@attrs.define(eq=False)
class Contents:
    """Answers requests that are about what files contain."""

    serving: Serving
    open_files: OpenFiles
    unnamed: Unnamed
    on_open: Callable[[], None]
    """Called before each file is opened."""
    on_content_used: Callable[[], None]
    """Called when a file is opened whose content is here already."""
    _memory: Memory = attrs.field(factory=Memory)

    async def open(self, number: int, flags: int) -> pyfuse3.FileInfo:
        """An open of a file that exists."""
        serving = self.serving
        inode = serving.inodes[number]
        if not inode.names and (held := self.open_files.handle_of(inode)) is not None:
            return await self._open_again(inode, held, flags)
        if flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY:
            fact = await self._known_to_be_readable(inode)
            if fact is not None and fact.status is not None:
                return self._answer(OpenFile(serving, self._memory, inode, flags, fact.status, fact.content))
        else:
            serving.check_writable(inode.path())
        asked_s = serving.known.clock()
        if flags & os.O_TRUNC:
            inode.writes += 1
        handle = await open_at_agent(serving, inode, flags)
        if flags & os.O_TRUNC:
            inode.writes += 1
            serving.replace(inode, handle.status, asked_s)
        else:
            serving.learn(inode, handle.status, asked_s)
        file = self._opened(inode, flags, handle)
        await self._recognise_streams(file, handle)
        return self._answer(file)

    async def _open_again(self, inode: Inode, held: RemoteHandle, flags: int) -> pyfuse3.FileInfo:
        """An open of a file that is open and has no name, by a link of /proc."""
        is_to_change = flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY
        if is_to_change and not self.open_files.is_written(inode):
            raise failure(errno.EROFS)
        inode.writes += is_to_change
        handle = await held.open_again(flags)
        inode.writes += is_to_change
        return self._answer(self._opened(inode, flags, handle))

    async def _known_to_be_readable(self, inode: Inode) -> Fact | None:
        """What proves that a file may be opened for reading and what is in it; the agent is asked for a small one."""
        fact = self.serving.fresh(inode)
        if fact is None or _is_proof(inode, fact):
            return fact
        if fact.status is None or fact.status.size > SMALL_FILE_BYTES:
            return None
        fact = await self.serving.look_at(inode.path(), content_limit=SMALL_FILE_BYTES)
        if fact.status is None or not self.serving.is_at(inode, fact.status):
            raise failure(errno.ESTALE)
        if fact.content_errno:
            raise failure(fact.content_errno)
        return fact if _is_proof(inode, fact) else None

    async def create(
        self, parent: int, name: bytes, new: NewMode, flags: int, *, may_get_a_name: bool | None
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """An open of a file that the kernel believes absent; without a name where it is said whether it may get one."""
        serving = self.serving
        directory = serving.inodes[parent]
        path = directory.path() + b"/" + name
        serving.check_writable(path)
        if may_get_a_name is not None:
            inode, handle = await self.unnamed.make(directory, name, new, flags, may_get_a_name=may_get_a_name)
            return self._answer(self._opened(inode, flags, handle)), serving.unnamed_entry(inode, handle.status)
        asked_s = serving.known.clock()
        try:
            kept = flags & (os.O_ACCMODE | os.O_APPEND | os.O_EXCL | os.O_TRUNC | os.O_SYNC | os.O_NONBLOCK)
            handle = await serving.files.open(path, kept | os.O_CREAT | os.O_NOFOLLOW, stat.S_IMODE(new.mode), new.mask)
        except OSError as error:
            # A link that was made meanwhile is to be followed: the kernel looks once more.
            raise failure(errno.ESTALE) if error.errno == errno.ELOOP else error from error
        entry = serving.entry(directory, name, handle.status, LIFETIME_S)
        serving.known.replace(directory.path(), name, handle.status, asked_s)
        serving.forget(directory)
        return self._answer(self._opened(serving.inodes[entry.st_ino], flags, handle)), entry

    async def read(self, number: int, offset: int, length: int) -> bytes | memoryview:
        """Part of a file."""
        return await self.open_files[number].read(offset, length)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Writes through to the pod; returns how much was written. Raises OSError if that is nothing."""
        file = self.open_files[number]
        handle = await file.remote()
        file.inode.writes += 1
        written = 0
        try:
            while written < len(data):
                amount = await handle.write(offset + written, memoryview(data)[written : written + MAX_PIECE])
                if not amount:
                    break
                written += amount
        except OSError:
            if not written:
                raise
        finally:
            file.inode.writes += 1
            file.inode.pages = UNKNOWN_VERSION
            self.serving.forget(file.inode)
        return written

    async def synchronise(self, number: int, *, data_only: bool) -> None:
        """fsync(2)."""
        file = self.open_files[number]
        if file.handle is not None:
            await file.handle.sync(data_only)

    def release(self, number: int) -> None:
        """The last descriptor is closed."""
        self.open_files.remove(number)

    def _opened(self, inode: Inode, flags: int, handle: RemoteHandle) -> OpenFile:
        return OpenFile(self.serving, self._memory, inode, flags, handle.status, None, not handle.seekable, handle)

    async def _recognise_streams(self, file: OpenFile, handle: RemoteHandle) -> None:
        """A file of size 0 may have content all the same, as in /proc: then its size says nothing."""
        if file.status.size == 0 and not file.is_written and not file.is_direct:
            file.is_direct = bool(await handle.read(0, 1))

    def _answer(self, file: OpenFile) -> pyfuse3.FileInfo:
        """What the kernel is told of an open file."""
        inode, content = file.inode, file.content
        version = version_of(file.status)
        is_untouched = inode.pages is None and not self.open_files.of(inode)
        may_keep = inode.pages is None or (inode.pages == version and is_settled(file.status))
        self.on_open()
        number = self.open_files.add(file)
        if file.is_direct:
            is_stream = file.handle is not None and not file.handle.seekable
            return pyfuse3.FileInfo(fh=number, direct_io=True, nonseekable=is_stream)
        if content is not None:
            self.on_content_used()
            with contextlib.suppress(FileNotFoundError):  # it has no name any more
                self.serving.siblings.read(inode.path())
        if content and is_untouched:
            _store(inode.number, content)
        file.begin()
        inode.pages = version
        return pyfuse3.FileInfo(fh=number, keep_cache=may_keep)


def _store(number: int, content: bytes) -> None:
    """Puts a whole file into the kernel's page cache."""
    with contextlib.suppress(OSError):  # then the kernel asks
        pyfuse3.notify_store(number, 0, content)


def _is_proof(inode: Inode, fact: Fact) -> bool:
    """Whether what is known of a file shows that it may be read, and its content is here or in the kernel."""
    status = fact.status
    if status is None or not stat.S_ISREG(status.mode):
        return False
    if fact.content is not None:
        return len(fact.content) == status.size
    return inode.pages == version_of(status) and is_settled(status)
