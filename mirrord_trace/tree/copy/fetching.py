"""Fetches files that are too large to come with their status, piece by piece.

Several pieces are under way at a time, and of all files together no more than a few, so memory stays bounded whatever
is read. A file that several calls want is fetched once. Zeros are left out, so holes stay holes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_trace.remote_files import MAX_PIECE, RemoteFiles, RemoteHandle, Status
from mirrord_trace.reporting import Reporter
from mirrord_trace.tree.copy.replica import Filling, Replica
from mirrord_trace.tree.known import version_of

_PIECES: Final = 16
"""Pieces of up to 1 MiB that are under way or being written, of all files."""
_PIECES_OF_ONE: Final = 8
_ENDLESS_BYTES: Final = 64 << 20
"""Where a file ends whose size says nothing (it is 0, as in /proc) and that does not end by itself."""
_FIRST_WORD_S: Final = 2.0
_NEXT_WORD_S: Final = 10.0


@attrs.define(eq=False)
class Fetching:
    """Brings whole files into a replica."""

    _files: RemoteFiles
    _replica: Replica
    _tell: Reporter
    _clock: Callable[[], float]
    _under_way: dict[bytes, trio.Event] = attrs.field(factory=dict)
    _pieces: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(_PIECES))
    _refused: set[bytes] = attrs.field(factory=set)
    """Files that the user was told there is no room for."""

    async def fetch(self, path: bytes, status: Status, since_s: float) -> None:
        """Returns when the regular file at a real path is here, as it was at `since_s`, with this status, or later.

        Raises OSError: the pod's, this machine's, ENXIO if it is no regular file.
        """
        while (done := self._under_way.get(path)) is not None:
            await done.wait()
            held = self._replica.held(path)
            if self._replica.is_whole(path, status) or (held is not None and held.is_whole and held.since_s >= since_s):
                return
        done = self._under_way[path] = trio.Event()
        try:
            # Other tasks may learn of another version meanwhile, but at the last attempt that is no hindrance.
            for in_place in (True, True, False):
                if await self._fetch(path, in_place=in_place):
                    return
        finally:
            del self._under_way[path]
            done.set()

    async def _fetch(self, path: bytes, *, in_place: bool) -> bool:
        """Whether what was fetched stands there."""
        since_s = self._clock()
        handle = await self._files.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = handle.status
            if not stat.S_ISREG(status.mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), path)
            self._check_room(path, status)
            with self._replica.complaining():
                filling = self._replica.begin(path, status, since_s, in_place=in_place)
            try:
                length = await self._copy(handle, filling)
                is_same = version_of(await handle.status_now()) == version_of(status)
            except BaseException:
                self._replica.give_up(filling)
                raise
            with self._replica.complaining():
                stands = self._replica.finish(filling, status, length, is_sure=is_same)
                self._replica.settle()
            return stands
        finally:
            handle.close()

    async def _copy(self, handle: RemoteHandle, filling: Filling) -> int:
        """Writes the file's content; how long it was."""
        if not handle.status.size or not handle.seekable:
            return await self._copy_to_end(handle, filling.descriptor)
        progress = _Progress(os.fsdecode(filling.path), handle.status.size, self._tell, self._clock)
        length = await self._copy_to_size(handle, filling.descriptor, progress)
        progress.end()
        return length

    def _check_room(self, path: bytes, status: Status) -> None:
        needed = min(status.size, 512 * status.blocks)
        free = self._replica.free_bytes()
        if needed <= free:
            return
        if path not in self._refused:
            self._refused.add(path)
            self._tell.warning(
                f"no room for {os.fsdecode(path)} ({_amount(needed)}; {_amount(free)} are free in "
                f"{os.fsdecode(self._replica.root)}): opening it fails (ENOSPC)\n"
                "Without FUSE files are copied whole before they are read. Set TMPDIR to where there is room."
            )
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    async def _copy_to_size(self, handle: RemoteHandle, descriptor: int, progress: _Progress) -> int:
        """All up to the size that the file had; how much there was."""
        size = handle.status.size
        ends = [size]
        failed: list[OSError] = []
        offsets = iter(range(0, size, MAX_PIECE))

        async def copy_pieces() -> None:
            for offset in offsets:
                wanted = min(MAX_PIECE, size - offset)
                try:
                    async with self._pieces:
                        data = await handle.read(offset, wanted)
                        await self._write(descriptor, data, offset)
                except OSError as error:
                    failed.append(error)
                    nursery.cancel_scope.cancel()
                    return
                progress.advance(len(data))
                if len(data) < wanted:
                    ends.append(offset + len(data))
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(_PIECES_OF_ONE):
                nursery.start_soon(copy_pieces)
        if failed:
            raise failed[0]
        return min(ends)

    async def _copy_to_end(self, handle: RemoteHandle, descriptor: int) -> int:
        length = 0
        async with self._pieces:
            while length < _ENDLESS_BYTES and (data := await handle.read(length, MAX_PIECE)):
                await self._write(descriptor, data, length)
                length += len(data)
        return length

    async def _write(self, descriptor: int, data: bytes, offset: int) -> None:
        with self._replica.complaining():
            await trio.to_thread.run_sync(_write_all, descriptor, data, offset)


@attrs.define
class _Progress:
    """Tells the user what a call waits for, if it takes long."""

    _path: str
    _size: int
    _tell: Reporter
    _clock: Callable[[], float]
    _done: int = 0
    _next_word_s: float = attrs.field(init=False)
    _has_told: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._next_word_s = self._clock() + _FIRST_WORD_S

    def advance(self, amount: int) -> None:
        self._done += amount
        if self._clock() < self._next_word_s:
            return
        self._next_word_s = self._clock() + _NEXT_WORD_S
        why = "" if self._has_told else ": without FUSE files are copied whole before they are read"
        self._has_told = True
        self._tell.note(f"copying {self._path}, {_amount(self._done)} of {_amount(self._size)}{why}")

    def end(self) -> None:
        if self._has_told:
            self._tell.note(f"copied {self._path}, {_amount(self._done)}")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    if data == bytes(len(data)):
        return
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _amount(size: int) -> str:
    """Bytes for people, in powers of ten."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
