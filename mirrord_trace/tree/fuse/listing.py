"""Listing directories: entries with their attributes, so that whoever lists and then looks at each asks no more.

The agent sends a directory piece by piece. Each open directory has a task that takes the pieces, the next one when the
kernel wants more; what the kernel has gone past is dropped. An entry's position is its place in that order. Who goes
back far (seekdir(3), or rewinddir(3), after which the directory must be seen as it is then) has the listing begun anew.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing

import attrs
import pyfuse3
import trio

from mirrord_trace.remote_files import Entry
from mirrord_trace.tree.fuse.serving import Serving, entry_attributes
from mirrord_trace.tree.inodes import Inode
from mirrord_trace.tree.known import Fact

_DOTS = 2
"""Positions of "." and ".."."""
_KEPT_BEHIND = 1024
"""Entries that the kernel may ask for again: what did not fit into a task's buffer it asks for once more."""


@attrs.define(eq=False)
class _Listing:
    """One pass over a directory."""

    serving: Serving
    path: bytes
    """b"" for the root."""
    entries: list[Entry] = attrs.field(factory=list)
    first: int = 0
    """Place of the first of `entries` among all."""
    is_complete: bool = False
    error: OSError | None = None
    _wanted: int = 1
    _wants: trio.Event = attrs.field(factory=trio.Event)
    _got: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Takes the pieces from the agent, as far as they are wanted."""
        with self._scope:
            try:
                async with aclosing(self.serving.files.list(self.path or b"/")) as pieces:
                    await self._take(pieces)
                self.is_complete = True
            except OSError as error:
                self.error = error
        self._tell()

    async def _take(self, pieces: AsyncIterator[tuple[Entry, ...]]) -> None:
        known, clock = self.serving.known, self.serving.known.clock
        since_s = clock()
        async for piece in pieces:
            arrived_s = clock()
            for entry in piece:
                if entry.status is not None:
                    known.put(self.path, entry.name, Fact(entry.status, 0, None, since_s))
            since_s = arrived_s  # the next piece was asked for then
            self.entries.extend(piece)
            self._tell()
            while self.first + len(self.entries) >= self._wanted:
                self._wants = trio.Event()
                await self._wants.wait()

    def _tell(self) -> None:
        self._got.set()
        self._got = trio.Event()

    async def until_there(self, place: int) -> None:
        """Waits until an entry is there, or it is known that there are not so many. Raises OSError."""
        self._wanted = max(self._wanted, place + 1)
        self._wants.set()
        while self.first + len(self.entries) <= place and not self.is_complete:
            if self.error is not None:
                raise self.error
            await self._got.wait()

    def drop_before(self, place: int) -> None:
        """The kernel has gone past the entries before this one."""
        surplus = place - _KEPT_BEHIND - self.first
        if surplus > _KEPT_BEHIND:
            del self.entries[:surplus]
            self.first += surplus

    def close(self) -> None:
        """Nobody reads on."""
        self._scope.cancel()


@attrs.define(eq=False)
class _OpenDirectory:
    inode: Inode
    listing: _Listing
    is_begun: bool = False


@attrs.define(eq=False)
class Listings:
    """Answers requests that are about directories' entries."""

    serving: Serving
    _directories: dict[int, _OpenDirectory] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    async def open(self, number: int) -> int:
        """Opens a directory to be listed."""
        inode = self.serving.inodes[number]
        listing = self._begin(inode)
        try:
            await listing.until_there(0)
        except BaseException:
            listing.close()
            raise
        opened = next(self._numbers)
        self._directories[opened] = _OpenDirectory(inode, listing)
        return opened

    async def read(self, number: int, position: int, token: pyfuse3.ReaddirToken) -> None:
        """Entries from a position on, as many as fit."""
        directory = self._directories[number]
        place = max(0, position - _DOTS)
        if place < directory.listing.first or (position == 0 and directory.is_begun):
            directory.listing.close()
            directory.listing = self._begin(directory.inode)
        directory.is_begun = True
        if position >= _DOTS or self._show_dots(directory.inode, position, token):
            await self._show(directory, place, token)

    async def synchronise(self, number: int, *, data_only: bool) -> None:
        """fsync(2) of a directory."""
        inode = self._directories[number].inode
        if inode.remains is not None:
            return
        path = inode.path() or b"/"
        handle = await self.serving.files.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await handle.sync(data_only)
        finally:
            handle.close()

    def close(self, number: int) -> None:
        """The directory's last descriptor is closed."""
        self._directories.pop(number).listing.close()

    def _begin(self, inode: Inode) -> _Listing:
        if inode.remains is not None:
            return _Listing(self.serving, b"", is_complete=True)  # it may be opened, and the kernel says the rest
        listing = _Listing(self.serving, inode.path())
        self.serving.nursery.start_soon(listing.run)
        return listing

    def _show_dots(self, inode: Inode, position: int, token: pyfuse3.ReaddirToken) -> bool:
        """Whether both fitted in. The kernel makes nothing of them but what the task is told."""
        parent = inode.names[-1][0] if inode.names else inode
        for place, (name, of) in enumerate(((b".", inode), (b"..", parent))):
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = self.serving.shown_number(of)
            entry.st_mode = stat.S_IFDIR
            if place >= position and not pyfuse3.readdir_reply(token, name, entry, place + 1):
                return False
        return True

    async def _show(self, directory: _OpenDirectory, place: int, token: pyfuse3.ReaddirToken) -> None:
        listing = directory.listing
        await listing.until_there(place)
        listing.drop_before(place)
        for entry in itertools.islice(listing.entries, place - listing.first, None):
            place += 1
            if not self._show_entry(directory, entry, place + _DOTS, token):
                return

    def _show_entry(self, directory: _OpenDirectory, entry: Entry, position: int, token: pyfuse3.ReaddirToken) -> bool:
        """Whether it fitted in; then the kernel has been told of it."""
        serving, status = self.serving, entry.status
        path = directory.listing.path
        if path + b"/" + entry.name == serving.root:
            return True
        if status is None:
            # With a mode that is none the kernel shows the name and takes in nothing.
            unseen = pyfuse3.EntryAttributes()
            unseen.st_ino, unseen.st_mode = serving.inodes.number_apart(), 0
            return pyfuse3.readdir_reply(token, entry.name, unseen, position)
        fact = serving.known.last_entry(path, entry.name)
        lifetime_s = serving.known.remaining_s(fact) if fact is not None and fact.status is status else 0.0
        inode = serving.inodes.meet(directory.inode, entry.name, status)
        if pyfuse3.readdir_reply(token, entry.name, entry_attributes(inode.number, status, lifetime_s), position):
            inode.lookups += 1
            return True
        serving.inodes.drop_unknown(inode)
        return False
