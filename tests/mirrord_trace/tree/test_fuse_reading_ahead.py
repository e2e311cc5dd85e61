"""What is fetched for whom, without a mount."""

import errno
import os
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from mirrord_trace.remote_files import RemoteHandle, Status
from mirrord_trace.tree.fuse.reading import PIECE_BYTES, Memory, ReadAhead, State
from mirrord_trace.tree.known import version_of
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.tree.test_known import FILE

KIB = 1 << 10


@attrs.define(eq=False)
class Handle:
    """A file whose reads wait until they are let go."""

    content: bytes
    asked: list[tuple[int, int]] = attrs.field(factory=list)
    under_way: int = 0
    most_under_way: int = 0
    may_answer: trio.Event = attrs.field(factory=trio.Event)
    error: OSError | None = None

    async def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.may_answer.wait()
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        return self.content[offset : offset + length]


@attrs.define(eq=False)
class Reading:
    """A file that is read, and what is known of it."""

    handle: Handle
    status: Status
    ahead: ReadAhead


def reading(nursery: trio.Nursery, size: int, memory: Memory | None = None) -> Reading:
    handle = Handle(os.urandom(size))
    handle.may_answer.set()
    status = attrs.evolve(FILE, size=size)
    made = Reading(handle, status, cast(ReadAhead, None))
    made.ahead = ReadAhead(
        cast(RemoteHandle, handle), nursery, memory or Memory(), lambda: State(version_of(made.status), 0)
    )
    return made


@in_trio
async def test_who_reads_on_has_several_pieces_under_way() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 40 * PIECE_BYTES + 5)
        for offset in range(0, len(file.handle.content), 128 * KIB):
            data = await file.ahead.read(offset, 128 * KIB)
            assert data == file.handle.content[offset : offset + 128 * KIB]
            await trio.testing.wait_all_tasks_blocked()
        assert len(file.handle.asked) == len(set(file.handle.asked)) <= 42
        file.ahead.close()


@in_trio
async def test_requests_of_one_reader_come_in_any_order() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 10 * PIECE_BYTES)
        step = 256 * KIB
        for pair in range(0, len(file.handle.content), 2 * step):
            for offset in (pair + step, pair):
                assert await file.ahead.read(offset, step) == file.handle.content[offset : offset + step]
        assert len(file.handle.asked) <= 12


@in_trio
async def test_who_jumps_about_gets_what_he_asks_for() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 100 * PIECE_BYTES)
        wanted = [(offset * PIECE_BYTES + 17, 4096) for offset in (50, 3, 99, 20, 70)]
        for offset, length in wanted:
            assert await file.ahead.read(offset, length) == file.handle.content[offset : offset + length]
        assert file.handle.asked == wanted


@in_trio
async def test_parts_of_several_pieces_and_the_end() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 3 * PIECE_BYTES - 100)
        for offset, length in (
            (0, 900 * KIB),
            (900 * KIB, PIECE_BYTES),
            (PIECE_BYTES + 1, PIECE_BYTES),
            (2 << 20, 2 << 20),
        ):
            data = await file.ahead.read(offset, length)
            assert data == file.handle.content[offset : offset + length]
        assert await file.ahead.read(3 << 20, 4096) == b""


@in_trio
async def test_a_file_that_changed_is_fetched_anew() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 4 * PIECE_BYTES)
        await file.ahead.read(0, PIECE_BYTES)
        await trio.testing.wait_all_tasks_blocked()
        file.handle.content = os.urandom(4 * PIECE_BYTES)
        file.status = attrs.evolve(file.status, mtime_ns=file.status.mtime_ns + 1)
        assert await file.ahead.read(PIECE_BYTES, PIECE_BYTES) == file.handle.content[PIECE_BYTES : 2 * PIECE_BYTES]


@in_trio
async def test_a_file_that_grew_is_read_to_its_new_end() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, PIECE_BYTES + 10)
        await file.ahead.read(0, PIECE_BYTES)
        await trio.testing.wait_all_tasks_blocked()
        content = file.handle.content + b"more"
        file.handle.content = content
        file.status = attrs.evolve(file.status, size=len(content))
        assert await file.ahead.read(PIECE_BYTES, 4096) == content[PIECE_BYTES:]


@in_trio
async def test_an_error_is_told_and_then_tried_again() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 4 * PIECE_BYTES)
        file.handle.error = OSError(errno.EIO, "broken")
        with pytest.raises(OSError, match="broken"):
            await file.ahead.read(0, PIECE_BYTES)
        await trio.testing.wait_all_tasks_blocked()
        file.handle.error = None
        assert await file.ahead.read(0, PIECE_BYTES) == file.handle.content[:PIECE_BYTES]


@in_trio
async def test_memory_is_bounded_and_who_reads_has_it() -> None:
    async with trio.open_nursery() as nursery:
        memory = Memory(10 * PIECE_BYTES)
        files = [reading(nursery, 50 * PIECE_BYTES, memory) for _ in range(5)]
        for _ in range(3):
            for file in files:
                for number in range(4):
                    await file.ahead.read(number * PIECE_BYTES, PIECE_BYTES)
                    assert memory.free_bytes >= 0
        assert memory.free_bytes < 10 * PIECE_BYTES
        for file in files:
            file.ahead.close()
        assert memory.free_bytes == 10 * PIECE_BYTES


@in_trio
async def test_a_file_of_medium_size_is_sent_for_when_it_is_opened() -> None:
    async with trio.open_nursery() as nursery:
        file = reading(nursery, 200 * KIB)
        file.ahead.begin()
        await trio.testing.wait_all_tasks_blocked()
        assert file.handle.asked == [(0, PIECE_BYTES)]
        assert await file.ahead.read(0, 16 * KIB) == file.handle.content[: 16 * KIB]
        assert len(file.handle.asked) == 1
        big = reading(nursery, 300 * KIB)
        big.ahead.begin()
        await trio.testing.wait_all_tasks_blocked()
        assert big.handle.asked == []
