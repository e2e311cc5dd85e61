"""Outgoing stream connections: from connect() in the process to bytes in the pod and back.

An `Attempt` is one connect() on its way. It outlives the call: a non-blocking connect returns before the answer is
there, a blocking one may be interrupted and made again. Once both sides are there, two tasks move bytes. Each half of
the connection ends as it does at its source: EOF becomes a shutdown, a reset becomes a reset.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import Endpoint, InetEndpoint
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.relay.listener import Listener
from mirrord_trace.session import RemoteStream, Session
from mirrord_trace.sockets_here import SocketsHere

CHUNK_BYTES: Final = 1 << 18
_PRESENCE_CHECK_S: Final = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: no lingering, RST (socket(7))


@attrs.frozen
class Established:
    """The far side answered. The addresses are the agent's socket's."""

    local: Endpoint
    peer: Endpoint


@attrs.frozen
class Failed:
    """The connection was not made."""

    errno: int


@attrs.define(eq=False)
class Attempt:
    """One connect(). Used in Trio's thread; `outcome` may be read in any."""

    inode: int
    remote: Endpoint
    local: InetEndpoint | None
    listener: Listener
    family: int
    """The family of the process's socket, AF_*."""
    on_answer: Callable[[Attempt], None]
    """Called when `outcome` is known, before the process's socket can notice."""
    on_end: Callable[[Attempt], None]
    """Called when nothing serves the process's socket any more."""
    in_kernel: bool = False
    """Whether the process's own connect() has returned without an answer (EINPROGRESS, EINTR) or with success."""
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcome: Established | Failed | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def abandon(self) -> None:
        """Nobody wants the connection any more."""
        self._scope.cancel()

    async def run(self, relay: StreamRelay) -> None:
        """Connects, waits for the process's socket, and moves bytes until both sides are done."""
        with self._scope, self.listener.socket:
            try:
                stream = await relay.session.connect(self.remote, self.local)
            except OSError as error:
                self._answer(Failed(error.errno or errno.EIO))
                return
            try:
                self._answer(Established(stream.local, stream.peer))
                self.listener.admit()
                connection = await self._accept(relay.here)
                self.listener.close()
                if connection is not None:
                    with connection:
                        await relay.serve(connection, stream)
            finally:
                stream.reset()

    def _answer(self, outcome: Established | Failed) -> None:
        self.outcome = outcome
        self.on_answer(self)
        self.answered.set()

    async def _accept(self, here: SocketsHere) -> trio.socket.SocketType | None:
        """The process's connection; None when its socket is gone before it came."""
        server = trio.socket.from_stdlib_socket(self.listener.socket)
        misses = 0
        while misses < 2:
            with trio.move_on_after(_PRESENCE_CHECK_S):
                connection, _ = await server.accept()
                if self._is_the_process(here, connection):
                    return connection
                connection.close()
                continue
            port = self.listener.socket.getsockname()[1]
            misses = 0 if here.is_connecting_to(port) else misses + 1
        return None

    def _is_the_process(self, here: SocketsHere, connection: trio.socket.SocketType) -> bool:
        """Whether it is not somebody else on this machine who tries all ports.

        A process may write and close at once; the kernel then knows no owner any more. That is the process itself only
        if its connect() has returned, and if nobody else waits.
        """
        if connection.family == socket.AF_UNIX:
            return True  # the listener's name cannot be guessed
        try:
            client = connection.getpeername()
        except OSError:  # reset already
            owner = None
        else:
            owner = here.inode("tcp", address_of_name(client), address_of_name(connection.getsockname()))
        if owner:
            return owner == self.inode
        waiting = select.poll()
        waiting.register(self.listener.socket, select.POLLIN)
        return self.in_kernel and not waiting.poll(0)


@attrs.define(eq=False)
class StreamRelay:
    """All stream connections of one session."""

    session: Session
    nursery: trio.Nursery
    here: SocketsHere = attrs.field(factory=SocketsHere)
    _sending: int = 0
    _all_sent: trio.Event = attrs.field(factory=trio.Event)

    def begin(self, attempt: Attempt) -> None:
        """Starts to connect in the pod."""
        self.nursery.start_soon(self._run, attempt)

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run(self)
        finally:
            attempt.on_end(attempt)

    async def serve(self, connection: trio.socket.SocketType, stream: RemoteStream) -> None:
        """Moves bytes both ways until both sides have ended or one was reset."""
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, connection, stream, nursery.cancel_scope)
                nursery.start_soon(_receive, connection, stream, nursery.cancel_scope)
        finally:
            if stream.is_eof_sent:  # the process ended its half; what it wrote still goes out
                with trio.CancelScope(shield=True):
                    await stream.aclose()

    async def sent(self) -> None:
        """Returns when what the process wrote before it ended is on its way; a matter of moments once it is dead."""
        while self._sending:
            self._all_sent = trio.Event()
            await self._all_sent.wait()

    async def _send(self, connection: trio.socket.SocketType, stream: RemoteStream, both: trio.CancelScope) -> None:
        self._sending += 1
        try:
            while True:
                try:
                    data = await connection.recv(CHUNK_BYTES)
                except OSError:
                    stream.reset()
                    both.cancel()
                    return
                try:
                    if not data:
                        await stream.send_eof()
                        return
                    await stream.send(data)
                except OSError:
                    return  # the receiving half learns of it too, and says it to the process
        finally:
            self._sending -= 1
            if not self._sending:
                self._all_sent.set()


async def _receive(connection: trio.socket.SocketType, stream: RemoteStream, both: trio.CancelScope) -> None:
    while True:
        try:
            data = await stream.receive()
        except OSError:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            both.cancel()
            return
        try:
            if not data:
                connection.shutdown(socket.SHUT_WR)
                return
            view = memoryview(data)
            while view:
                view = view[await connection.send(view) :]
        except OSError:
            stream.reset()
            both.cancel()
            return
