"""FIFOs of the pod, as FIFOs of this machine that are fed from there.

A FIFO in a mounted tree would be the kernel's own: whoever opened it would wait for a writer on this machine. A FUSE
request, on the other hand, that waits for the pod's writer could not be interrupted by a signal. So whoever opens one
for reading gets a FIFO of our own in its place, and everything about it is the kernel's: poll(2), O_NONBLOCK, signals.

What is read from the pod's FIFO is gone from there. So nothing is read before the task has opened its end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import attrs
import trio

from mirrord_trace.remote_files import RemoteFiles, RemoteHandle

_PIECE_BYTES = 64 << 10
_OPENED_WITHIN_S = 5.0
"""How long the task may take from when it is told of the FIFO until it opens it."""
_FIRST_PAUSE_S = 0.0005
_LAST_PAUSE_S = 0.05


@attrs.define(eq=False)
class Pipes:
    """Makes FIFOs below `directory`, and feeds them in `nursery` until nobody reads them."""

    files: RemoteFiles
    directory: Path
    nursery: trio.Nursery
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)

    async def alias(self, path: bytes) -> bytes:
        """The path of a fresh FIFO that is fed from the one at `path`. Raises OSError with the pod's errno."""
        await self.files.access(path, os.R_OK)
        fifo = self.directory / f"fifo-{next(self._numbers)}"
        os.mkfifo(fifo)
        fifo.chmod(0o644)
        self.nursery.start_soon(self._feed, path, fifo)
        return os.fsencode(fifo)

    async def _feed(self, path: bytes, fifo: Path) -> None:
        descriptor = None
        try:
            with trio.move_on_after(_OPENED_WITHIN_S):
                descriptor = await _opened_by_reader(fifo)
        finally:
            os.unlink(fifo)
        if descriptor is not None:
            async with trio.lowlevel.FdStream(descriptor) as reader:
                await self._pump(path, reader)

    async def _pump(self, path: bytes, reader: trio.lowlevel.FdStream) -> None:
        """Feeds the reader until the pod's writers are gone, or it is. An error is an early end: it has no errno."""
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


async def _copy(handle: RemoteHandle, reader: trio.lowlevel.FdStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        while data := await handle.read(0, _PIECE_BYTES):
            await reader.send_all(data)
    scope.cancel()


async def _opened_by_reader(fifo: Path) -> int:
    """Our end of the FIFO, as soon as somebody has opened the other."""
    pause_s = _FIRST_PAUSE_S
    while True:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        await trio.sleep(pause_s)  # the kernel tells of an open only when it is complete
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)
