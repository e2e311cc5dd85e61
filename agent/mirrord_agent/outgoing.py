"""Connections that the agent opens in the target's world, and what flows over them.

A connection has two tasks: one reads the pod's socket into frames, one writes what frames brought and the socket would
not take at once. Truth about the end of a connection decides the details:

- A RST from the far side becomes `Reset` behind the data that came before it, as recv(2) would report it.
- When a write fails, what the far side said before is still read and passed on (a server may answer and then refuse the
  rest of an upload); the `Reset` follows it. Only if the client goes on writing until its window is used up does the
  reset come at once, as it would find out from send(2).
- `Reset` from the client closes with SO_LINGER 0, so that the far side sees a RST too.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from contextlib import suppress

import trio

from mirrord_agent import addresses
from mirrord_agent.files.root import resolve
from mirrord_agent.link import Link
from mirrord_agent.target import Target
from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow, WindowPool
from mirrord_agent.wire.frames import Connect, Credit, Data, Endpoint, Eof, InetEndpoint, Reset, UnixEndpoint

#: Most bytes taken from a socket at once.
READ_BYTES = 256 << 10
#: How long a closed connection may take to deliver what was sent on it before.
CLOSE_LINGER_S = 60.0
#: How long an attempt at a Unix socket with a full backlog blocks its thread before asking whether it is still wanted.
_UNIX_ATTEMPT_US = 100_000
#: Threads that may wait for Unix sockets with a full backlog; apart from Trio's own, which read files.
_UNIX_WAITERS = trio.CapacityLimiter(64)

#: Errors of bind(2) after which a connection is made from wherever the kernel likes.
_WISH_NOT_GRANTED = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.EINVAL})


async def open_socket(request: Connect, target: Target) -> socket.socket:
    """Connects as asked. Raises OSError with the errno of the pod's kernel; leaves no socket when cancelled."""
    if isinstance(request.remote, UnixEndpoint):
        return await _connect_unix(request.remote, target)
    remote = addresses.unmapped(request.remote)
    wish = None if request.local is None else addresses.unmapped(request.local)
    for local in _source_wishes(wish, remote):
        try:
            return await _connect_inet(remote, local)
        except _WishNotGrantedError:
            continue
    return await _connect_inet(remote, None)


class _WishNotGrantedError(Exception):
    """The connection cannot come from where it should."""


def _source_wishes(wish: InetEndpoint | None, remote: InetEndpoint) -> list[InetEndpoint]:
    """Sources to try, the best first: address and port, then the port alone."""
    if wish is None or addresses.family(wish) != addresses.family(remote):
        return []
    unspecified = addresses.unspecified(wish)
    wishes = (
        [wish] if wish.host == unspecified.host or addresses.is_loopback(wish) == addresses.is_loopback(remote) else []
    )
    return [candidate for candidate in (*wishes, unspecified) if candidate != InetEndpoint(unspecified.host, 0)]


async def _connect_inet(remote: InetEndpoint, local: InetEndpoint | None) -> socket.socket:
    """Connects from `local`, if given. Raises _WishNotGrantedError when it is `local` that does not work."""
    connection = socket.socket(addresses.family(remote), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            try:
                connection.bind(addresses.to_sockaddr(local))
            except OSError as error:
                if error.errno in _WISH_NOT_GRANTED:
                    raise _WishNotGrantedError from error
                raise
        try:
            await connect(connection, remote)
        except OSError as error:
            if local is not None and error.errno in _WISH_NOT_GRANTED:
                raise _WishNotGrantedError from error
            raise
    except BaseException:
        connection.close()
        raise
    return connection


async def connect(connection: socket.socket, remote: InetEndpoint) -> None:
    """Connects a non-blocking socket. Raises OSError with the errno of the pod's kernel."""
    address = addresses.to_sockaddr(remote)
    code = connection.connect_ex(address)
    if code == errno.EINPROGRESS:
        # On this machine the other end has often answered already, and asking again is quicker than an event.
        code = connection.connect_ex(address)
    if code == errno.EALREADY:
        await trio.lowlevel.wait_writable(connection)
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def _connect_unix(remote: UnixEndpoint, target: Target) -> socket.socket:
    """Connects to a name in the target's network namespace or to a path below its root."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    found = None
    try:
        address: bytes | str = remote.path
        if not remote.path.startswith(b"\0"):
            # What the path names is found below the target's root; the socket is then reached through its descriptor.
            found = resolve(target, remote.path)
            address = f"/proc/self/fd/{found}"
        code = connection.connect_ex(address)
        if code == errno.EAGAIN:
            # The backlog is full, and no event tells when it is not: only a blocking connect waits its turn.
            await trio.to_thread.run_sync(_connect_blocking, connection, address, limiter=_UNIX_WAITERS)
        elif code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        connection.close()
        raise
    finally:
        if found is not None:
            os.close(found)
    return connection


def _connect_blocking(connection: socket.socket, address: bytes | str) -> None:
    connection.setblocking(True)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, _UNIX_ATTEMPT_US))
    while code := connection.connect_ex(address):
        if code != errno.EAGAIN:
            raise OSError(code, os.strerror(code))
        trio.from_thread.check_cancelled()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    connection.setblocking(False)


def endpoints(connection: socket.socket, remote: Endpoint) -> tuple[Endpoint, Endpoint]:
    """Local and peer address of a connected socket; the peer as it was asked for when it has gone already."""
    if isinstance(remote, UnixEndpoint):
        return UnixEndpoint(b""), remote
    local = addresses.from_sockaddr(connection.getsockname())
    try:
        return local, addresses.from_sockaddr(connection.getpeername())
    except OSError:
        return local, addresses.unmapped(remote)


class Connection:
    """A connected socket of the pod and its stream.

    `run` owns the socket. The `on_…` methods are called by the session's reader; they never block.
    """

    def __init__(self, link: Link, pool: WindowPool, stream: int, connection: socket.socket) -> None:
        self._link = link
        self._stream = stream
        self._socket = connection
        self._credit = SendWindow()
        self._window = ReceiveWindow(pool)
        self._reader = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._queue: deque[bytes | memoryview] = deque()
        """What the socket did not take yet, at most one window."""
        self._client_ended = False
        self._half_closed = False
        self._closing = False
        self._far_ended = False
        self._write_error: int | None = None
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Moves data until both directions have ended, or the connection is reset or closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
        finally:
            self._socket.close()
            self._window.close()

    async def _read(self) -> None:
        while True:
            if not self._credit.available:
                await self._reader.park()
                continue
            if not self._link.has_room:
                await self._link.room()
                continue
            try:
                data = self._socket.recv(min(READ_BYTES, self._credit.available))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError as error:
                self._broken(error.errno or errno.EIO)
                return
            if not data:
                break
            self._credit.take(len(data))
            self._link.send(Data(self._stream, data))
        self._far_ended = True
        if self._write_error is not None:
            self._broken(self._write_error)
        else:
            self._link.put_ordered(Eof(self._stream))
            if self._half_closed:
                self._scope.cancel()

    async def _write(self) -> None:
        while True:
            if self._queue:
                if not self._send(self._queue.popleft()):
                    await trio.lowlevel.wait_writable(self._socket)
            elif self._closing:
                self._scope.cancel()
                return
            elif self._client_ended and not self._half_closed:
                self._half_closed = True
                if self._write_error is None:
                    with suppress(OSError):  # ENOTCONN: the far side has reset it, which the reader reports
                        self._socket.shutdown(socket.SHUT_WR)
                if self._far_ended:
                    self._scope.cancel()
            else:
                await self._writer.park()

    def _send(self, data: bytes | memoryview) -> bool:
        """Writes what the socket takes and puts the rest back in front; returns whether it took all."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._write_failed(error.errno or errno.EPIPE)
            return True
        complete = sent == len(data)
        if not complete:
            self._queue.appendleft(memoryview(data)[sent:])
        if sent:
            credit = self._window.consumed(sent, drained=not self._queue)
            if credit:
                self._link.put(Credit(self._stream, credit))
        return complete

    def _write_failed(self, number: int) -> None:
        # Linux says EPIPE for the second write after a RST; what the process is to see is the reset.
        self._write_error = errno.ECONNRESET if number == errno.EPIPE else number
        self._queue.clear()
        if self._far_ended or self._window.exhausted or self._closing:
            self._broken(self._write_error)

    def _broken(self, number: int) -> None:
        self._link.put_ordered(Reset(self._stream, number))
        self._scope.cancel()

    def on_data(self, payload: bytes) -> None:
        """Data from the client. Raises ProtocolError when there was no credit for it or it comes after the end."""
        if self._client_ended or self._closing:
            raise ProtocolError(f"data on stream {self._stream} after its end")
        self._window.received(len(payload))
        if self._write_error is not None:
            if self._window.exhausted:
                self._broken(self._write_error)
        elif not payload:
            return
        elif self._queue:
            self._queue.append(payload)
        elif not self._send(payload):
            self._writer.unpark()

    def on_eof(self) -> None:
        """The client sends no more."""
        self._client_ended = True
        self._writer.unpark()

    def on_close(self) -> None:
        """The client is done: what is queued goes out, then the socket is closed."""
        self._closing = True
        self._link.discard(self._stream)
        self._credit.available = 0
        self._scope.deadline = trio.current_time() + CLOSE_LINGER_S
        self._writer.unpark()

    def on_reset(self, number: int) -> None:
        """The client wants the connection broken: the far side gets a RST, which tells no reason."""
        self._queue.clear()
        self._link.discard(self._stream)
        reset_when_closed(self._socket)
        self._scope.cancel()

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
        self._reader.unpark()

    def abort(self) -> None:
        """Breaks the connection without ever having run it."""
        reset_when_closed(self._socket)
        self._socket.close()
        self._window.close()


def reset_when_closed(connection: socket.socket) -> None:
    """Has the other end get a RST when the socket is closed, whatever is still to be sent."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
