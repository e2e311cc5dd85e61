"""Looking ahead in directories whose entries are looked at one after the other.

Programs that know the names look at each file by itself: a version control system, a build, a language's imports. Each
costs a round trip, which is much where the pod is far away, while a listing brings all of a directory in two. So who
misses a few entries of a directory in a short time has it listed, besides what he asks for; nobody waits for that.
"""

from __future__ import annotations

from contextlib import aclosing

import attrs
import trio

from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.known import Fact, Known

_MISSES = 8
"""So many within the lifetime of what is known are a habit."""
_ENTRIES_AT_MOST = 20_000
_DIRECTORIES_AT_MOST = 1024


@attrs.define(eq=False)
class Siblings:
    """Counts what was missed in each directory."""

    files: RemoteFiles
    known: Known
    nursery: trio.Nursery
    _missed: dict[bytes, list[float]] = attrs.field(factory=dict)

    def missed(self, directory: bytes) -> None:
        """An entry of a directory (b"" for the root) was looked at of which nothing was known."""
        now_s = self.known.clock()
        times = self._missed.get(directory)
        if times is None:
            if len(self._missed) >= _DIRECTORIES_AT_MOST:
                self._missed.clear()
            times = self._missed[directory] = []
        times.append(now_s)
        if len(times) >= _MISSES:
            if now_s - times[0] < LIFETIME_S:
                self.nursery.start_soon(self._list, directory)
            times.clear()

    async def _list(self, directory: bytes) -> None:
        count = 0
        try:
            async with aclosing(self.files.list(directory or b"/")) as pieces:
                since_s = self.known.clock()
                async for piece in pieces:
                    arrived_s = self.known.clock()
                    for entry in piece:
                        if entry.status is not None:
                            self.known.put(directory, entry.name, Fact(entry.status, 0, None, since_s))
                    since_s = arrived_s  # the next piece was asked for then
                    count += len(piece)
                    if count >= _ENTRIES_AT_MOST:
                        break
        except OSError:
            return  # it may be searched, but not listed
