"""Frames over the client's socket.

The reader never waits for the writer: whatever arrives is dispatched without blocking, and what that produces goes to
the outbox. So two sides that both have full buffers still empty each other's. Producers of data wait in `room()`.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import trio

from mirrord_agent.wire import Decoder, Outbox, ProtocolError
from mirrord_agent.wire.frames import Frame, Goodbye, StreamFrame

#: Bytes asked for by one read of the client's socket.
_READ_BYTES = 256 << 10
#: Answers, credit and the like that may wait for a client that does not read; beyond, it is at fault.
_MAX_UNREAD_ANSWERS = 1 << 17
#: How many waiting producers are let go for each write: each may add this share of the outbox.
_ROOM_SHARE_BYTES = 256 << 10


#: What a Unix socket should hold in one direction. With the kernel's default of 208 KiB the two ends work
#: in turns instead of at the same time, because a sender is woken only when three quarters are read (measured: half the
#: throughput). TCP sizes its buffers itself.
_UNIX_SEND_BUFFER_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32  # socket(7), asm-generic/socket.h; the socket module has no name for it


class ClientGone(Exception):
    """The client's end of the socket is closed, or broke; the message says how."""


class Link:
    """One client's socket, as a source and a sink of frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        # Trio's own calls go through the scheduler also when they succeed at once, before what was read can be looked
        # at; reading and writing the descriptor itself saves that turn, a third of a short message's way.
        self._descriptor = stream.socket.fileno()
        _enlarge_send_buffer(stream.socket)
        self._waited = True
        """Whether the last read gave other tasks their turn."""
        self._decoder = Decoder()
        self._outbox = Outbox()
        self._writer = trio.lowlevel.ParkingLot()
        self._producers = trio.lowlevel.ParkingLot()

    async def receive(self) -> list[Frame]:
        """The next frames, possibly none. Raises ClientGone at the end, ProtocolError for what is no frame."""
        if not self._waited:
            await trio.lowlevel.checkpoint()
        self._waited = False
        if self._outbox.waiting_control_frames > _MAX_UNREAD_ANSWERS:
            raise ProtocolError("the client asks and does not read the answers")
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._descriptor)
                self._waited = True
                continue
            except OSError as error:
                raise ClientGone(f"reading from the client failed: {error.strerror}") from error
            if not data:
                raise ClientGone("the client closed the connection")
            return self._decoder.feed(data)

    def put(self, frame: Frame) -> None:
        """Sends a frame ahead of all data."""
        self._outbox.put(frame)
        self._writer.unpark()

    def answer(self, frame: Frame) -> None:
        """Sends a frame ahead of all data, and at once if nothing is waiting: somebody waits for it."""
        idle = self._outbox.empty
        self._outbox.put(frame)
        self._start_writing(idle)

    def put_ordered(self, frame: StreamFrame) -> None:
        """Sends a frame behind those of its stream. Producers of data see to it that there is room."""
        self._outbox.put_ordered(frame)
        self._writer.unpark()

    def discard(self, stream: int) -> None:
        """Forgets the frames of a stream that are not yet being written."""
        self._outbox.discard(stream)
        self._let_producers_go()

    @property
    def has_room(self) -> bool:
        """Whether data may be added now."""
        return self._outbox.has_room

    def send(self, frame: StreamFrame) -> None:
        """As `put_ordered`, and at once if nothing is waiting."""
        idle = self._outbox.empty
        self._outbox.put_ordered(frame)
        self._start_writing(idle)

    def _start_writing(self, idle: bool) -> None:
        if idle:
            with suppress(OSError):  # whether full or broken, the writer sees to it
                self._outbox.sent(os.writev(self._descriptor, self._outbox.buffers()))
        if not self._outbox.empty:
            self._writer.unpark()

    async def room(self) -> None:
        """Waits until data may be added."""
        while not self._outbox.has_room:
            await self._producers.park()

    async def write(self) -> None:
        """Writes what is put, until the socket breaks. Why it did, `receive` says, after the client's last words."""
        with suppress(OSError):
            while True:
                await self._write_out()
                await self._writer.park()

    async def say_goodbye(self, goodbye: Goodbye) -> None:
        """Writes what is waiting and then a goodbye, unless the client is gone; `write` must have ended."""
        with suppress(OSError):  # nobody is left to be told
            await self._write_out()
            self._outbox.put(goodbye)
            await self._write_out()

    async def _write_out(self) -> None:
        while buffers := self._outbox.buffers():
            try:
                self._outbox.sent(os.writev(self._descriptor, buffers))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._descriptor)
            self._let_producers_go()

    def _let_producers_go(self) -> None:
        if self._outbox.empty:
            # Nobody may be left waiting with nothing under way: those let go before may have had nothing to send.
            self._producers.unpark_all()
        elif self._producers and self._outbox.has_room:
            self._producers.unpark(count=max(1, self._outbox.free_bytes // _ROOM_SHARE_BYTES))


def _enlarge_send_buffer(client: trio.socket.SocketType) -> None:
    if client.family != socket.AF_UNIX:
        return
    try:
        client.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _UNIX_SEND_BUFFER_BYTES)
    except PermissionError:  # needs CAP_NET_ADMIN; without it the system's maximum holds
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_SEND_BUFFER_BYTES)
