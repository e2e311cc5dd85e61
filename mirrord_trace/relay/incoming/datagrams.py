"""UDP ports of the target that the process's sockets serve.

A socket hears of a port from when it is bound. A second socket for the same port (a SO_REUSEPORT group; one for IPv4
and one for IPv6) shares what the first has: which of them gets a datagram the kernel says.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from mirrord_agent.wire.frames import IncomingMode
from mirrord_trace.relay.udp import DatagramRelay, Handle
from mirrord_trace.session import RemoteDatagrams, Session, SessionLost


@attrs.define(eq=False)
class _Port:
    settled: trio.Event = attrs.field(factory=trio.Event)
    relay: DatagramRelay | None = None


@attrs.define(eq=False)
class IncomingDatagrams:
    """All subscribed UDP ports of one session. For Trio's thread."""

    session: Session
    serve: Callable[[Handle, RemoteDatagrams, bool], DatagramRelay]
    """Has a socket hear what comes; the last says whether its answers count."""
    serve_too: Callable[[int, DatagramRelay], None]
    """Has another socket, by its inode, take part."""
    tell: Callable[[str], None]
    """Gets what the user should know."""
    _ports: dict[int, _Port] = attrs.field(init=False, factory=dict)

    async def hear(self, handle: Handle, number: int, mode: IncomingMode) -> None:
        """Returns when what is sent to the target's port from now on reaches the socket, or never will."""
        port = self._ports.get(number)
        while port is not None:
            await port.settled.wait()
            if port.relay is not None and not port.relay.is_closed:
                self.serve_too(handle.inode, port.relay)
                return
            if self._ports.get(number) is port:
                del self._ports[number]
            port = self._ports.get(number)
        port = self._ports[number] = _Port()
        try:
            remote = await self._subscribe(number, mode)
            if remote is not None:
                port.relay = self.serve(handle, remote, mode == "steal")
        finally:
            port.settled.set()

    async def _subscribe(self, number: int, mode: IncomingMode) -> RemoteDatagrams | None:
        name = f"UDP port {number}"
        try:
            return await self.session.incoming.subscribe_datagrams(
                number, mode, lambda notice: self.tell(f"{name}: {notice}")
            )
        except SessionLost:  # which the user is told of once, for all
            return None
        except OSError as error:
            done = "stolen from" if mode == "steal" else "mirrored from"
            self.tell(f"{name} is not {done} the target, the command serves this machine only: {error.strerror}")
            return None
