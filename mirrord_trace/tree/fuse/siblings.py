"""Looking ahead in directories whose entries are looked at one after the other.

Programs that know the names look at each file by itself: a version control system, a build, a language's imports. Each
costs a round trip, which is much where the pod is far away, while a listing brings all of a directory in two. So who
finds a few entries of a directory in a short time that were not known has it listed, besides what he asks for; nobody
waits for that. A directory for which it does not help, because it is too large to be listed in the time, is left alone
for a while. Names that are not there do not count: no listing tells of them.
"""

from __future__ import annotations

import math
from contextlib import aclosing

import attrs
import trio

from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.known import Fact, Known, split

_FINDS = 8
"""So many within the lifetime of what is known are a habit."""
_ENTRIES_AT_MOST = 5_000
_DIRECTORIES_AT_MOST = 1024
_LEFT_ALONE_S = 60.0


@attrs.define
class _Directory:
    found_s: list[float] = attrs.field(factory=list)
    """When entries were found that were not known."""
    is_being_listed: bool = False
    listed_s: float = -math.inf
    left_alone_until_s: float = -math.inf


@attrs.define(eq=False)
class Siblings:
    """Counts what was found in each directory without being known before."""

    files: RemoteFiles
    known: Known
    nursery: trio.Nursery
    _directories: dict[bytes, _Directory] = attrs.field(factory=dict)

    def found(self, path: bytes) -> None:
        """Something was found of which nothing was known."""
        path, _ = split(path)
        directory = self._directories.get(path)
        if directory is None:
            if len(self._directories) >= _DIRECTORIES_AT_MOST:
                self._directories.clear()
            directory = self._directories[path] = _Directory()
        now_s = self.known.clock()
        if directory.is_being_listed or now_s < directory.left_alone_until_s:
            return
        if now_s - directory.listed_s < LIFETIME_S:
            directory.left_alone_until_s = now_s + _LEFT_ALONE_S
            return
        directory.found_s.append(now_s)
        if len(directory.found_s) >= _FINDS:
            if now_s - directory.found_s[0] < LIFETIME_S:
                directory.is_being_listed = True
                self.nursery.start_soon(self._list, path, directory)
            directory.found_s.clear()

    async def _list(self, path: bytes, directory: _Directory) -> None:
        try:
            is_complete = await self._take(path)
        except OSError:
            is_complete = False  # it may be searched, but not listed
        directory.is_being_listed = False
        directory.listed_s = self.known.clock()
        if not is_complete:
            directory.left_alone_until_s = directory.listed_s + _LEFT_ALONE_S

    async def _take(self, path: bytes) -> bool:
        """Whether that was all of the directory."""
        count = 0
        async with aclosing(self.files.list(path or b"/")) as pieces:
            since_s = self.known.clock()
            async for piece in pieces:
                arrived_s = self.known.clock()
                for entry in piece:
                    if entry.status is not None:
                        self.known.put(path, entry.name, Fact(entry.status, 0, None, since_s))
                since_s = arrived_s  # the next piece was asked for then
                count += len(piece)
                if count >= _ENTRIES_AT_MOST:
                    return False
        return True
