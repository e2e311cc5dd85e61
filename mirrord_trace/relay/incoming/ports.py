"""TCP ports of the target on which the process listens: subscribed as long as one of its sockets does.

There may be several sessions, one for each pod of a workload, which come and go: each has its own subscription. Where
nobody listens for one version of IP, what comes by it stays the target's: a listener that hears it later has it
subscribed to besides, until none does.

Several sockets may listen for one port of the target: those of a SO_REUSEPORT group, one for IPv4 and one for IPv6.
Each connection goes to one that can show its client, and among a group's the kernel chooses.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import AddressFamily, IncomingMode, InetEndpoint
from mirrord_syscalls.sock_diag import WAITING_STATES
from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.relay.addresses import address_of_endpoint
from mirrord_trace.relay.incoming.arrivals import Arrival, Arrivals, Names, plain
from mirrord_trace.relay.incoming.endings import Endings
from mirrord_trace.relay.incoming.mirroring import Mirroring
from mirrord_trace.relay.incoming.ways import Listening, only, ways
from mirrord_trace.relay.tcp import StreamRelay, is_closed_by_process
from mirrord_trace.session import RemoteListener, RemoteStream, Session, SessionLost

_UNSETTLED_AT_MOST: Final = 4096
_KEPT_S: Final = 5.0
"""An accept takes less, from when the process has the socket until its client is shown."""


@attrs.frozen
class Asked:
    """How a port of the target is asked for."""

    port: int
    mode: IncomingMode
    http_filter: str | None = None
    flush: bool = False
    mark: bool = False


@attrs.define(eq=False)
class _Subscription:
    """A port at one session."""

    session: Session
    families: frozenset[AddressFamily]
    answered: trio.Event = attrs.field(factory=trio.Event)
    """Set when the agent has answered, or never will."""
    remote: RemoteListener | None = None


@attrs.define(eq=False)
class _Port:
    """One port, from the first listener on."""

    asked: Asked
    listeners: dict[int, Listening] = attrs.field(factory=dict)
    """By inode."""
    subscriptions: list[_Subscription] = attrs.field(factory=list)
    """Those that are wanted or stand."""

    @property
    def wanted(self) -> frozenset[AddressFamily]:
        """By which versions of IP the listeners' clients come."""
        return frozenset(family for listening in self.listeners.values() for family in listening.families)

    def at(self, session: Session) -> list[_Subscription]:
        """Those at one session."""
        return [each for each in self.subscriptions if each.session is session]


@attrs.define(eq=False)
class IncomingPorts:
    """All subscribed TCP ports. For Trio's thread."""

    session: Session
    """The first, which is there from the beginning and never leaves."""
    streams: StreamRelay
    nursery: trio.Nursery
    tell: Callable[[str], None]
    """Gets what the user should know."""
    told_when_stolen: Mapping[int, str] = attrs.field(factory=dict)
    """See `AgentLink.told_when_stolen`."""
    arrivals: Arrivals = attrs.field(factory=Arrivals)
    _others: dict[Session, str] = attrs.field(init=False, factory=dict)
    """The other sessions, and what they are called."""
    _ports: dict[int, _Port] = attrs.field(init=False, factory=dict)
    _unsettled: dict[Names, float] = attrs.field(init=False, factory=dict)
    """Connections that are over on our side, and until when their names are kept; who waits to be accepted may wait."""
    _warned: set[int] = attrs.field(init=False, factory=set)
    """Ports of which what is said there has been told."""
    _has_work: trio.Event = attrs.field(init=False, factory=trio.Event)

    def join(self, session: Session, name: str) -> list[trio.Event]:
        """Subscribes to all ports at one session more, whose target the user knows by a name.

        Returns events that are set as that of `listen` is.
        """
        self._others[session] = name
        for port in self._ports.values():
            self._subscribe(port, session)
        return [each.answered for port in self._ports.values() for each in port.at(session)]

    def leave(self, session: Session) -> None:
        """Nothing comes from such a session any more; what has come lives as long as the session does."""
        del self._others[session]
        for port in list(self._ports.values()):
            for subscription in port.at(session):
                _end(port, subscription)
            self._end_what_is_unused(port)

    def listen(self, listening: Listening, asked: Asked) -> trio.Event:
        """A socket listens; the event is set when connections that begin from now on reach it, or never will.

        Where there are several sessions, that is for those that are there now.
        """
        port = self._ports.get(asked.port)
        if port is None:
            port = self._ports[asked.port] = _Port(asked)
            self._has_work.set()
        port.listeners[listening.inode] = listening
        for session in (self.session, *self._others):
            self._subscribe(port, session)
        settled = trio.Event()
        self.nursery.start_soon(_settle, list(port.subscriptions), settled)
        return settled

    def _subscribe(self, port: _Port, session: Session) -> None:
        missing = port.wanted.difference(*(each.families for each in port.at(session)))
        if missing:
            subscription = _Subscription(session, missing)
            port.subscriptions.append(subscription)
            self.nursery.start_soon(self._serve_port, port, subscription)

    async def _serve_port(self, port: _Port, subscription: _Subscription) -> None:
        try:
            remote = subscription.remote = await self._subscribed(port.asked, subscription)
            if subscription not in port.subscriptions:  # the session has left
                return
            subscription.answered.set()
            if remote is not None:
                self._warn(port.asked)
            self._end_what_is_unused(port)
            while remote is not None:
                stream = await remote.receive()
                self.nursery.start_soon(self._serve, port, subscription.session, stream)
        except SessionLost:  # which the user is told of once, for all
            pass
        except trio.ClosedResourceError:
            pass
        finally:
            subscription.answered.set()
            _end(port, subscription)
            self._end_what_is_unused(port)

    async def _subscribed(self, asked: Asked, subscription: _Subscription) -> RemoteListener | None:
        session = subscription.session
        other = self._others.get(session)
        name = f"port {asked.port}" if other is None else f"port {asked.port} of {other}"
        try:
            return await session.incoming.subscribe(
                asked.port,
                asked.mode,
                lambda notice: self.tell(f"{name}: {notice}"),
                http_filter=asked.http_filter,
                flush=asked.flush,
                mark=asked.mark,
                family=only(subscription.families),
            )
        except SessionLost:
            raise
        except OSError as error:
            done = "stolen from" if asked.mode == "steal" else "mirrored from"
            whom, whose = ("the target", "this machine only") if other is None else (other, "the others")
            self.tell(f"port {asked.port} is not {done} {whom}, the command serves {whose}: {error.strerror}")
            return None

    def _warn(self, asked: Asked) -> None:
        """Of what it means that this is stolen, once."""
        words = self.told_when_stolen.get(asked.port)
        if words and asked.mode == "steal" and asked.http_filter is None and asked.port not in self._warned:
            self._warned.add(asked.port)
            self.tell(f"port {asked.port} is stolen without a filter: {words}")

    def _end_what_is_unused(self, port: _Port) -> None:
        """Ends what brings nothing that anybody listens for, once it has been answered."""
        for subscription in list(port.subscriptions):
            if subscription.answered.is_set() and subscription.families.isdisjoint(port.wanted):
                _end(port, subscription)
        if not port.listeners and not port.subscriptions and self._ports.get(port.asked.port) is port:
            del self._ports[port.asked.port]

    # a connection

    async def _serve(self, port: _Port, session: Session, stream: RemoteStream) -> None:
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
                            await self.streams.exchange(connection, stream, sent, session.lost)
                finally:
                    self._settle(names)  # while the kernel still knows who is at the other end
        finally:
            stream.reset()  # no effect after an orderly end

    async def _connect(self, port: _Port, stream: RemoteStream) -> tuple[trio.socket.SocketType, Names] | None:
        """A connection to the process; None where it would refuse one in the pod, too."""
        assert isinstance(stream.peer, InetEndpoint)
        assert isinstance(stream.local, InetEndpoint)
        client, local = _plain_address(stream.peer), _plain_address(stream.local)
        for way in ways(port.listeners.values(), client, local):
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
        if row is not None and row.inode:
            arrival = self.arrivals.ended(names)
            if arrival is not None:
                self.arrivals.accepted(row.inode, arrival)
            self._keep(names, trio.current_time() + _KEPT_S)
        elif row is not None and row.state in WAITING_STATES:
            self.arrivals.ended(names)
            self._keep(names, math.inf)
        else:
            self._forget(names)

    def _keep(self, names: Names, until: float) -> None:
        self._unsettled[names] = until
        if len(self._unsettled) > _UNSETTLED_AT_MOST:
            self._forget(next(iter(self._unsettled)))
        self._has_work.set()

    def _settle_later(self, names: Names, is_served: bool) -> None:
        """`is_served`: whether the process still listens where it would accept the connection."""
        here, now = self.streams.here, trio.current_time()
        until = min(self._unsettled[names], math.inf if is_served else now + _KEPT_S)
        self._unsettled[names] = until
        if until < math.inf:
            if until <= now:
                self._forget(names)
        elif names.are_anothers(here):
            self._forget(names)
        elif here.row("tcp", names.destination, names.source) is not None:
            self._settle(names)

    def _forget(self, names: Names) -> None:
        self._unsettled.pop(names, None)
        self.arrivals.forget(names)

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
                served = {each.here.port for port in self._ports.values() for each in port.listeners.values()}
                for names in list(self._unsettled):
                    self._settle_later(names, names.destination.port in served)
        finally:
            endings.close()

    def _look_at(self, port: _Port) -> None:
        numbers = {listening.here.port for listening in port.listeners.values()}
        present = {row.inode for number in numbers for row in self.streams.here.bound("tcp", number)}
        for inode in port.listeners.keys() - present:
            del port.listeners[inode]
        self._end_what_is_unused(port)


def _end(port: _Port, subscription: _Subscription) -> None:
    """Safe to call twice."""
    if subscription.remote is not None:
        subscription.remote.close()
    if subscription in port.subscriptions:
        port.subscriptions.remove(subscription)


async def _settle(subscriptions: Iterable[_Subscription], settled: trio.Event) -> None:
    for subscription in subscriptions:
        await subscription.answered.wait()
    settled.set()


def _plain_address(endpoint: InetEndpoint) -> Inet4 | Inet6:
    address = address_of_endpoint(endpoint, socket.AF_INET)
    assert isinstance(address, Inet4 | Inet6)
    return plain(address)
