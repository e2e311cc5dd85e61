"""FIFOs of the pod, as FIFOs of this machine that are connected with them.

A FIFO in a mounted tree would be the kernel's own: whoever opened it would wait for somebody on this machine. A FUSE
request, on the other hand, that waits for somebody in the pod could not be interrupted by a signal. So who opens one
gets a FIFO of our own in its place, and everything about it is the kernel's: poll(2), O_NONBLOCK, signals.

What is read from the pod's FIFO is gone from there. So nothing is read before the task has opened its end. The task's
end for writing opens when the pod's has a reader.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

import attrs
import trio

from mirrord_trace.remote_files import RemoteFiles, RemoteHandle

_PIECE_BYTES = 64 << 10
_OPENED_WITHIN_S = 5.0
"""How long the task may take from when it is told of the FIFO until it opens it. It may be killed before."""
_LAST_BYTES_WITHIN_S = 5.0
"""How long what was written may take to reach the pod when all ends."""
_FIRST_PAUSE_S = 0.0005
_LAST_PAUSE_S = 0.05


@attrs.define(eq=False)
class Pipes:
    """Makes FIFOs below `directory`, and copies in `nursery` what goes through them."""

    files: RemoteFiles
    directory: Path
    nursery: trio.Nursery
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)

    async def alias(self, path: bytes) -> bytes:
        """The path of a fresh FIFO that is fed from the one at `path`. Raises OSError with the pod's errno."""
        await self.files.access(path, os.R_OK)
        fifo = self._make()
        self.nursery.start_soon(self._feed, path, fifo)
        return os.fsencode(fifo)

    async def outlet(self, path: bytes) -> bytes:
        """The path of a fresh FIFO that feeds the one at `path`. Raises OSError with the pod's errno.

        Where the pod's has a reader it can be opened at once, and else as soon as there is one.
        """
        await self.files.access(path, os.W_OK)
        fifo = self._make()
        handle = descriptor = None
        try:
            handle = await self.files.open(path, os.O_WRONLY | os.O_NONBLOCK)
            descriptor = _opened_to_read(fifo)
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno != errno.ENXIO:
                if handle is not None:
                    handle.close()
                os.unlink(fifo)
                raise
        self.nursery.start_soon(self._drain, path, fifo, handle, descriptor)
        return os.fsencode(fifo)

    def _make(self) -> Path:
        fifo = self.directory / f"fifo-{next(self._numbers)}"
        os.mkfifo(fifo)
        fifo.chmod(0o666)  # whoever finds its name was told it
        return fifo

    async def _feed(self, path: bytes, fifo: Path) -> None:
        descriptor = None
        try:
            with trio.move_on_after(_OPENED_WITHIN_S):
                descriptor = await _opened_by_reader(fifo)
        finally:
            os.unlink(fifo)
        if descriptor is not None:
            async with trio.lowlevel.FdStream(descriptor) as reader:
                await self._feed_reader(path, reader)

    async def _feed_reader(self, path: bytes, reader: trio.lowlevel.FdStream) -> None:
        """Until the pod's writers are gone, or the reader is. An error is an early end: there is no errno for it."""
        with contextlib.suppress(OSError):
            handle = await self.files.open(path, os.O_RDONLY)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, handle, reader, nursery.cancel_scope)
                    # The end for writing is never readable, but it can break.
                    await trio.lowlevel.wait_readable(reader.fileno())
                    nursery.cancel_scope.cancel()
            finally:
                handle.close()

    async def _drain(self, path: bytes, fifo: Path, handle: RemoteHandle | None, descriptor: int | None) -> None:
        """Until the task has closed its end, or the pod's readers are gone: then the task gets SIGPIPE."""
        opened_by = trio.current_time() + _OPENED_WITHIN_S
        try:
            with contextlib.suppress(OSError):
                if handle is None:
                    handle = await self.files.open(path, os.O_WRONLY)
                if descriptor is None:
                    descriptor = _opened_to_read(fifo)
                await _pass_on_all(descriptor, handle, fifo, opened_by)
        finally:
            os.unlink(fifo)
            if descriptor is not None:
                os.close(descriptor)
            if handle is not None:
                handle.close()


async def _pass_on_all(descriptor: int, handle: RemoteHandle, fifo: Path, opened_by: float) -> None:
    """Until the writers of our FIFO are gone, or it turns out at `opened_by` that there never was one."""
    try:
        with trio.move_on_at(opened_by):
            await trio.lowlevel.wait_readable(descriptor)
        # The kernel says that there is no writer only when there was one. Who waits in his open counts as one.
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if not await _pass_on(descriptor, handle):
                break
    except trio.Cancelled:
        with trio.move_on_after(_LAST_BYTES_WITHIN_S, shield=True):
            while await _pass_on(descriptor, handle):
                pass
        raise


async def _pass_on(descriptor: int, handle: RemoteHandle) -> bool:
    """Whether there was something. Raises OSError."""
    try:
        data = os.read(descriptor, _PIECE_BYTES)
    except BlockingIOError:
        return False
    rest = memoryview(data)
    while rest:
        rest = rest[await handle.write(0, rest) :]
    return bool(data)


async def _copy(handle: RemoteHandle, reader: trio.lowlevel.FdStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        while data := await handle.read(0, _PIECE_BYTES):
            await reader.send_all(data)
    scope.cancel()


def _opened_to_read(fifo: Path) -> int:
    """Our end of a FIFO that a task writes to. It is opened before the task's; until that is there nothing is read."""
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


async def _opened_by_reader(fifo: Path) -> int:
    """Our end of the FIFO, as soon as somebody has opened the other."""
    pause_s = _FIRST_PAUSE_S
    while True:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        await trio.sleep(pause_s)  # the kernel tells of an open only when it is complete
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)
