"""Files that are open, and what their reads are answered from.

Most files are small, and read once. What came along with the walk that looked for such a file is all that its reader
needs, so it is opened without asking the agent, and so is one whose pages the kernel still has. One that stays open for
longer than `_PATIENCE_S` gets a handle at the agent after all, so that it remains the file that was opened, whatever
becomes of its name.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import deque

import attrs
import trio

from mirrord_trace.remote_files import RemoteHandle, Status
from mirrord_trace.tree.fuse.reading import Memory, ReadAhead, State
from mirrord_trace.tree.fuse.serving import Serving, failure
from mirrord_trace.tree.inodes import Inode
from mirrord_trace.tree.known import version_of

_PATIENCE_S = 0.05
_KEPT_FLAGS = (
    os.O_ACCMODE
    | os.O_APPEND
    | os.O_CREAT
    | os.O_EXCL
    | os.O_TRUNC
    | os.O_DIRECTORY
    | os.O_NONBLOCK
    | os.O_SYNC
    | os.O_NOATIME
)


@attrs.define(eq=False)
class OpenFile:
    """A regular file that was opened."""

    serving: Serving
    memory: Memory
    inode: Inode
    flags: int
    status: Status
    """When it was opened."""
    content: bytes | None = None
    """All of it, when it was opened, if that is known."""
    is_direct: bool = False
    """Its size says nothing: the kernel asks for each read, and what is there then is the answer."""
    handle: RemoteHandle | None = None
    """The agent's, if there is one."""
    _opening: trio.Lock = attrs.field(factory=trio.Lock)
    _opened: State = attrs.field(init=False)
    """What it was when it was opened."""
    _ahead: ReadAhead | None = None
    _is_closed: bool = False

    def __attrs_post_init__(self) -> None:
        self._opened = State(version_of(self.status), self.inode.writes)

    @property
    def is_written(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    async def remote(self) -> RemoteHandle:
        """The agent's handle; opened if there is none. Raises OSError; ESTALE when the file is no longer there."""
        if self.handle is None:
            async with self._opening:
                if self.handle is None:
                    handle = await open_at_agent(self.serving, self.inode, self.flags & ~os.O_TRUNC)
                    if self._is_closed:
                        handle.close()
                    self.handle = handle
        return self.handle

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """What FUSE's read gets: shorter than `length` only at the end. Raises OSError."""
        if self.content is not None and (self._state() == self._opened or not await self._is_reached()):
            return memoryview(self.content)[offset : offset + length]
        self.content = None
        handle = await self.remote()
        if self.is_direct:
            return await handle.read(offset, length)
        if self._ahead is None:
            self._ahead = ReadAhead(handle, self.serving.nursery, self.memory, self._state)
        return await self._ahead.read(offset, length)

    def begin(self) -> None:
        """Asks for what will probably be read first."""
        if self.handle is not None and not self.is_written:
            self._ahead = ReadAhead(self.handle, self.serving.nursery, self.memory, self._state)
            self._ahead.begin()

    def close(self) -> None:
        """Nobody has it open any more."""
        self._is_closed = True
        if self._ahead is not None:
            self._ahead.close()
        if self.handle is not None:
            self.handle.close()

    def _state(self) -> State:
        """What was last heard of the file, however old that is."""
        for path in self.inode.paths():
            fact = self.serving.known.last_fact(path)
            if fact is not None and fact.status is not None and self.inode.is_file(fact.status):
                return State(version_of(fact.status), self.inode.writes)
        return State(self._opened.version, self.inode.writes)

    async def _is_reached(self) -> bool:
        """Whether the agent has, or can still open, the file."""
        try:
            await self.remote()
        except OSError as error:
            if error.errno == errno.ESTALE:
                return False
            raise
        return True


async def open_at_agent(serving: Serving, inode: Inode, flags: int) -> RemoteHandle:
    """Opens an inode where it was met last. Raises OSError: ESTALE when something else is there."""
    path = inode.path()
    try:
        handle = await serving.files.open(path, flags & _KEPT_FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        serving.known.forget(path)
        raise failure(errno.ESTALE) from error
    if not inode.is_file(handle.status):
        handle.close()
        serving.known.forget(path)
        raise failure(errno.ESTALE)
    return handle


@attrs.define(eq=False)
class OpenFiles:
    """All open files, by the numbers that the kernel has for them."""

    _by_number: dict[int, OpenFile] = attrs.field(factory=dict)
    _by_inode: dict[Inode, list[OpenFile]] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _new: deque[tuple[float, OpenFile]] = attrs.field(factory=deque)
    """Those without a handle, and when they were opened."""
    _opened: trio.Event = attrs.field(factory=trio.Event)

    def __getitem__(self, number: int) -> OpenFile:
        return self._by_number[number]

    def add(self, file: OpenFile) -> int:
        """A file was opened; returns its number."""
        number = next(self._numbers)
        self._by_number[number] = file
        self._by_inode.setdefault(file.inode, []).append(file)
        if file.handle is None:
            self._new.append((trio.current_time(), file))
            self._opened.set()
        return number

    def remove(self, number: int) -> None:
        """A file was closed."""
        file = self._by_number.pop(number)
        others = self._by_inode[file.inode]
        others.remove(file)
        if not others:
            del self._by_inode[file.inode]
        file.close()

    def close(self) -> None:
        """Closes all that are still open: nobody asks any more."""
        for number in list(self._by_number):
            self.remove(number)

    def of(self, inode: Inode) -> tuple[OpenFile, ...]:
        """The open files of an inode."""
        return tuple(self._by_inode.get(inode, ()))

    def handle_of(self, inode: Inode) -> RemoteHandle | None:
        """A handle of the agent's for an inode, of whoever has it open."""
        return next((file.handle for file in self.of(inode) if file.handle is not None), None)

    def is_written(self, inode: Inode) -> bool:
        """Whether an inode is open for writing."""
        return any(file.is_written for file in self._by_inode.get(inode, ()))

    async def status_of(self, inode: Inode) -> Status | None:
        """The status of a file that has no name any more, while it is open."""
        handle = self.handle_of(inode)
        if handle is not None:
            return await handle.status_now()
        files = self.of(inode)
        return files[0].status if files else None

    async def hold(self, inode: Inode) -> None:
        """Makes the agent hold an inode's open files, whose name is about to go."""
        for file in self.of(inode):
            await file.remote()

    async def hold_those_that_stay(self, nursery: trio.Nursery) -> None:
        """Gives a handle to each file that stays open."""
        while True:
            if not self._new:
                self._opened = trio.Event()
                await self._opened.wait()
            await trio.sleep(_PATIENCE_S)
            due_s = trio.current_time() - _PATIENCE_S
            while self._new and self._new[0][0] <= due_s:
                _, file = self._new.popleft()
                if file.handle is None and file in self._by_inode.get(file.inode, ()):
                    nursery.start_soon(_hold, file)


async def _hold(file: OpenFile) -> None:
    try:
        await file.remote()
    except OSError:
        return  # whoever still reads it will be told
