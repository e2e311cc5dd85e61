"""Connections that begin at a port of this machine and go on from the target's network.

A connection is accepted before its far side is known, as the kernel does it; so one that cannot be had is reset. At
most so many are open at a time: others wait in the kernel's queue.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import InetEndpoint
from mirrord_trace.forwarding.complaints import Complaints
from mirrord_trace.forwarding.forwards import Forward
from mirrord_trace.forwarding.listening import Listening
from mirrord_trace.forwarding.names import NoAddress, TargetNames
from mirrord_trace.relay.exchange import Exchange, reset_on_close
from mirrord_trace.relay.tcp import owner_of_peer
from mirrord_trace.session import RemoteStream, Session, SessionLost
from mirrord_trace.sockets_here import SocketsHere

_OPEN_AT_MOST: Final = 4096
_NO_ROOM_PAUSE_S: Final = 0.2


@attrs.define(eq=False)
class OutgoingForwards:
    """All forwards of a command into one session's network."""

    session: Session
    here: SocketsHere
    tell: Callable[[str], None]
    _room: trio.Semaphore = attrs.field(init=False, factory=lambda: trio.Semaphore(_OPEN_AT_MOST))

    async def serve(self, listening: Listening) -> None:
        """Forwards what comes, until it is cancelled."""
        complaints = Complaints(self.tell)
        async with trio.open_nursery() as nursery:
            for server in listening.sockets:
                nursery.start_soon(self._accept, server, listening.forward, complaints)

    async def _accept(self, server: socket.socket, forward: Forward, complaints: Complaints) -> None:
        acceptor = trio.socket.from_stdlib_socket(server)
        async with trio.open_nursery() as nursery:
            while True:
                await self._room.acquire()
                try:
                    connection, _ = await acceptor.accept()
                except OSError as error:
                    self._room.release()
                    if error.errno != errno.ECONNABORTED:  # that one was gone before it was accepted
                        complaints.add(f"{forward.far}: a connection has to wait: {error.strerror}")
                        await trio.sleep(_NO_ROOM_PAUSE_S)
                    continue
                nursery.start_soon(self._forward, connection, forward, complaints)

    async def _forward(self, connection: trio.socket.SocketType, forward: Forward, complaints: Complaints) -> None:
        try:
            with connection:
                try:
                    stream = await connected(self.session, forward.host, forward.port)
                except SessionLost:  # which the user is told of once, for all
                    reset_on_close(connection)
                except (OSError, NoAddress) as error:
                    reset_on_close(connection)
                    complaints.add(f"{forward.far}: {getattr(error, 'strerror', None) or error}")
                else:
                    await self._exchange(connection, stream)
        finally:
            self._room.release()

    async def _exchange(self, connection: trio.socket.SocketType, stream: RemoteStream) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            is_closed = closed_by_owner(self.here, connection)
            await Exchange(connection, stream, self.session.lost, is_closed, lambda: None).run()
        finally:
            stream.reset()  # no effect after an orderly end


def closed_by_owner(here: SocketsHere, connection: trio.socket.SocketType) -> Callable[[], bool]:
    """Tells whether a process of this machine has closed the other end; never, where it is none of this machine's."""
    if not owner_of_peer(here, connection):
        return lambda: False
    return lambda: not owner_of_peer(here, connection)


async def connected(session: Session, host: str, port: int) -> RemoteStream:
    """A connection from the target to a host, whose addresses are tried in turn.

    Raises NoAddress, SessionLost, OSError: that of the last address.
    """
    *others, last = await TargetNames(session).addresses(host)
    for address in others:
        try:
            return await session.connect(InetEndpoint(address, port))
        except SessionLost:
            raise
        except OSError:
            continue
    return await session.connect(InetEndpoint(last, port))
