"""Reading ahead of who reads a file from its beginning to its end.

The kernel reads ahead too, but asks for little at a time and for few pieces at once, and each takes a round trip. So
whoever reads on gets the file in pieces of 1 MiB, several of which are under way; who jumps about gets what he asks
for. Requests of one reader may come in any order, since the kernel sends several and two tasks of ours serve them.

Pieces count as pages in the kernel's cache do: until the file is known to have changed, or is changed from here. Before
it lets anybody read from its cache, and so before it asks us, the kernel asks for attributes older than a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import attrs
import trio

from mirrord_trace.remote_files import RemoteHandle
from mirrord_trace.tree.inodes import Version

PIECE_BYTES = 1 << 20
_AHEAD_AT_MOST = 8
"""Pieces under way or unread, of one file."""
_IN_SEQUENCE_BYTES = 128 << 10
"""Who has read so much without a jump reads on."""
_NEAR_BYTES = 2 << 20
"""How far from where the last request ended one still belongs to the same sequence."""
_ALL_AT_ONCE_BYTES = 256 << 10


class State(NamedTuple):
    """What tells a file's contents apart: its version in the pod, and how often it was changed from here."""

    version: Version
    writes: int

    @property
    def size(self) -> int:
        """How long it is, as far as is known."""
        return self.version[2]


@attrs.define(eq=False)
class Memory:
    """What may be held in sum that nobody has asked for yet."""

    free_bytes: int = 64 << 20
    _readers: dict[ReadAhead, None] = attrs.field(factory=dict)
    """Those who hold some, the one that has read last at the end."""

    def take(self, reader: ReadAhead, amount_bytes: int) -> bool:
        """Whether there is memory for a reader; others who have not read for longest lose theirs first."""
        self._readers.pop(reader, None)
        while self.free_bytes < amount_bytes and self._readers:
            next(iter(self._readers)).close()
        if self.free_bytes < amount_bytes:
            return False
        self.free_bytes -= amount_bytes
        self._readers[reader] = None
        return True

    def give(self, amount_bytes: int) -> None:
        """Gives back what was taken."""
        self.free_bytes += amount_bytes

    def leave(self, reader: ReadAhead) -> None:
        """A reader holds none any more."""
        self._readers.pop(reader, None)


@attrs.define(eq=False)
class _Piece:
    offset: int
    state: State
    taken_bytes: int
    data: bytes | None = None
    error: OSError | None = None
    done: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class ReadAhead:
    """The pieces of one open file."""

    handle: RemoteHandle
    nursery: trio.Nursery
    memory: Memory
    state: Callable[[], State]
    """What is known of the file by now."""
    _pieces: dict[int, _Piece] = attrs.field(factory=dict)
    _position: int = 0
    """Where the last request ended; of those in sequence the one that went farthest."""
    _streak_bytes: int = 0
    _ahead: int = 1

    def begin(self) -> None:
        """Sends for a file of medium size before anybody reads it."""
        if 0 < self.state().size <= _ALL_AT_ONCE_BYTES:
            self._fetch(0, taken_bytes=0)

    def close(self) -> None:
        """Gives up what nobody has asked for yet."""
        for index in list(self._pieces):
            self._drop(index)
        self.memory.leave(self)

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """At most `length` bytes from `offset` on, fewer only at the end. Raises OSError."""
        self._follow(offset, length)
        indexes = range(offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES + 1)
        state = self.state()
        are_there = [self._is_there(index, state) for index in indexes]
        if self._streak_bytes < _IN_SEQUENCE_BYTES and not all(are_there):
            return await self.handle.read(offset, length)
        for index, is_there in zip(indexes, are_there, strict=True):
            if not is_there:
                self._fetch(index, taken_bytes=0)
        wanted = [self._pieces[index] for index in indexes]
        self._fetch_ahead(indexes.stop, state)
        self._drop_what_was_read()
        parts = [await _part(piece, offset, length) for piece in wanted]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) < length and offset + len(data) < self.state().size:
            return await self.handle.read(offset, length)  # it has grown since
        return data

    def _follow(self, offset: int, length: int) -> None:
        """Takes note of where the reader is."""
        if abs(offset - self._position) <= _NEAR_BYTES:
            self._streak_bytes += length
            self._position = max(self._position, offset + length)
        else:
            self._streak_bytes, self._position, self._ahead = 0, offset + length, 1

    def _is_there(self, index: int, state: State) -> bool:
        """Whether a piece is here or on its way; one that no longer counts goes."""
        piece = self._pieces.get(index)
        if piece is None:
            return False
        if piece.error is None and piece.state == state:
            return True
        self._drop(index)
        return False

    def _fetch_ahead(self, index: int, state: State) -> None:
        for ahead in range(index, index + self._ahead):
            if ahead * PIECE_BYTES >= state.size:
                break
            if not self._is_there(ahead, state):
                if not self.memory.take(self, PIECE_BYTES):
                    break
                self._fetch(ahead, taken_bytes=PIECE_BYTES)
        self._ahead = min(2 * self._ahead, _AHEAD_AT_MOST)

    def _fetch(self, index: int, *, taken_bytes: int) -> None:
        piece = self._pieces[index] = _Piece(index * PIECE_BYTES, self.state(), taken_bytes)
        self.nursery.start_soon(self._bring, piece)

    async def _bring(self, piece: _Piece) -> None:
        try:
            piece.data = await self.handle.read(piece.offset, PIECE_BYTES)
        except OSError as error:
            piece.error = error
        piece.done.set()

    def _drop_what_was_read(self) -> None:
        """Drops what lies behind the reader. The last piece stays, for requests come in any order."""
        here = self._position // PIECE_BYTES
        for index in [index for index in self._pieces if not here - 2 < index <= here + _AHEAD_AT_MOST + 1]:
            self._drop(index)

    def _drop(self, index: int) -> None:
        self.memory.give(self._pieces.pop(index).taken_bytes)


async def _part(piece: _Piece, offset: int, length: int) -> bytes | memoryview:
    """What of a piece lies in a range."""
    await piece.done.wait()
    if piece.error is not None:
        raise piece.error
    assert piece.data is not None, "a piece that has come is there"
    begin, end = max(0, offset - piece.offset), offset + length - piece.offset
    if begin == 0 and end >= len(piece.data):
        return piece.data
    return memoryview(piece.data)[begin:end]
