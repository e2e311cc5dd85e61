"""TCP ports of the target on which the process listens: subscribed as long as one of its sockets does.

Several sockets may listen for one port of the target: those of a SO_REUSEPORT group, one for IPv4 and one for IPv6.
Each connection goes to one that can show its client, and among a group's the kernel chooses.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import IncomingMode, InetEndpoint
from mirrord_syscalls.sock_diag import WAITING_STATES
from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.relay.addresses import address_of_endpoint
from mirrord_trace.relay.incoming.arrivals import Arrival, Arrivals, Names, plain
from mirrord_trace.relay.incoming.endings import Endings
from mirrord_trace.relay.incoming.mirroring import Mirroring
from mirrord_trace.relay.incoming.ways import Listening, ways
from mirrord_trace.relay.tcp import StreamRelay, is_closed_by_process
from mirrord_trace.session import RemoteListener, RemoteStream, Session, SessionLost

_UNSETTLED_AT_MOST: Final = 4096
_ACCEPTED_WITHIN_S: Final = 5.0
"""After that a client on this machine may have the names that a connection had which was reset."""


@attrs.frozen
class Asked:
    """How a port of the target is asked for."""

    port: int
    mode: IncomingMode
    http_filter: str | None = None
    flush: bool = False
    mark: bool = False


@attrs.define(eq=False)
class _Port:
    """One port, from the first listener on."""

    asked: Asked
    listeners: dict[int, Listening] = attrs.field(factory=dict)
    """By inode."""
    remote: RemoteListener | None = None
    settled: trio.Event = attrs.field(factory=trio.Event)
    """Set when the agent has answered."""


@attrs.define(eq=False)
class IncomingPorts:
    """All subscribed TCP ports of one session. For Trio's thread."""

    session: Session
    streams: StreamRelay
    nursery: trio.Nursery
    tell: Callable[[str], None]
    """Gets what the user should know."""
    arrivals: Arrivals = attrs.field(factory=Arrivals)
    _ports: dict[int, _Port] = attrs.field(init=False, factory=dict)
    _unsettled: dict[Names, float] = attrs.field(init=False, factory=dict)
    """Connections that are over on our side and that the process may still accept; until when, if they were reset."""
    _has_work: trio.Event = attrs.field(init=False, factory=trio.Event)

    def listen(self, listening: Listening, asked: Asked) -> trio.Event:
        """A socket listens; the event is set when connections that begin from now on reach it, or never will."""
        port = self._ports.get(asked.port)
        if port is None:
            port = self._ports[asked.port] = _Port(asked)
            self.nursery.start_soon(self._serve_port, port)
            self._has_work.set()
        port.listeners[listening.inode] = listening
        return port.settled

    async def _serve_port(self, port: _Port) -> None:
        try:
            port.remote = await self._subscribe(port.asked)
            port.settled.set()
            self._end_if_unused(port)
            while port.remote is not None:
                stream = await port.remote.receive()
                self.nursery.start_soon(self._serve, port, stream)
        except SessionLost:  # which the user is told of once, for all
            pass
        except trio.ClosedResourceError:
            pass
        finally:
            port.settled.set()
            self._end(port)

    async def _subscribe(self, asked: Asked) -> RemoteListener | None:
        name = f"port {asked.port}"
        try:
            return await self.session.incoming.subscribe(
                asked.port,
                asked.mode,
                lambda notice: self.tell(f"{name}: {notice}"),
                http_filter=asked.http_filter,
                flush=asked.flush,
                mark=asked.mark,
            )
        except SessionLost:
            raise
        except OSError as error:
            done = "stolen from" if asked.mode == "steal" else "mirrored from"
            self.tell(f"{name} is not {done} the target, the command serves this machine only: {error.strerror}")
            return None

    def _end(self, port: _Port) -> None:
        if port.remote is not None:
            port.remote.close()
        if self._ports.get(port.asked.port) is port:
            del self._ports[port.asked.port]

    def _end_if_unused(self, port: _Port) -> None:
        if port.settled.is_set() and not port.listeners:
            self._end(port)

    # a connection

    async def _serve(self, port: _Port, stream: RemoteStream) -> None:
        try:
            connected = await self._connect(port, stream)
            if connected is None:
                stream.reset(errno.ECONNREFUSED)
                return
            connection, names = connected
            with connection:
                try:
                    if port.asked.mode == "mirror":
                        is_closed = partial(is_closed_by_process, self.streams.here, connection)
                        is_filtered = port.asked.http_filter is not None
                        await Mirroring(connection, stream, is_closed, is_filtered).run()
                    else:
                        with self.streams.sending() as sent:
                            await self.streams.exchange(connection, stream, sent)
                finally:
                    self._settle(names)  # while the kernel still knows who is at the other end
        finally:
            stream.reset()  # no effect after an orderly end

    async def _connect(self, port: _Port, stream: RemoteStream) -> tuple[trio.socket.SocketType, Names] | None:
        """A connection to the process; None where it would refuse one in the pod, too."""
        assert isinstance(stream.peer, InetEndpoint)
        assert isinstance(stream.local, InetEndpoint)
        client, local = _plain_address(stream.peer), _plain_address(stream.local)
        for way in ways(port.listeners.values(), client):
            arrival = Arrival(client, attrs.evolve(local, port=way.listening.asked.port))
            family = socket.AF_INET if isinstance(way.to, Inet4) else socket.AF_INET6
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                names = await self._connected(connection, way.to, arrival)
            except OSError:
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            return trio.socket.from_stdlib_socket(connection), names
        return None

    async def _connected(self, connection: socket.socket, to: Inet4 | Inet6, arrival: Arrival) -> Names:
        connection.setblocking(False)
        names = self.arrivals.connect(connection, to, arrival)
        try:
            await trio.lowlevel.wait_writable(connection)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            self.arrivals.forget(names)
            raise
        return names

    def _settle(self, names: Names) -> None:
        """Our side is over: its names are kept as long as they say whom the process accepts, or has accepted.

        A connection that was reset before it is accepted is not to be found any more, but will be accepted.
        """
        row = self.streams.here.row("tcp", names.destination, names.source)
        if row is not None and not row.inode and row.state in WAITING_STATES:
            self._unsettled[names] = trio.current_time() + _ACCEPTED_WITHIN_S
            if len(self._unsettled) > _UNSETTLED_AT_MOST:
                self._forget(next(iter(self._unsettled)))
            self._has_work.set()
            return
        if row is None and trio.current_time() < self._unsettled.get(names, 0):
            return
        arrival = self._forget(names)
        if arrival is not None and row is not None and row.inode:
            self.arrivals.accepted(row.inode, arrival)

    def _forget(self, names: Names) -> Arrival | None:
        self._unsettled.pop(names, None)
        return self.arrivals.forget(names)

    # what ends without a word

    async def watch(self) -> None:
        """Ends the subscriptions whose listeners have ended, again and again."""
        await self._has_work.wait()
        endings = Endings()
        try:
            while True:
                if not self._ports and not self._unsettled:
                    self._has_work = trio.Event()
                    await self._has_work.wait()
                await endings.next()
                for port in list(self._ports.values()):
                    self._look_at(port)
                for names in list(self._unsettled):
                    self._settle(names)
        finally:
            endings.close()

    def _look_at(self, port: _Port) -> None:
        numbers = {listening.here.port for listening in port.listeners.values()}
        present = {row.inode for number in numbers for row in self.streams.here.bound("tcp", number)}
        for inode in port.listeners.keys() - present:
            del port.listeners[inode]
        self._end_if_unused(port)


def _plain_address(endpoint: InetEndpoint) -> Inet4 | Inet6:
    address = address_of_endpoint(endpoint, socket.AF_INET)
    assert isinstance(address, Inet4 | Inet6)
    return plain(address)
