"""Looking ahead in directories whose entries are looked at, or read, one after the other.

Programs that know the names take each file by itself: a version control system, a build, a search, a language's
imports. Each costs a round trip, which is much where the pod is far away, while a listing brings all of a directory in
two, and many small files can be asked for at once. So who finds a few entries of a directory in a short time that were
not known has it listed, besides what he asks for; and who reads a few small files has their siblings brought, some
hundred at a time. Nobody waits for that. A directory for which it does not help is left alone for a while: one that is
too large to be listed in the time, or whose files were brought for nothing. Names that are not there do not count: no
listing tells of them.

The kernel is not asked, although it would then know the entries, too: who watches a directory (inotify(7)) would hear
of it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import stat
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

import attrs
import trio

from mirrord_trace.remote_files import Entry, Status
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.known import Fact, Known, split

_FINDS: Final = 8
"""So many within the lifetime of what is known are a habit."""
_READS: Final = 4
"""So many, of files that were not brought, are a habit."""
_ENTRIES_AT_MOST: Final = 5_000
_DIRECTORIES_AT_MOST: Final = 1024
_ORDERS_AT_MOST: Final = 16
_LEFT_ALONE_S: Final = 60.0
UNASKED_FILE_BYTES: Final = 16 << 10
"""A file that nobody has asked for comes along if it is not longer."""
_BROUGHT_AT_MOST: Final = 256
_BROUGHT_BYTES_AT_MOST: Final = 1 << 20
_AT_ONCE: Final = 8
_USED_SHARE: Final = 4
"""One in so many of what was brought must have been used for more to be brought."""
_NEAR: Final = 4
"""Who skips no more than so many still goes by an order."""
LIVE: Final = (b"/proc/", b"/sys/", b"/dev/")
"""Where reading a file may have effects: nothing is read there that nobody asked for."""


@attrs.define(eq=False)
class _Directory:
    found_s: list[float] = attrs.field(factory=list)
    """When entries were found that were not known."""
    is_being_listed: bool = False
    listed_s: float = -math.inf
    left_alone_until_s: float = -math.inf
    read_s: list[float] = attrs.field(factory=list)
    """When files were read that were not brought."""
    last_read: deque[bytes] = attrs.field(factory=lambda: deque(maxlen=_READS))
    """Names of files, in the order in which they were read."""
    is_being_brought: bool = False
    brought: set[bytes] = attrs.field(factory=set)
    """Names of files that were brought last and not read yet."""
    brought_count: int = 0
    """How many that were when they came."""
    has_more: bool = False
    """Whether there were more that could have been brought."""
    not_brought_until_s: float = -math.inf


@attrs.define(eq=False)
class Siblings:
    """Counts what was found, and read, in each directory without being known before."""

    entries_of: Callable[[bytes], AsyncGenerator[tuple[Entry, ...], None]]
    """Has the agent list a directory."""
    known: Known
    nursery: trio.Nursery
    look: Callable[[bytes, int], Awaitable[object]]
    """Has the agent tell of a path, with content up to a length, and takes it in. May raise OSError."""
    has_pages: Callable[[Status], bool]
    """Whether the kernel has the content of a file already."""
    _directories: dict[bytes, _Directory] = attrs.field(factory=dict)
    _names: dict[bytes, list[bytes]] = attrs.field(factory=dict)
    """What directories contain, in the order in which they list it; those listed last."""

    def found(self, path: bytes) -> None:
        """Something was found of which nothing was known."""
        path, _ = split(path)
        directory = self._directory(path)
        now_s = self.known.clock()
        if directory.is_being_listed or now_s < directory.left_alone_until_s:
            return
        if now_s - directory.listed_s < LIFETIME_S:
            directory.left_alone_until_s = now_s + _LEFT_ALONE_S
            return
        if _is_habit(directory.found_s, now_s, _FINDS):
            directory.is_being_listed = True
            self.nursery.start_soon(self._list, path, directory)

    def read(self, path: bytes) -> None:
        """A small file is about to be read, whose content is here."""
        if path.startswith(LIVE):
            return
        path, name = split(path)
        directory = self._directory(path)
        was_brought = name in directory.brought
        directory.brought.discard(name)
        if name in directory.last_read:
            return  # the same file again says nothing of others
        directory.last_read.append(name)
        now_s = self.known.clock()
        if directory.is_being_brought or now_s < directory.not_brought_until_s:
            return
        is_used_up = _USED_SHARE * len(directory.brought) <= directory.brought_count
        if was_brought:
            goes_on = is_used_up and directory.has_more
        else:
            goes_on = _is_habit(directory.read_s, now_s, _READS)
        if goes_on:
            directory.is_being_brought = True
            self.nursery.start_soon(self._bring, path, directory)

    def _directory(self, path: bytes) -> _Directory:
        directory = self._directories.get(path)
        if directory is None:
            if len(self._directories) >= _DIRECTORIES_AT_MOST:
                self._directories.clear()
            directory = self._directories[path] = _Directory()
        return directory

    async def _list(self, path: bytes, directory: _Directory) -> None:
        names: list[bytes] = []
        with contextlib.suppress(OSError):  # it may be searched, but not listed
            names = await self._take(path)
        directory.is_being_listed = False
        directory.listed_s = self.known.clock()
        if len(names) in (0, _ENTRIES_AT_MOST):
            directory.left_alone_until_s = directory.listed_s + _LEFT_ALONE_S
        self._names.pop(path, None)
        self._names[path] = names
        if len(self._names) > _ORDERS_AT_MOST:
            del self._names[next(iter(self._names))]

    async def _take(self, path: bytes) -> list[bytes]:
        """Takes in what the agent lists, up to a limit; returns the names."""
        names: list[bytes] = []
        async with aclosing(self.entries_of(path or b"/")) as pieces:
            since_s = self.known.clock()
            async for piece in pieces:
                arrived_s = self.known.clock()
                for entry in piece:
                    if entry.status is not None:
                        self.known.put(path, entry.name, Fact(entry.status, 0, None, since_s))
                        names.append(entry.name)
                since_s = arrived_s  # the next piece was asked for then
                if len(names) >= _ENTRIES_AT_MOST:
                    return names[:_ENTRIES_AT_MOST]
        return names

    async def _bring(self, path: bytes, directory: _Directory) -> None:
        """Brings siblings of the files that were read last."""
        if (_USED_SHARE - 1) * directory.brought_count < _USED_SHARE * len(directory.brought):
            directory.not_brought_until_s = self.known.clock() + _LEFT_ALONE_S
            directory.brought.clear()
            directory.brought_count = 0
        else:
            names = self._worth_bringing(path, directory)
            is_old = directory.listed_s < self.known.clock() - LIFETIME_S
            if not names and is_old and not directory.is_being_listed:
                directory.is_being_listed = True
                await self._list(path, directory)
                names = self._worth_bringing(path, directory)
            if not names and not directory.is_being_listed:
                directory.not_brought_until_s = self.known.clock() + _LEFT_ALONE_S
            directory.brought |= set(names)
            directory.brought_count = len(directory.brought)
            remaining = iter(names)
            async with trio.open_nursery() as nursery:
                for _ in range(min(_AT_ONCE, len(names))):
                    nursery.start_soon(self._bring_each, path, remaining)
        directory.is_being_brought = False

    async def _bring_each(self, path: bytes, names: Iterator[bytes]) -> None:
        for name in names:
            with contextlib.suppress(OSError):  # whoever reads it will be told
                await self.look(b"%s/%s" % (path, name), UNASKED_FILE_BYTES)

    def _worth_bringing(self, path: bytes, directory: _Directory) -> list[bytes]:
        """Small files of a directory whose content is not here, as far as they are known; the next ones first."""
        found: list[bytes] = []
        length = 0
        directory.has_more = False
        for name in _in_order_of_use(self._names.get(path, []), directory.last_read):
            status = self._status_without_content(self.known.entry(path, name))
            if status is not None:
                length += status.size
                if length > _BROUGHT_BYTES_AT_MOST or len(found) >= _BROUGHT_AT_MOST:
                    directory.has_more = True
                    break
                found.append(name)
        return found

    def _status_without_content(self, fact: Fact | None) -> Status | None:
        if fact is None or fact.status is None or fact.content is not None or fact.content_errno:
            return None
        status = fact.status
        is_small = stat.S_ISREG(status.mode) and 0 < status.size <= UNASKED_FILE_BYTES
        return status if is_small and not self.has_pages(status) else None


def _in_order_of_use(names: list[bytes], last_read: Sequence[bytes]) -> list[bytes]:
    """Names, those first that will probably be read next: as the directory lists them, or backwards, or sorted."""
    orders = (names, names[::-1], sorted(names))
    steps = [_steps(order, last_read) for order in orders]
    best = orders[steps.index(max(steps))]
    place = best.index(last_read[-1]) + 1 if last_read and last_read[-1] in best else 0
    return best[place:] + best[:place]


def _steps(order: list[bytes], last_read: Sequence[bytes]) -> int:
    """How often a name was read soon behind the one that comes before it in an order."""
    wanted = set(last_read)
    places = {name: place for place, name in enumerate(order) if name in wanted}
    read = [places[name] for name in last_read if name in places]
    return sum(0 < after - before <= _NEAR for before, after in itertools.pairwise(read))


def _is_habit(times_s: list[float], now_s: float, count: int) -> bool:
    """Whether this makes `count` of them within the lifetime of what is known; then they count no more."""
    times_s.append(now_s)
    if len(times_s) < count:
        return False
    is_habit = now_s - times_s[0] < LIFETIME_S
    times_s.clear()
    return is_habit
