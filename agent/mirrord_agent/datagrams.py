"""UDP sockets that the agent opens in the target's network namespace.

A connected socket reports what ICMP said of earlier datagrams (ECONNREFUSED, EHOSTUNREACH): as an error of the next
receive, or of the next send, which then did not happen. Both become `DatagramError`; the send is tried again, because
it is not to blame. What exceeds a window is dropped, by the socket's own receive buffer where possible.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque

import trio

from mirrord_agent import addresses
from mirrord_agent.link import Link
from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow
from mirrord_agent.wire.frames import Credit, Datagram, DatagramError, DatagramsOpened, InetEndpoint, OpenDatagrams
from mirrord_agent.wire.windows import DATAGRAM_OVERHEAD, DATAGRAM_WINDOW

#: Longest datagram of UDP with its header (udp(7)); one read never cuts it.
LONGEST = 65535
#: Errors of bind(2) after which the kernel chooses the port.
_WISH_NOT_GRANTED = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.EINVAL})


def open_socket(request: OpenDatagrams) -> socket.socket:
    """A UDP socket as asked for. Raises OSError with the errno of the pod's kernel."""
    family = addresses.FAMILIES[request.family]
    for endpoint in (request.peer, request.local):
        if endpoint is not None and addresses.family(endpoint) != family:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    flow = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _bind(flow, request.local, request.family == "inet6")
        if request.peer is not None:
            flow.connect(addresses.to_sockaddr(request.peer))
    except BaseException:
        flow.close()
        raise
    return flow


def _bind(flow: socket.socket, wish: InetEndpoint | None, inet6: bool) -> None:
    anywhere = InetEndpoint("::" if inet6 else "0.0.0.0", 0)
    candidates = [anywhere]
    if wish is not None:
        # A loopback address is wished for only by who talks to loopback, and works there.
        candidates = [wish, addresses.unspecified(wish), anywhere]
    for candidate in candidates:
        try:
            flow.bind(addresses.to_sockaddr(candidate))
        except OSError as error:
            if candidate == anywhere or error.errno not in _WISH_NOT_GRANTED:
                raise
        else:
            return


def opened_frame(request: OpenDatagrams, flow: socket.socket) -> DatagramsOpened:
    """The answer to a request that succeeded."""
    return DatagramsOpened(request.stream, addresses.from_sockaddr(flow.getsockname()), _peer(request, flow))


def _peer(request: OpenDatagrams, flow: socket.socket) -> InetEndpoint | None:
    if request.peer is None:
        return None
    try:
        return addresses.from_sockaddr(flow.getpeername())
    except OSError:  # connected to port 0, as getaddrinfo(3) does to learn its own address: the kernel names no peer
        return addresses.unmapped(request.peer)


class DatagramFlow:
    """A UDP socket of the pod and its stream.

    `run` owns the socket. The `on_…` methods are called by the session's reader; they never block.
    """

    def __init__(self, link: Link, stream: int, flow: socket.socket, *, connected: bool) -> None:
        self._link = link
        self._stream = stream
        self._socket = flow
        self._connected = connected
        self._credit = SendWindow(DATAGRAM_WINDOW)
        self._window = ReceiveWindow(None, DATAGRAM_WINDOW)
        self._reader = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._queue: deque[Datagram] = deque()
        """What the socket's send buffer had no room for, at most one window."""
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Moves datagrams until the client closes the flow."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
        finally:
            self._socket.close()

    async def _read(self) -> None:
        while True:
            if self._credit.available < LONGEST + DATAGRAM_OVERHEAD:
                await self._reader.park()
                continue
            if not self._link.has_room:
                await self._link.room()
                continue
            try:
                payload, peer = self._receive()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                self._report(error)
            else:
                self._credit.take(len(payload) + DATAGRAM_OVERHEAD)
                self._link.put_ordered(Datagram(self._stream, peer, payload))

    def _receive(self) -> tuple[bytes, InetEndpoint | None]:
        """The next datagram, and from where unless the socket is connected. Raises OSError."""
        payload, source = self._socket.recvfrom(LONGEST)
        return payload, None if self._connected else addresses.from_sockaddr(source)

    def _report(self, error: OSError) -> None:
        """Tells the client of an error, unless it has not read earlier ones."""
        if self._credit.available >= DATAGRAM_OVERHEAD:
            self._credit.take(DATAGRAM_OVERHEAD)
            self._link.put_ordered(DatagramError(self._stream, error.errno or errno.EIO))

    async def _write(self) -> None:
        while True:
            if not self._queue:
                await self._writer.park()
            elif self._send(self._queue[0]):
                self._queue.popleft()
            else:
                await trio.lowlevel.wait_writable(self._socket)

    def _send(self, datagram: Datagram) -> bool:
        """Sends, or reports why it cannot; returns False when the send buffer is full."""
        earlier = None
        for _ in range(2):
            try:
                self._transmit(datagram)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != earlier:
                    self._report(error)
                if self._connected:
                    earlier = error.errno
                    continue  # perhaps the error of an earlier datagram; if it is of this one it comes again
            break
        credit = self._window.consumed(len(datagram.payload) + DATAGRAM_OVERHEAD)
        if credit:
            self._link.put(Credit(self._stream, credit))
        return True

    def _transmit(self, datagram: Datagram) -> None:
        """Raises OSError."""
        if datagram.peer is None:
            self._socket.send(datagram.payload)
        else:
            self._socket.sendto(datagram.payload, addresses.to_sockaddr(datagram.peer))

    def on_datagram(self, datagram: Datagram) -> None:
        """A datagram from the client. Raises ProtocolError when there was no credit for it."""
        if datagram.peer is None and not self._connected:
            raise ProtocolError(f"a datagram without destination on flow {self._stream}, which is not connected")
        self._window.received(len(datagram.payload) + DATAGRAM_OVERHEAD)
        if self._queue or not self._send(datagram):
            self._queue.append(datagram)
            self._writer.unpark()

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
        self._reader.unpark()

    def on_close(self) -> None:
        """The client is done with the flow."""
        self._link.discard(self._stream)
        self._scope.cancel()
