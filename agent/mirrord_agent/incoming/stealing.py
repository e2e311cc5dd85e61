"""Steals ports of the target: what is sent there comes to listeners of the agent's, by `redirects`.

The first port makes the session one of those on the target (`registry`), with a table of redirects.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from mirrord_agent.incoming import connections, stale_translations, stolen_datagrams
from mirrord_agent.incoming.arrivals import TOO_MANY, Arrivals
from mirrord_agent.incoming.redirects import Redirects
from mirrord_agent.incoming.registry import Membership
from mirrord_agent.incoming.reserved import ReservedDescriptor
from mirrord_agent.incoming.stolen_connections import StolenConnections, refuse
from mirrord_agent.incoming.stolen_datagrams import StolenDatagrams
from mirrord_agent.incoming.subscriptions import Subscription, in_words
from mirrord_agent.link import Link
from mirrord_agent.outgoing import Connection
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import InetEndpoint

if TYPE_CHECKING:
    from mirrord_agent.incoming.routed import RoutedConnection

#: How long what was sent may take to be acknowledged when the session has ended.
_DRAIN_S = 2.0
_PAUSE_S = 0.01


@attrs.frozen(eq=False)
class _Stolen:
    """A port that is stolen."""

    subscription: Subscription
    claim: socket.socket
    """What others see of it."""
    listener: StolenConnections | None = None
    """Of a TCP port."""


@attrs.frozen
class _Means:
    """What it takes to steal."""

    membership: Membership
    redirects: Redirects


class Stealing:
    """All that a session steals."""

    def __init__(
        self,
        link: Link,
        pool: WindowPool,
        arrivals: Arrivals,
        owner: str,
        reserved: ReservedDescriptor,
        start_task: Callable[..., None],
        start_keeper: Callable[..., None],
    ) -> None:
        """`owner` says for people whose session it is. `start_keeper` starts what ends before the connections do."""
        self._link = link
        self._pool = pool
        self._arrivals = arrivals
        self._owner = owner
        self._start_task = start_task
        self._start_keeper = start_keeper
        self._reserved = reserved
        self._choosing = trio.Lock()
        self._means: _Means | None = None
        self._tcp: dict[Subscription, _Stolen] = {}
        self._udp: dict[Subscription, _Stolen] = {}
        self._routed: dict[RoutedConnection, None] = {}
        self._listener_ports: set[int] = set()
        """Of TCP, also of listeners that are closed: their connections live on."""

    async def begin(self, subscription: Subscription, *, flush: bool) -> None:
        """Steals connections to a TCP port that begin from now on. Raises OSError, with words for the user.

        With `flush` those that the target has are reset.
        """
        means = await self._have_means()
        with suppress(OSError):  # where the kernel tells nothing of them they go by themselves, some minutes later
            stale_translations.forget(subscription.port)
        listener = StolenConnections(subscription.port, self._reserved)
        try:
            claim = await self._redirect(means, subscription, listener.listener_port)
        except BaseException:
            listener.close()
            raise
        self._tcp[subscription] = stolen = _Stolen(subscription, claim, listener)
        self._listener_ports.add(listener.listener_port)
        self._start_keeper(listener.run, partial(self._take, stolen))
        if flush:
            try:
                means.redirects.flush(subscription.port, subscription.family)
            except BaseException:
                self.end(subscription)
                raise

    def end(self, subscription: Subscription) -> None:
        """Steals no new connections to the port."""
        self._give_back(self._tcp.pop(subscription))

    def _give_back(self, stolen: _Stolen) -> None:
        assert self._means is not None
        subscription = stolen.subscription
        with suppress(OSError):  # somebody has removed the redirects already
            self._means.redirects.remove(subscription.port, subscription.protocol, subscription.family)
        if stolen.listener is not None:
            stolen.listener.close()
        stolen.claim.close()

    async def begin_datagrams(self, subscription: Subscription) -> StolenDatagrams:
        """Steals datagrams to a UDP port. Raises OSError, with words for the user."""
        means = await self._have_means()
        listener = stolen_datagrams.open_listener()
        try:
            claim = await self._redirect(means, subscription, listener.getsockname()[1])
        except BaseException:
            listener.close()
            raise
        self._udp[subscription] = _Stolen(subscription, claim)
        return StolenDatagrams(self._link, subscription.stream, listener)

    def end_datagrams(self, subscription: Subscription) -> None:
        """Steals none any more."""
        self._give_back(self._udp.pop(subscription))

    async def _redirect(self, means: _Means, subscription: Subscription, listener_port: int) -> socket.socket:
        """Has a port come to a listener's, if nobody else has it; the claim. Raises OSError."""
        port, protocol, family = subscription.port, subscription.protocol, subscription.family
        is_filtered = subscription.accepts is not None
        claim = await means.membership.claim(
            protocol, port, listener_port, self._owner, filtered=is_filtered, family=family
        )
        try:
            means.redirects.add(port, listener_port, protocol, family)
        except BaseException:
            claim.close()
            raise
        return claim

    async def _have_means(self) -> _Means:
        """Raises OSError."""
        async with self._choosing:
            if self._means is None:
                self._means = await self._open_means()
            return self._means

    async def _open_means(self) -> _Means:
        membership = await Membership.join()
        try:
            redirects = Redirects.open(membership.order, descriptor=self._reserved.take())
        except BaseException:
            self._reserved.give_back()
            membership.close()
            raise
        self._start_keeper(redirects.keep_guarded)
        return _Means(membership, redirects)

    def stop(self) -> None:
        """Steals nothing any more; connections that are there go on."""
        for stolen in list(self._tcp.values()):
            self.end(stolen.subscription)
        for stolen in list(self._udp.values()):
            self.end_datagrams(stolen.subscription)

    async def drain(self) -> None:
        """Waits until the real clients have what was sent to them, but not for long. The redirects serve that."""
        if not self._listener_ports:
            return
        with trio.move_on_after(_DRAIN_S), suppress(OSError):  # where the kernel tells nothing of its sockets
            while True:
                if not connections.unfinished(self._listener_ports):
                    return
                await trio.sleep(_PAUSE_S)

    def close(self) -> None:
        """Removes the redirects, which connections need as long as there are any."""
        if self._means is not None:
            self._means.redirects.close()
            self._means.membership.close()

    def _take(self, stolen: _Stolen, connection: socket.socket, peer: InetEndpoint, local: InetEndpoint) -> None:
        subscription = stolen.subscription
        if not self._arrivals.take_place():
            refuse(connection)
            subscription.notices.tell(f"a connection of {in_words(peer)} to port {local.port} was refused: {TOO_MANY}")
        elif subscription.accepts is None:
            self._start_task(partial(self._serve, subscription, connection, peer, local))
        else:
            self._route(subscription, connection, peer, local)

    async def _serve(
        self, subscription: Subscription, connected: socket.socket, peer: InetEndpoint, local: InetEndpoint
    ) -> None:
        number = self._arrivals.next_stream()
        connection = Connection(self._link, self._pool, number, connected)
        self._arrivals.announce(number, connection, subscription.stream, peer, local)
        try:
            await connection.run()
        finally:
            self._arrivals.end(number)
            self._arrivals.leave_place()

    def _route(
        self, subscription: Subscription, connected: socket.socket, peer: InetEndpoint, local: InetEndpoint
    ) -> None:
        from mirrord_agent.incoming.routed import RoutedConnection, Surroundings  # loaded with the first filter

        assert self._means is not None
        assert subscription.accepts is not None
        surroundings = Surroundings(
            self._link, self._pool, self._arrivals, self._start_task, self._means.redirects.mark, self._forget
        )
        routed = RoutedConnection(surroundings, subscription, subscription.accepts, peer, local)
        self._routed[routed] = None
        routed.begin(connected)

    def _forget(self, routed: RoutedConnection) -> None:
        """A connection is over."""
        del self._routed[routed]
        self._arrivals.leave_place()

    def let_go(self) -> None:
        """Has the connections that are routed end with what they have to write."""
        for routed in list(self._routed):
            routed.let_go()
