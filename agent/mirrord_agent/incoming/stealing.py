"""Steals ports of the target: what is sent there comes to listeners of the agent's, by `redirects`.

The first port makes the session one of those on the target (`registry`), with a table of redirects and a listener for
TCP. Who connects to the listener without having been redirected is refused: its port is nobody's business.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from mirrord_agent import addresses
from mirrord_agent.incoming import any_address, connections, stolen_datagrams
from mirrord_agent.incoming.arrivals import TOO_MANY, Arrivals
from mirrord_agent.incoming.destinations import original_destination
from mirrord_agent.incoming.redirects import Redirects
from mirrord_agent.incoming.registry import Membership
from mirrord_agent.incoming.reserved import ReservedDescriptor
from mirrord_agent.incoming.stolen_datagrams import StolenDatagrams
from mirrord_agent.incoming.subscriptions import Subscription, in_words
from mirrord_agent.link import Link
from mirrord_agent.outgoing import Connection, reset_when_closed
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import InetEndpoint

if TYPE_CHECKING:
    from mirrord_agent.incoming.routed import RoutedConnection

_BACKLOG = 4096
#: Connections accepted in a row before others get their turn.
_BATCH = 64
#: How long to wait when the agent is out of descriptors or memory.
_RECOVERY_S = 0.1
#: How long what was sent may take to be acknowledged when the session has ended.
_DRAIN_S = 2.0
_PAUSE_S = 0.01
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@attrs.frozen(eq=False)
class _Stolen:
    """A port that is stolen."""

    subscription: Subscription
    claim: socket.socket
    """What others see of it."""


@attrs.frozen
class _Means:
    """What it takes to steal."""

    membership: Membership
    redirects: Redirects
    listener: socket.socket
    listener_port: int


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
        self._tcp: dict[int, _Stolen] = {}
        self._udp: dict[int, _Stolen] = {}
        self._routed: dict[RoutedConnection, None] = {}

    async def begin(self, subscription: Subscription, *, flush: bool) -> None:
        """Steals connections to a TCP port that begin from now on. Raises OSError, with words for the user.

        With `flush` those that the target has are reset.
        """
        means = await self._have_means()
        claim = await self._claim(means, subscription, means.listener_port)
        try:
            means.redirects.add(subscription.port, means.listener_port)
        except BaseException:
            claim.close()
            raise
        self._tcp[subscription.port] = _Stolen(subscription, claim)
        if flush:
            try:
                means.redirects.flush(subscription.port)
            except BaseException:
                self.end(subscription)
                raise

    def end(self, subscription: Subscription) -> None:
        """Steals no new connections to the port."""
        self._give_back(self._tcp.pop(subscription.port))

    def _give_back(self, stolen: _Stolen) -> None:
        assert self._means is not None
        subscription = stolen.subscription
        with suppress(OSError):  # somebody has removed the redirects already
            self._means.redirects.remove(subscription.port, subscription.protocol)
        stolen.claim.close()

    async def begin_datagrams(self, subscription: Subscription) -> StolenDatagrams:
        """Steals datagrams to a UDP port. Raises OSError, with words for the user."""
        means = await self._have_means()
        listener = stolen_datagrams.open_listener()
        try:
            listener_port: int = listener.getsockname()[1]
            claim = await self._claim(means, subscription, listener_port)
            try:
                means.redirects.add(subscription.port, listener_port, "udp")
            except BaseException:
                claim.close()
                raise
        except BaseException:
            listener.close()
            raise
        self._udp[subscription.port] = _Stolen(subscription, claim)
        return StolenDatagrams(self._link, subscription.stream, listener)

    def end_datagrams(self, subscription: Subscription) -> None:
        """Steals none any more."""
        self._give_back(self._udp.pop(subscription.port))

    async def _claim(self, means: _Means, subscription: Subscription, listener_port: int) -> socket.socket:
        """Sees to it that nobody else has the port. Raises OSError."""
        is_filtered = subscription.accepts is not None
        return await means.membership.claim(
            subscription.protocol, subscription.port, listener_port, self._owner, filtered=is_filtered
        )

    async def _have_means(self) -> _Means:
        """Raises OSError."""
        async with self._choosing:
            if self._means is None:
                self._means = await self._open_means()
                self._start_keeper(self._accept, self._means.listener)
            return self._means

    async def _open_means(self) -> _Means:
        membership = await Membership.join()
        try:
            listener = _open_listener()
            try:
                redirects = Redirects.open(membership.order, descriptor=self._reserved.take())
            except BaseException:
                self._reserved.give_back()
                listener.close()
                raise
        except BaseException:
            membership.close()
            raise
        return _Means(membership, redirects, listener, listener.getsockname()[1])

    def stop(self) -> None:
        """Steals nothing any more; connections that are there go on."""
        for stolen in list(self._tcp.values()):
            self.end(stolen.subscription)
        for stolen in list(self._udp.values()):
            self.end_datagrams(stolen.subscription)
        if self._means is not None:
            self._means.listener.close()

    async def drain(self) -> None:
        """Waits until the real clients have what was sent to them, but not for long. The redirects serve that."""
        if self._means is None:
            return
        with trio.move_on_after(_DRAIN_S), suppress(OSError):  # where the kernel tells nothing of its sockets
            while True:
                if not connections.unfinished(self._means.listener_port):
                    return
                await trio.sleep(_PAUSE_S)

    def close(self) -> None:
        """Removes the redirects, which connections need as long as there are any."""
        if self._means is not None:
            self._means.redirects.close()
            self._means.membership.close()

    async def _accept(self, listener: socket.socket) -> None:
        accepted = 0
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(listener)
                continue
            except OSError as error:
                # Others are of a connection that is gone already (accept(2)).
                if error.errno in _EXHAUSTED:
                    await trio.sleep(_RECOVERY_S)
                continue
            self._take(connection)
            accepted += 1
            if accepted % _BATCH == 0:
                await trio.lowlevel.checkpoint()

    def _take(self, connection: socket.socket) -> None:
        """Serves a connection, or refuses it."""
        try:
            connection = self._reserved.below(connection)
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local = original_destination(connection)
            peer = addresses.unmapped(addresses.from_sockaddr(connection.getpeername()))
        except OSError:  # its client has gone already
            connection.close()
            return
        stolen = self._tcp.get(local.port) if local is not None else None
        if local is None or stolen is None:
            _refuse(connection)
        elif not self._arrivals.take_place():
            _refuse(connection)
            stolen.subscription.notices.tell(
                f"a connection of {in_words(peer)} to port {local.port} was refused: {TOO_MANY}"
            )
        elif stolen.subscription.accepts is None:
            self._start_task(partial(self._serve, stolen.subscription, connection, peer, local))
        else:
            self._route(stolen.subscription, connection, peer, local)

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


def _open_listener() -> socket.socket:
    """For connections to any address. Raises OSError."""
    listener = any_address.open_socket(socket.SOCK_STREAM)
    try:
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _refuse(connection: socket.socket) -> None:
    reset_when_closed(connection)
    connection.close()
