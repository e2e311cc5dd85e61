"""UDP ports of the target that the process's sockets serve.

A socket hears of a port from when it is bound. A second socket for the same port (a SO_REUSEPORT group; one for IPv4
and one for IPv6) shares what the first has, and adds the version of IP that was not heard yet: which of them gets a
datagram the kernel says.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from mirrord_agent.wire.frames import AddressFamily, IncomingMode
from mirrord_trace.relay.incoming.ways import only
from mirrord_trace.relay.udp import DatagramRelay, Handle
from mirrord_trace.session import RemoteDatagrams, Session, SessionLost


@attrs.define(eq=False)
class _Port:
    handle: Handle
    """The first socket that was bound."""
    number: int
    mode: IncomingMode
    families: frozenset[AddressFamily]
    """By which versions of IP the sockets are to hear."""
    settled: trio.Event = attrs.field(factory=trio.Event)
    """Set when the sessions that were there at first have answered."""
    relay: DatagramRelay | None = None


@attrs.define(eq=False)
class IncomingDatagrams:
    """All subscribed UDP ports. For Trio's thread."""

    session: Session
    """The first, which is there from the beginning and never leaves."""
    serve: Callable[[Handle, RemoteDatagrams, bool], DatagramRelay]
    """Has a socket hear what comes; the last says whether its answers count."""
    serve_too: Callable[[int, DatagramRelay], None]
    """Has another socket, by its inode, take part."""
    tell: Callable[[str], None]
    """Gets what the user should know."""
    nursery: trio.Nursery
    _others: dict[Session, str] = attrs.field(init=False, factory=dict)
    """The other sessions, and what they are called."""
    _ports: dict[int, _Port] = attrs.field(init=False, factory=dict)

    def join(self, session: Session, name: str) -> list[trio.Event]:
        """Has the ports' datagrams come from one session more, whose target the user knows by a name.

        Returns an event for each port, which is set when they come, or never will.
        """
        self._others[session] = name
        settled = []
        for port in self._ports.values():
            if port.relay is None or not port.relay.is_closed:
                settled.append(trio.Event())
                self.nursery.start_soon(self._hear_from, port, session, port.families, settled[-1])
        return settled

    def leave(self, session: Session) -> None:
        """Nothing more is asked of such a session."""
        del self._others[session]

    async def hear(self, handle: Handle, number: int, mode: IncomingMode, families: frozenset[AddressFamily]) -> None:
        """Returns when what is sent to the target's port from now on reaches the socket, or never will.

        Where there are several sessions, that is for those that are there now.
        """
        port = self._ports.get(number)
        while port is not None:
            await port.settled.wait()
            if port.relay is not None and not port.relay.is_closed:
                self.serve_too(handle.inode, port.relay)
                missing = families - port.families
                port.families |= missing
                if missing:
                    await self._hear_from_all(port, missing)
                return
            if self._ports.get(number) is port:
                del self._ports[number]
            port = self._ports.get(number)
        port = self._ports[number] = _Port(handle, number, mode, families)
        try:
            await self._hear_from_all(port, families)
        finally:
            port.settled.set()

    async def _hear_from_all(self, port: _Port, families: frozenset[AddressFamily]) -> None:
        async with trio.open_nursery() as nursery:
            for session in (self.session, *self._others):
                nursery.start_soon(self._hear_from, port, session, families, trio.Event())

    async def _hear_from(
        self, port: _Port, session: Session, families: frozenset[AddressFamily], settled: trio.Event
    ) -> None:
        try:
            await self._subscribe(port, session, families)
        finally:
            settled.set()

    async def _subscribe(self, port: _Port, session: Session, families: frozenset[AddressFamily]) -> None:
        remote = await self._subscribed(port, session, families)
        if remote is None:
            return
        is_over = self._ports.get(port.number) is not port or (port.relay is not None and port.relay.is_closed)
        if is_over or (session is not self.session and session not in self._others):  # while we waited
            remote.close()
        elif port.relay is None:
            port.relay = self.serve(port.handle, remote, port.mode == "steal")
        else:
            port.relay.hear_too(remote)

    async def _subscribed(
        self, port: _Port, session: Session, families: frozenset[AddressFamily]
    ) -> RemoteDatagrams | None:
        other = self._others.get(session)
        name = f"UDP port {port.number}" if other is None else f"UDP port {port.number} of {other}"
        try:
            return await session.incoming.subscribe_datagrams(
                port.number, port.mode, lambda notice: self.tell(f"{name}: {notice}"), family=only(families)
            )
        except SessionLost:  # which the user is told of once, for all
            return None
        except OSError as error:
            done = "stolen from" if port.mode == "steal" else "mirrored from"
            whom, whose = ("the target", "this machine only") if other is None else (other, "the others")
            self.tell(f"UDP port {port.number} is not {done} {whom}, the command serves {whose}: {error.strerror}")
            return None
