"""Sockets in the pod, as the client holds them.

`RemoteStream` and `RemoteDatagrams` are made by `mirrord_trace.session`, whose reader calls their `on_…` methods; those
never block. What a stream may hold is bounded by its window, so a reader that stalls stops its own stream only.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable

import attrs
import trio

from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow, WindowPool
from mirrord_agent.wire.frames import (
    Close,
    Credit,
    Data,
    Datagram,
    DatagramError,
    Endpoint,
    Eof,
    InetEndpoint,
    Reset,
)
from mirrord_agent.wire.windows import DATAGRAM_OVERHEAD, DATAGRAM_WINDOW
from mirrord_trace.session_link import SessionLink

#: Bytes of one data frame: large enough for the rate, small enough for streams to take turns.
_FRAME_BYTES = 256 << 10


@attrs.frozen
class _FarEof:
    """The far side sends no more."""


@attrs.frozen
class _FarReset:
    """The connection was broken on the far side."""

    errno: int


class RemoteStream:
    """A connected stream socket in the pod. One task may send while another receives."""

    def __init__(
        self,
        link: SessionLink,
        pool: WindowPool,
        stream: int,
        local: Endpoint,
        peer: Endpoint,
        forget: Callable[[int], None],
    ) -> None:
        self.local = local
        """The pod's address of the connection."""
        self.peer = peer
        """The far side's address."""
        self._link = link
        self._stream = stream
        self._forget = forget
        self._credit = SendWindow()
        self._window = ReceiveWindow(pool)
        self._sender = trio.lowlevel.ParkingLot()
        self._receiver = trio.lowlevel.ParkingLot()
        self._sending = False
        self._receiving = False
        self._inbox: deque[bytes] = deque()
        self._far_end: _FarEof | _FarReset | None = None
        self._eof_sent = False
        self._closed = False

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of `data`; returns when it is under way, which waits for the far side's reader.

        Raises ConnectionResetError (or what else broke the connection), BrokenPipeError after `send_eof`, SessionLost,
        OSError with EBADF after `aclose` or `reset`. When cancelled, some of it may have been sent.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            rest = data if isinstance(data, bytes) else bytes(data)
            self._check_sendable()
            while rest:
                if not self._credit.available:
                    await self._sender.park()
                elif not self._link.has_room:
                    await self._link.room()
                else:
                    taken = self._credit.take(min(len(rest), _FRAME_BYTES))
                    self._link.send(Data(self._stream, rest[:taken]))
                    rest = rest[taken:]
                    continue
                self._check_sendable()
        finally:
            self._sending = False

    def _check_sendable(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this end of the stream is closed")
        if isinstance(self._far_end, _FarReset):
            raise OSError(self._far_end.errno, os.strerror(self._far_end.errno))
        if self._eof_sent:
            raise BrokenPipeError(errno.EPIPE, "data after send_eof")
        self._link.check()

    @property
    def is_eof_sent(self) -> bool:
        """Whether `send_eof` was called: this end has sent all that it will."""
        return self._eof_sent

    async def send_eof(self) -> None:
        """Sends no more: the far side sees the end of the data (shutdown(2), SHUT_WR). Harmless when repeated.

        Raises as `send` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._eof_sent:
            self._check_sendable()
            self._eof_sent = True
            self._link.put_ordered(Eof(self._stream))
            self._forget_if_over()

    async def receive(self) -> bytes:
        """The next bytes; b"" at the far side's end, and again whenever asked after that.

        What arrived before a reset or a loss is returned first. Raises ConnectionResetError (or what else broke the
        connection), SessionLost, OSError with EBADF after `aclose` or `reset`.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._inbox or self._closed:
                if self._closed:
                    raise OSError(errno.EBADF, "this end of the stream is closed")
                match self._far_end:
                    case _FarEof():
                        return b""
                    case _FarReset(errno=number):
                        raise OSError(number, os.strerror(number))
                self._link.check()
                await self._receiver.park()
        finally:
            self._receiving = False
        return self._take()

    def _take(self) -> bytes:
        """What is in the inbox, small pieces joined."""
        result = self._inbox.popleft()
        if self._inbox and len(result) + len(self._inbox[0]) <= _FRAME_BYTES:
            pieces = [result]
            length = len(result)
            while self._inbox and length + len(self._inbox[0]) <= _FRAME_BYTES:
                pieces.append(self._inbox.popleft())
                length += len(pieces[-1])
            result = b"".join(pieces)
        credit = self._window.consumed(len(result), drained=not self._inbox)
        if credit and self._far_end is None:
            self._link.put(Credit(self._stream, credit))
        return result

    def reset(self, number: int = errno.ECONNRESET) -> None:
        """Breaks the connection: the far side sees a RST. What is under way in both directions is lost.

        ECONNREFUSED says of a connection that has come to the target that it was never taken.
        """
        if not self._closed:
            self._link.discard(self._stream)
            self._link.put(Reset(self._stream, number))
            self._close()

    async def aclose(self) -> None:
        """Closes the connection as close(2) does: what was sent still goes out, nothing more is received."""
        if not self._closed:
            if not (self._eof_sent and self._far_end is not None):
                self._link.put_ordered(Close(self._stream))
            self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._closed = True
        self._inbox.clear()
        self._forget(self._stream)
        self._window.close()
        self.wake()

    def _forget_if_over(self) -> None:
        if isinstance(self._far_end, _FarReset) or (self._eof_sent and self._far_end is not None):
            self._forget(self._stream)
            self._window.close()

    def wake(self) -> None:
        """Something happened that those who wait should look at."""
        self._sender.unpark_all()
        self._receiver.unpark_all()

    def on_data(self, payload: bytes) -> None:
        """Data from the agent. Raises ProtocolError for more than the window, or after the end."""
        if self._far_end is not None:
            raise ProtocolError(f"data on stream {self._stream} after its end")
        self._window.received(len(payload))
        if payload:
            self._inbox.append(payload)
            self._receiver.unpark()

    def on_eof(self) -> None:
        """The far side sends no more."""
        self._far_end = _FarEof()
        self._receiver.unpark()
        self._forget_if_over()

    def on_reset(self, number: int) -> None:
        """The far side broke the connection."""
        self._far_end = _FarReset(number)
        self._link.discard(self._stream)
        self._forget_if_over()
        self.wake()

    def on_credit(self, amount: int) -> None:
        """The agent has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
        self._sender.unpark()


class RemoteDatagrams:
    """A UDP socket in the pod."""

    def __init__(
        self,
        link: SessionLink,
        stream: int,
        local: InetEndpoint,
        peer: InetEndpoint | None,
        forget: Callable[[int], None],
    ) -> None:
        self.local = local
        """The pod's address; the unspecified one with a true port when the socket is not connected."""
        self.peer = peer
        """Where it is connected to, if it is."""
        self._link = link
        self._stream = stream
        self._forget = forget
        self._credit = SendWindow(DATAGRAM_WINDOW)
        self._window = ReceiveWindow(None, DATAGRAM_WINDOW)
        self._receiver = trio.lowlevel.ParkingLot()
        self._inbox: deque[Datagram | DatagramError] = deque()
        self._closed = False

    def send(self, data: bytes | bytearray | memoryview, to: InetEndpoint | None = None) -> None:
        """Sends one datagram, `to` only on a socket that is not connected; drops it when too much is under way.

        Raises SessionLost, OSError with EDESTADDRREQ or EISCONN when `to` is missing or not wanted, with EBADF after
        `close`.
        """
        self._check()
        if to is None and self.peer is None:
            raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
        if to is not None and self.peer is not None:
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        cost = len(data) + DATAGRAM_OVERHEAD
        if self._credit.available >= cost and self._link.has_room:
            self._credit.take(cost)
            self._link.put_ordered(Datagram(self._stream, to, bytes(data)))

    async def receive(self) -> tuple[bytes, InetEndpoint | None]:
        """The next datagram and where it came from (none on a connected socket).

        Raises OSError for an error that the pod's socket reported, and can be called again after it; SessionLost;
        trio.ClosedResourceError after `close`, after which it cannot.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self._closed:
                raise trio.ClosedResourceError("this end of the flow is closed")
            self._link.check()
            await self._receiver.park()
        received = self._inbox.popleft()
        if isinstance(received, DatagramError):
            self._consumed(0)
            raise OSError(received.errno, os.strerror(received.errno))
        self._consumed(len(received.payload))
        return received.payload, received.peer

    def _check(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this end of the flow is closed")
        self._link.check()

    def _consumed(self, length: int) -> None:
        credit = self._window.consumed(length + DATAGRAM_OVERHEAD)
        if credit:
            self._link.put(Credit(self._stream, credit))

    def close(self) -> None:
        """Closes the pod's socket, once what was sent has gone out. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._inbox.clear()
            self._link.put_ordered(Close(self._stream))
            self._forget(self._stream)
            self.wake()

    def wake(self) -> None:
        """Something happened that those who wait should look at."""
        self._receiver.unpark_all()

    def on_datagram(self, received: Datagram | DatagramError) -> None:
        """A datagram or an error from the agent. Raises ProtocolError for more than the window."""
        length = len(received.payload) if isinstance(received, Datagram) else 0
        self._window.received(length + DATAGRAM_OVERHEAD)
        self._inbox.append(received)
        self._receiver.unpark()

    def on_credit(self, amount: int) -> None:
        """The agent has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
