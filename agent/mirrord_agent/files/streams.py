"""Reading and writing of what has no offsets, and waiting for it: FIFOs, terminals, some files of /proc.

It is open without blocking; waiting is done by epoll in a task of Trio's, which can be cancelled. What was read for
somebody who no longer waits is kept for the next.
"""

from __future__ import annotations

import errno
import os
from functools import partial

import trio

from mirrord_agent.files.handles import OpenedFile, open_file
from mirrord_agent.files.root import Root
from mirrord_agent.files.workers import Workers
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
    """What there is, when there is some; nothing at the end. Raises OSError: BlockingIOError if one is not to wait."""

    def read_now() -> bytes | None:
        try:
            return os.read(file.descriptor, request.length)
        except BlockingIOError:
            return None

    def keep(outcome: object) -> None:
        if isinstance(outcome, bytes):
            file.unread += outcome

    async with file.reading:
        # A FIFO that nobody has opened for writing yet looks as if it were at its end; for epoll it does not.
        wait = file.is_fifo and file.waits and not file.unread
        while True:
            if wait:
                await trio.lowlevel.wait_readable(file.descriptor)
            if file.unread:
                data, file.unread = file.unread[: request.length], file.unread[request.length :]
                return FileData(request.stream, data)
            file.hold()
            found = await workers.run(read_now, file.release, keep)
            if found is not None:
                return FileData(request.stream, found)
            if not file.waits:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            wait = True


async def write(workers: Workers, file: OpenedFile, request: WriteFile) -> Written:
    """Writes all, or what there is room for if one is not to wait. Raises OSError."""
    rest = memoryview(request.payload)

    def write_now() -> int | None:
        try:
            return os.write(file.descriptor, rest)
        except BlockingIOError:
            return None

    async with file.writing:
        while True:
            file.hold()
            amount = await workers.run(write_now, file.release, lambda _: None)
            rest = rest[amount or 0 :]
            written = len(request.payload) - len(rest)
            if not rest or not file.waits:
                if amount is None and not written:
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                return Written(request.stream, written)
            await trio.lowlevel.wait_writable(file.descriptor)
