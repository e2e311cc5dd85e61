"""Frames over a session's socket, the same at both ends.

The reader never waits for the writer: whatever arrives is dispatched without blocking, and what that produces goes to
the outbox. So two sides that both have full buffers still empty each other's. Who produces data waits in `room()`.

A frame may also be sent by another thread than Trio's (`send_from_any_thread`), which saves waking that first, most of
a short message's way. So who changes what waits to be written, or writes it, holds the lock.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from mirrord_agent.wire import Outbox
from mirrord_agent.wire.frames import Frame, StreamFrame

#: Bytes asked for by one read of the socket.
_READ_BYTES = 256 << 10
#: How many waiting senders are let go for each write: each may add this share of the outbox.
_ROOM_SHARE_BYTES = 256 << 10
#: What a Unix socket should hold in one direction. With the kernel's default of 208 KiB the two ends work
#: in turns instead of at the same time, because a sender is woken only when three quarters are read (measured: half the
#: throughput). TCP sizes its buffers itself.
_UNIX_SEND_BUFFER_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32  # socket(7), asm-generic/socket.h; the socket module has no name for it


class FrameSocket:
    """One end: what waits to be written, and who waits to add to it. What is put after the end goes nowhere."""

    def __init__(self, stream: trio.SocketStream) -> None:
        # Trio's own calls go through the scheduler also when they succeed at once, before what was read can be looked
        # at; reading and writing the descriptor itself saves that turn, a third of a short message's way.
        self._descriptor = stream.socket.fileno()
        _enlarge_send_buffer(stream.socket)
        self._waited = True
        """Whether the last read gave other tasks their turn."""
        self._token = trio.lowlevel.current_trio_token()
        self.lock = threading.RLock()
        """Held while what waits to be written is changed or written, and so never for long."""
        self._outbox = Outbox()
        self._is_over = False
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()

    # Adding frames.

    def put(self, frame: Frame) -> None:
        """Sends a frame ahead of all data."""
        self._add(self._outbox.put, frame, at_once=False)

    def put_at_once(self, frame: Frame) -> None:
        """Sends a frame ahead of all data, and at once if nothing is waiting: somebody waits for it."""
        self._add(self._outbox.put, frame, at_once=True)

    def put_ordered(self, frame: StreamFrame) -> None:
        """Sends a frame behind those of its stream. Senders of data see to it that there is room."""
        self._add(self._outbox.put_ordered, frame, at_once=False)

    def send(self, frame: StreamFrame) -> None:
        """As `put_ordered`, and at once if nothing is waiting."""
        self._add(self._outbox.put_ordered, frame, at_once=True)

    def send_from_any_thread(self, make: Callable[[], Frame]) -> bool:
        """Sends what `make` gives, at once and from any thread. False if that cannot be; then `make` was not called."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._is_over or not self._outbox.empty:
                return False
            self._outbox.put(make())
            if not self._write_some():
                self._token.run_sync_soon(self._writer.unpark)
            return True
        finally:
            self.lock.release()

    def _add(self, add: Callable[..., None], frame: Frame, *, at_once: bool) -> None:
        if self._is_over:
            return
        with self.lock:
            idle = self._outbox.empty
            add(frame)
            if not (at_once and idle and self._write_some()):
                self._writer.unpark()

    def discard(self, stream: int) -> None:
        """Forgets the frames of a stream that are not yet being written."""
        with self.lock:
            self._outbox.discard(stream)
        self._let_senders_go()

    @property
    def has_room(self) -> bool:
        """Whether data may be added now."""
        return self._outbox.has_room

    async def room(self) -> None:
        """Waits until data may be added, or the end."""
        while not self._outbox.has_room and not self._is_over:
            await self._senders.park()

    # Writing and reading.

    async def write(self) -> None:
        """Writes what is put, until the socket breaks. Why it did, the reader learns, after the other's last words."""
        with suppress(OSError):
            while True:
                await self._write_out()
                self._flushed.unpark_all()
                await self._writer.park()

    async def flush(self) -> None:
        """Waits until everything put so far is handed to the kernel, or the end."""
        while not self._is_all_written and not self._is_over:
            await self._flushed.park()

    async def read(self) -> bytes:
        """The next bytes from the other side; b"" at the end. Raises OSError when the socket breaks."""
        if not self._waited:
            await trio.lowlevel.checkpoint()
        self._waited = False
        while True:
            try:
                return os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._descriptor)
                self._waited = True

    def end(self) -> None:
        """Nothing is sent any more; wakes everyone who waits. To be called before the socket is closed."""
        with self.lock:
            self._is_over = True
        self._senders.unpark_all()
        self._flushed.unpark_all()

    @property
    def _is_all_written(self) -> bool:
        with self.lock:  # for what another thread is just writing nobody is woken
            return self._outbox.empty

    async def _write_out(self) -> None:
        """Writes all that waits. Raises OSError."""
        while not self._is_all_written:
            try:
                with self.lock:
                    self._outbox.sent(os.writev(self._descriptor, self._outbox.buffers()))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._descriptor)
            self._let_senders_go()

    def _write_some(self) -> bool:
        """Whether that was all."""
        with suppress(OSError):  # whether full or broken, the writer sees to it
            self._outbox.sent(os.writev(self._descriptor, self._outbox.buffers()))
        return self._outbox.empty

    def _let_senders_go(self) -> None:
        if self._outbox.empty:
            # Nobody may be left waiting with nothing under way: those let go before may have had nothing to send.
            self._senders.unpark_all()
        elif self._senders and self._outbox.has_room:
            self._senders.unpark(count=max(1, self._outbox.free_bytes // _ROOM_SHARE_BYTES))


def _enlarge_send_buffer(end: trio.socket.SocketType) -> None:
    if end.family != socket.AF_UNIX:
        return
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _UNIX_SEND_BUFFER_BYTES)
    except PermissionError:  # needs CAP_NET_ADMIN; without it the system's maximum holds
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_SEND_BUFFER_BYTES)
