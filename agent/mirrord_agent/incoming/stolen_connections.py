"""A TCP port of the target that is stolen: connections come to a listener of the agent's, which no other port has.

Connection tracking takes two ports that lead to one listener for the same destination: of a client that comes to both
from one port of its own, the second connection would get another source port. Who comes without having been redirected
is refused: the listener's own port is nobody's business.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Callable
from typing import Final

import trio

from mirrord_agent import addresses
from mirrord_agent.incoming import any_address
from mirrord_agent.incoming.destinations import original_destination
from mirrord_agent.incoming.reserved import ReservedDescriptor
from mirrord_agent.outgoing import reset_when_closed
from mirrord_agent.wire.frames import InetEndpoint

_BACKLOG: Final = 4096
#: Connections accepted in a row before others get their turn.
_BATCH: Final = 64
#: How long to wait when the agent is out of descriptors or memory.
_RECOVERY_S: Final = 0.1
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Take = Callable[[socket.socket, InetEndpoint, InetEndpoint], None]
"""Gets a connection, its client and where that was going."""


class StolenConnections:
    """The listener. `run` accepts until `close`, or until it is cancelled."""

    def __init__(self, port: int, reserved: ReservedDescriptor) -> None:
        """`port` is the target's. Descriptors are above the reserved one. Raises OSError."""
        self._port = port
        self._reserved = reserved
        self._listener = _open_listener()
        self.listener_port: int = self._listener.getsockname()[1]
        self._scope = trio.CancelScope()

    async def run(self, take: Take) -> None:
        """Hands over connections that come to the target's port."""
        with self._scope:
            await self._accept(take)

    def close(self) -> None:
        """Accepts no more; connections that were handed over live on."""
        self._scope.cancel()
        self._listener.close()

    async def _accept(self, take: Take) -> None:
        for turn in itertools.count():
            if turn % _BATCH == 0:
                await trio.lowlevel.checkpoint()
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._listener)
            except OSError as error:
                # Others are of a connection that is gone already (accept(2)).
                if error.errno in _EXHAUSTED:
                    await trio.sleep(_RECOVERY_S)
            else:
                self._hand_over(connection, take)

    def _hand_over(self, connection: socket.socket, take: Take) -> None:
        try:
            connection = self._reserved.below(connection)
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local = original_destination(connection)
            peer = addresses.unmapped(addresses.from_sockaddr(connection.getpeername()))
        except OSError:  # its client has gone already
            connection.close()
            return
        if local is None or local.port != self._port:
            refuse(connection)
        else:
            take(connection, peer, local)


def refuse(connection: socket.socket) -> None:
    """Has the client get a RST."""
    reset_when_closed(connection)
    connection.close()


def _open_listener() -> socket.socket:
    """For connections to any address. Raises OSError."""
    listener = any_address.open_socket(socket.SOCK_STREAM)
    try:
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
