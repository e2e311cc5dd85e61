"""Reading and writing of what has no offsets, and waiting for it: FIFOs, terminals, some files of /proc.

It is open without blocking; waiting is done by epoll in a task of Trio's, which can be cancelled. What was read for
somebody who no longer waits, or is about to be, is kept for the next.
"""

from __future__ import annotations

import os
from functools import partial

import trio

from mirrord_agent.files.handles import Arriving, OpenedFile, open_file
from mirrord_agent.files.root import Root
from mirrord_agent.files.workers import Job, Workers
from mirrord_agent.wire.file_frames import FileData, OpenFile, ReadFile, WriteFile, Written

#: How often it is tried whether a FIFO has a reader: no poll tells a writer (fifo(7)).
_READER_INTERVAL_S = 0.02


async def open_with_reader(workers: Workers, root: Root, request: OpenFile) -> OpenedFile:
    """Opens a FIFO for writing as soon as somebody reads it. Raises OSError."""

    def close(outcome: object) -> None:
        if isinstance(outcome, OpenedFile):
            outcome.release()

    while True:
        await trio.sleep(_READER_INTERVAL_S)
        root.hold()
        if (file := await workers.run(partial(open_file, root, request), root.release, close)) is not None:
            return file


async def read(workers: Workers, file: OpenedFile, request: ReadFile) -> FileData:
    """What there is, when there is some; nothing at the end. Raises OSError: EAGAIN if one is not to wait."""
    async with file.reading:
        # A FIFO that nobody has opened for writing yet looks as if it were at its end; for epoll it does not.
        wait = file.is_fifo and file.waits
        while not file.unread:
            if file.arriving is None:
                if wait:
                    await trio.lowlevel.wait_readable(file.descriptor)
                file.arriving = _begin_reading(workers, file, request.length)
            await file.arriving.there.wait()
            outcome, file.arriving = file.arriving.outcome, None
            if isinstance(outcome, OSError) and not (isinstance(outcome, BlockingIOError) and file.waits):
                raise outcome
            if outcome == b"":
                break
            if isinstance(outcome, bytes):
                file.unread = outcome
            wait = True
        data, file.unread = file.unread[: request.length], file.unread[request.length :]
        return FileData(request.stream, data)


def _begin_reading(workers: Workers, file: OpenedFile, length: int) -> Arriving:
    arriving = Arriving()
    file.hold()
    workers.submit(Job(partial(os.read, file.descriptor, length), arriving.arrive, file.release))
    return arriving


async def write(workers: Workers, file: OpenedFile, request: WriteFile) -> Written:
    """Writes all, or what there is room for if one is not to wait. Raises OSError."""
    rest = memoryview(request.payload)

    async with file.writing:
        while True:
            file.hold()
            try:
                amount = await workers.run(partial(os.write, file.descriptor, rest), file.release, lambda _: None)
            except BlockingIOError:
                if not file.waits:
                    raise
                await trio.lowlevel.wait_writable(file.descriptor)
            else:
                rest = rest[amount:]
                if not rest or not file.waits:
                    return Written(request.stream, len(request.payload) - len(rest))
