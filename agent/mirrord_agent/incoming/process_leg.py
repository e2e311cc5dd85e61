"""A routed connection's stream to the client's process."""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

import trio

from mirrord_agent.incoming.arrivals import Arrivals
from mirrord_agent.incoming.http.actions import Side
from mirrord_agent.link import Link
from mirrord_agent.outgoing import READ_BYTES
from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow, WindowPool
from mirrord_agent.wire.frames import Credit, Data, Eof, Reset

if TYPE_CHECKING:
    from mirrord_agent.incoming.routed import RoutedConnection


class ProcessLeg:
    """One of them: what the router sends becomes frames, and what the client says is told to the router."""

    def __init__(self, owner: RoutedConnection, link: Link, pool: WindowPool, stream: int, arrivals: Arrivals) -> None:
        self._owner = owner
        self._link = link
        self._stream = stream
        self._arrivals = arrivals
        self._credit = SendWindow()
        self._window = ReceiveWindow(pool)
        self._queue: deque[memoryview] = deque()
        """What there was no credit or no room for; the router bounds it."""
        self._heard: deque[bytes] = deque()
        """What the router does not want yet, at most one window."""
        self._ends = False
        self._has_ended = False
        self._closes = False
        """Whether the router has done with it."""
        self._client_ended = False
        self._client_end_told = False
        self._is_gone = False
        """Whether the process has closed its socket: what is sent to it breaks the connection."""
        self._is_telling = False
        self._writer = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Sends what waits, until the stream is over."""
        try:
            with self._scope:
                while True:
                    if not self._queue or not self._credit.available:
                        await self._writer.park()
                    elif not self._link.has_room:
                        await self._link.room()
                    else:
                        self._flush()
        finally:
            self._arrivals.end(self._stream)
            self._window.close()

    def _flush(self) -> None:
        if self._is_gone:
            self._waste()
            return
        while self._queue and self._credit.available and self._link.has_room:
            data = self._queue.popleft()
            amount = self._credit.take(min(len(data), READ_BYTES))
            if amount < len(data):
                self._queue.appendleft(data[amount:])
            self._link.send(Data(self._stream, bytes(data[:amount])))
            self._owner.written(self, Side.PROCESS, amount)
        if self._ends and not self._queue and not self._has_ended:
            self._has_ended = True
            self._link.put_ordered(Eof(self._stream))
            if self._closes and self._client_ended:
                self._scope.cancel()

    def _waste(self) -> None:
        amount = sum(map(len, self._queue))
        self._queue.clear()
        if amount:
            self._owner.written(self, Side.PROCESS, amount)
            self._owner.ended(self, Side.PROCESS, reset=True)

    def send(self, data: bytes) -> None:
        """Writes this behind what was written before."""
        self._queue.append(memoryview(data))
        self._flush()
        self._writer.unpark()

    def end(self) -> None:
        """Nothing more will be written."""
        self._ends = True
        self._flush()

    def close(self, *, reset: bool) -> None:
        """Writes what is left and ends the stream, or resets it at once."""
        self._closes = True
        if self._is_gone:
            self._finish()
        elif reset or self._heard:
            # As when a socket is closed with unread data.
            self._break()
        else:
            self.end()
            if self._has_ended and self._client_ended:
                self._scope.cancel()

    def _break(self) -> None:
        self._link.put_ordered(Reset(self._stream, errno.ECONNRESET))
        self._finish()

    def _finish(self) -> None:
        """The stream is over."""
        self._queue.clear()
        self._arrivals.end(self._stream)
        self._scope.cancel()

    def wake(self) -> None:
        """Tells the router what it wants to hear now."""
        if self._is_telling:
            return
        self._is_telling = True
        while self._heard and self._owner.reads(self, Side.PROCESS):
            payload = self._heard.popleft()
            credit = self._window.consumed(len(payload), drained=not self._heard)
            if credit and not self._is_gone:
                self._link.put(Credit(self._stream, credit))
            self._owner.receive(self, Side.PROCESS, payload)
        if self._client_ended and not self._heard and not self._client_end_told:
            self._client_end_told = True
            self._owner.ended(self, Side.PROCESS)
        self._is_telling = False

    # What the client says.

    def on_data(self, payload: bytes) -> None:
        """Data of the process. Raises ProtocolError when there was no credit for it or it comes after the end."""
        if self._client_ended:
            raise ProtocolError(f"data on stream {self._stream} after its end")
        self._window.received(len(payload))
        if self._closes:
            self._break()
        elif payload:
            self._heard.append(payload)
            self.wake()

    def on_eof(self) -> None:
        """The process says no more."""
        self._client_ended = True
        if self._closes and self._has_ended:
            self._scope.cancel()
        self.wake()

    def on_close(self) -> None:
        """The process has closed its socket."""
        self._client_ended = self._is_gone = True
        self._link.discard(self._stream)
        self._arrivals.end(self._stream)
        if self._closes:
            self._finish()
        else:
            self.wake()
            self._flush()

    def on_reset(self, number: int) -> None:
        """The process has broken the connection, or there was none to be had."""
        self._heard.clear()
        self._link.discard(self._stream)
        self._finish()
        if number == errno.ECONNREFUSED:
            self._owner.unreachable(self, Side.PROCESS)
        else:
            self._owner.ended(self, Side.PROCESS, reset=True)

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
        self._flush()
        self._writer.unpark()  # which waits for the link, if that has no room
