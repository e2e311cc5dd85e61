"""A routed connection's socket, to the real client or to the target."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from mirrord_agent import addresses, outgoing
from mirrord_agent.incoming.http.actions import Side
from mirrord_agent.outgoing import CLOSE_LINGER_S
from mirrord_agent.wire.frames import InetEndpoint

if TYPE_CHECKING:
    from mirrord_agent.incoming.routed import RoutedConnection

#: Most bytes taken from a socket at once: what the router takes at least when it takes anything.
_READ_BYTES = 64 << 10


class SocketLeg:
    """One of them. `run` owns the socket."""

    def __init__(
        self, owner: RoutedConnection, side: Side, connected: socket.socket | None, remote: InetEndpoint, mark: int
    ) -> None:
        """Without a socket that is `connected` it connects to `remote`, with the mark."""
        self._owner = owner
        self._side = side
        self._remote = remote
        self._mark = mark
        self._socket = connected
        self._is_connected = connected is not None
        self._queue: deque[bytes | memoryview] = deque()
        """What the socket did not take yet; the router bounds it."""
        self._ends = False
        self._half_closed = False
        self._closes = False
        self._write_failed = False
        self._read_all = False
        """Whether the side has said that it says no more."""
        self._reader = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Moves data until the router closes the leg."""
        try:
            with self._scope:
                if not self._is_connected and not await self._connect():
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
        finally:
            if self._socket is not None:
                self._socket.close()

    async def _connect(self) -> bool:
        try:
            self._socket = socket.socket(addresses.family(self._remote), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            await outgoing.connect(self._socket, self._remote)
        except OSError:
            self._owner.unreachable(self, self._side)
            return False
        self._is_connected = True
        return True

    async def _read(self) -> None:
        assert self._socket is not None
        while True:
            if not self._owner.reads(self, self._side):
                await self._reader.park()
                continue
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError:
                self._owner.ended(self, self._side, reset=True)
                return
            if not data:
                self._read_all = True
                # After a failed write the error is used up, and what the side said before has been read.
                self._owner.ended(self, self._side, reset=self._write_failed)
                return
            self._owner.receive(self, self._side, data)
            await trio.lowlevel.checkpoint()

    async def _write(self) -> None:
        assert self._socket is not None
        while True:
            self._flush()
            if self._queue:
                await trio.lowlevel.wait_writable(self._socket)
            elif self._closes:
                self._scope.cancel()
                return
            else:
                await self._writer.park()

    def _flush(self) -> None:
        """Writes what the socket takes."""
        assert self._socket is not None
        while self._queue:
            data = self._queue.popleft()
            try:
                sent = len(data) if self._write_failed else self._socket.send(data)
            except BlockingIOError:
                self._queue.appendleft(data)
                return
            except OSError:
                self._fail_to_write()
                sent = len(data)
            if sent < len(data):
                self._queue.appendleft(memoryview(data)[sent:])
            self._owner.written(self, self._side, sent)
        if self._ends and not self._half_closed:
            self._half_closed = True
            with suppress(OSError):  # it is broken, which the reader reports
                self._socket.shutdown(socket.SHUT_WR)

    def _fail_to_write(self) -> None:
        """What a server said before is still read, and then how it ended is told; nobody waits for a client's words."""
        self._write_failed = True
        if self._side is Side.CLIENT or self._read_all:
            self._owner.ended(self, self._side, reset=True)

    def send(self, data: bytes) -> None:
        """Writes this behind what was written before."""
        self._queue.append(data)
        self._write_on()

    def end(self) -> None:
        """Nothing more will be written."""
        self._ends = True
        self._write_on()

    def _write_on(self) -> None:
        if self._is_connected and len(self._queue) <= 1:
            self._flush()
        self._writer.unpark()

    def close(self, *, reset: bool) -> None:
        """Writes what is left and closes, or resets at once."""
        self._closes = True
        if reset and self._socket is not None:
            self._queue.clear()
            outgoing.reset_when_closed(self._socket)
        if reset or not self._is_connected:
            self._scope.cancel()
        else:
            self._scope.deadline = trio.current_time() + CLOSE_LINGER_S
            self._writer.unpark()

    def wake(self) -> None:
        """It may be read again, perhaps."""
        self._reader.unpark()
