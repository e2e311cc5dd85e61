"""Frames over the agent's socket: what waits to be written, and who waits to add to it.

The client's counterpart of `mirrord_agent.link`, with two differences. Here the other side may go while many still use
the session, so the link remembers that it is lost, and tells everyone who asks. And a request may be sent by another
thread than Trio's, which saves waking that first (`ask_from_any_thread`): who changes what waits to be written holds
the link's lock.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from mirrord_agent.wire import Outbox
from mirrord_agent.wire.frames import Data, Frame, StreamFrame

#: Bytes asked for by one read of the agent's socket.
_READ_BYTES = 256 << 10
#: How many waiting senders are let go for each write: each may add this share of the outbox.
_ROOM_SHARE_BYTES = 256 << 10
#: What a Unix socket should hold in one direction; for the reason see `mirrord_agent.link`.
_UNIX_SEND_BUFFER_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32  # socket(7), asm-generic/socket.h; the socket module has no name for it


class SessionLost(OSError):
    """The agent is gone, and with it everything in the pod. Its errno is ENETUNREACH."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENETUNREACH, reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class SessionLink:
    """Frames to the agent: what waits to be written, who waits to add to it, and whether the session is lost."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._descriptor = stream.socket.fileno()
        _enlarge_send_buffer(stream.socket)
        self._waited = True
        """Whether the last read gave other tasks their turn."""
        self._token = trio.lowlevel.current_trio_token()
        self.lock = threading.RLock()
        """Held while something is added to what is to be written, or is written; never for long."""
        self._outbox = Outbox()
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self.loss_reason: str | None = None

    def put(self, frame: Frame) -> None:
        """Sends a frame ahead of all data."""
        if self.loss_reason is None:
            with self.lock:
                self._outbox.put(frame)
            self._writer.unpark()

    def ask(self, frame: Frame) -> None:
        """Sends a frame ahead of all data, and at once if nothing is waiting: somebody waits for its answer."""
        self.check()
        with self.lock:
            idle = self._outbox.empty
            self._outbox.put(frame)
            self._start_writing(idle)

    def ask_from_any_thread(self, make: Callable[[], Frame]) -> bool:
        """Sends what `make` gives at once, as `ask` does; False if that cannot be: then `make` was not called."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self.loss_reason is not None or not self._outbox.empty:
                return False
            self._outbox.put(make())
            if not self._write_some():
                self._token.run_sync_soon(self._writer.unpark)
            return True
        finally:
            self.lock.release()

    def put_ordered(self, frame: StreamFrame) -> None:
        """Sends a frame behind those of its stream. Senders of data see to it that there is room."""
        if self.loss_reason is None:
            with self.lock:
                self._outbox.put_ordered(frame)
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

    def send(self, frame: Data) -> None:
        """As `put_ordered`, and at once if nothing is waiting."""
        if self.loss_reason is not None:
            return
        with self.lock:
            idle = self._outbox.empty
            self._outbox.put_ordered(frame)
            self._start_writing(idle)

    def _start_writing(self, idle: bool) -> None:
        if not (idle and self._write_some()):
            self._writer.unpark()

    def _write_some(self) -> bool:
        """Whether that was all."""
        with suppress(OSError):  # whether full or broken, the writer sees to it
            self._outbox.sent(os.writev(self._descriptor, self._outbox.buffers()))
        return self._outbox.empty

    async def room(self) -> None:
        """Waits until data may be added, or the session is lost."""
        while not self._outbox.has_room and self.loss_reason is None:
            await self._senders.park()

    async def write(self) -> None:
        """Writes what is put, until the socket breaks. Why it did, the reader learns, after the agent's last words."""
        while True:
            if self._is_all_written:
                self._flushed.unpark_all()
                await self._writer.park()
                continue
            try:
                with self.lock:
                    self._outbox.sent(os.writev(self._descriptor, self._outbox.buffers()))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._descriptor)
            except OSError:
                return
            self._let_senders_go()

    async def read(self) -> bytes:
        """The next bytes from the agent; b"" at the end. Raises OSError when the socket breaks.

        Reads the descriptor itself, as the agent does and for the same reason (`mirrord_agent.link`).
        """
        if not self._waited:
            await trio.lowlevel.checkpoint()
        self._waited = False
        while True:
            try:
                return os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._descriptor)
                self._waited = True

    async def flush(self) -> None:
        """Waits until everything put so far is handed to the kernel, or the session is lost."""
        while not self._is_all_written and self.loss_reason is None:
            await self._flushed.park()

    @property
    def _is_all_written(self) -> bool:
        with self.lock:  # what another thread is writing just now nobody is woken for
            return self._outbox.empty

    def lose(self, reason: str) -> None:
        """Nothing can be sent any more; wakes everyone who waits."""
        with self.lock:
            self.loss_reason = reason
        self._senders.unpark_all()
        self._flushed.unpark_all()

    def check(self) -> None:
        """Raises SessionLost when the agent is gone."""
        if self.loss_reason is not None:
            raise SessionLost(self.loss_reason)

    def _let_senders_go(self) -> None:
        if self._outbox.empty:
            # Nobody may be left waiting with nothing under way: those let go before may have had nothing to send.
            self._senders.unpark_all()
        elif self._senders and self._outbox.has_room:
            self._senders.unpark(count=max(1, self._outbox.free_bytes // _ROOM_SHARE_BYTES))


def _enlarge_send_buffer(agent: trio.socket.SocketType) -> None:
    if agent.family != socket.AF_UNIX:
        return
    try:
        agent.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _UNIX_SEND_BUFFER_BYTES)
    except PermissionError:  # needs CAP_NET_ADMIN; without it the system's maximum holds
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_SEND_BUFFER_BYTES)
