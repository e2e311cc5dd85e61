"""Mirrors the target's ports: copies of their packets become copies of their connections, for the client.

One task takes packets in batches and never waits for anything else. What a batch brings goes to the copies first and
from there to the link, so that many packets make one frame.

What the target sends is heard only while connections are followed, and at a fast pace hardly at all, because that slows
the target down: then it is of use only where something is missing, to tell whether it was lost here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial

import trio

from mirrord_agent.incoming import events, families, registry
from mirrord_agent.incoming.arrivals import TOO_MANY, Arrivals
from mirrord_agent.incoming.capture import Capture
from mirrord_agent.incoming.families import Port
from mirrord_agent.incoming.followed import Copies, Followed
from mirrord_agent.incoming.local_addresses import LocalAddresses
from mirrord_agent.incoming.mirrored_datagrams import MirroredDatagrams
from mirrord_agent.incoming.mirrored_stream import Backlog
from mirrord_agent.incoming.pace import Pace
from mirrord_agent.incoming.reassembly import Reassembler
from mirrord_agent.incoming.subscriptions import Subscription, in_words
from mirrord_agent.incoming.translations import Translations
from mirrord_agent.link import Link
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import InetEndpoint

#: How often time is told to whoever waits for what does not come.
_LOOK_EVERY_S = 1.0
#: Where packets come fast the target is heard for a moment every now and then, if something is missing: long enough for
#: those who say much to acknowledge what they have got.
_SAMPLED_EVERY_S, _SAMPLE_S = 0.25, 0.01


class Mirroring:
    """All that a session mirrors."""

    def __init__(self, link: Link, pool: WindowPool, arrivals: Arrivals) -> None:
        """Raises OSError, with words for the user, if packets may not be captured."""
        self._link = link
        self._arrivals = arrivals
        with ExitStack() as opened:
            self._addresses = LocalAddresses()
            opened.callback(self._addresses.close)
            self._translations = Translations()
            opened.callback(self._translations.close)
            self._capture = Capture()
            opened.callback(self._capture.close)
            self._opened = opened.pop_all()
        self._reassembler = Reassembler(self._addresses.__contains__)
        self._tcp: dict[Port, Subscription] = {}
        self._udp: dict[Port, MirroredDatagrams] = {}
        self._followed: dict[int, Followed] = {}
        self._touched: dict[Followed, None] = {}
        """Those that have got something of the present batch."""
        self._awaiting: dict[Followed, None] = {}
        """Those that wait for something until a deadline."""
        self._waiting = trio.Event()
        self._backlog = Backlog(wake=lambda: self._waiting.set())
        self._copies = Copies(link, pool, arrivals, self._backlog, self._awaiting)

    def begin(self, subscription: Subscription) -> None:
        """Copies connections to a TCP port that begin from now on. Raises OSError."""
        self._reassembler.subscribe(subscription.port, subscription.family)
        try:
            self._watch()
        except BaseException:
            self._reassembler.unsubscribe(subscription.port, subscription.family)
            raise
        self._tcp.update(dict.fromkeys(_ports(subscription), subscription))

    def end(self, subscription: Subscription) -> None:
        """Copies no new connections to the port."""
        for port in _ports(subscription):
            del self._tcp[port]
        self._reassembler.unsubscribe(subscription.port, subscription.family)

    def begin_datagrams(self, subscription: Subscription) -> MirroredDatagrams:
        """Copies datagrams to a UDP port. Raises OSError."""
        self._reassembler.subscribe_datagrams(subscription.port, subscription.family)
        try:
            self._watch()
        except BaseException:
            self._reassembler.unsubscribe_datagrams(subscription.port, subscription.family)
            raise
        flow = MirroredDatagrams(self._link, subscription.stream)
        self._udp.update(dict.fromkeys(_ports(subscription), flow))
        return flow

    def end_datagrams(self, subscription: Subscription) -> None:
        """Copies none any more."""
        for port in _ports(subscription):
            del self._udp[port]
        self._reassembler.unsubscribe_datagrams(subscription.port, subscription.family)

    def _watch(self) -> None:
        self._capture.watch(self._reassembler.tcp_ports, self._reassembler.udp_ports)

    def close(self) -> None:
        """Captures nothing any more."""
        self._opened.close()

    async def run(self) -> None:
        """Follows what is captured."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_when_there_is_room)
            await self._follow()

    async def _follow(self) -> None:
        pace = Pace(trio.current_time())
        look_s = trio.current_time() + _LOOK_EVERY_S
        while True:
            with trio.move_on_at(min([look_s, *filter(None, (each.deadline for each in self._awaiting))])):
                await self._capture.wait()
            now_s = trio.current_time()
            for packet in self._capture.packets(lambda: self._reassembler.needs_payloads):
                self._hear(self._reassembler.feed(packet, now_s))
            pace.count(self._capture.taken, now_s)
            self._capture.hear_target(self._needs_target(pace, now_s))
            if now_s >= look_s:
                self._hear(self._reassembler.expire(now_s))
                self._watch()
                look_s = now_s + _LOOK_EVERY_S
            for followed in [each for each in self._awaiting if (each.deadline or math.inf) <= now_s]:
                followed.expire()
            for followed in self._touched:
                followed.flush()
            self._touched.clear()

    def _needs_target(self, pace: Pace, now_s: float) -> bool:
        """Whether what the target sends is of use, and worth what it costs."""
        if pace.is_fast:
            return self._reassembler.has_gaps and now_s % _SAMPLED_EVERY_S < _SAMPLE_S
        return self._reassembler.is_busy

    def _hear(self, heard: Iterable[events.Event]) -> None:
        for event in heard:
            match event:
                case events.Opened():
                    self._open(event)
                case events.Datagram(client, local, payload):
                    self._udp[_port_of(local)].send(client, payload)
                case _ if followed := self._followed.get(event.connection):
                    self._touched[followed] = None
                    followed.hear(event)

    def _open(self, opened: events.Opened) -> None:
        subscription = self._tcp[_port_of(opened.local)]
        if self._is_led_elsewhere(opened):
            self._reassembler.forget(opened.connection)
            return
        if not self._arrivals.take_place():
            self._reassembler.forget(opened.connection)
            subscription.notices.tell(
                f"a connection of {in_words(opened.client)} to port {opened.local.port} was not mirrored: {TOO_MANY}"
            )
            return
        forget = partial(self._forget, opened.connection)
        self._followed[opened.connection] = self._copies.follow(subscription, opened, forget)

    def _is_led_elsewhere(self, opened: events.Opened) -> bool:
        """Whether others than the target and sessions have a connection, such as the proxy of a service mesh."""
        port = self._translations.port_reached(opened)
        if port is None or port == opened.local.port:
            return False
        return port not in {claim.listener_port for claim in registry.claims()}

    def _forget(self, connection: int) -> None:
        """Nobody follows a connection any more."""
        self._reassembler.forget(connection)
        followed = self._followed.pop(connection)
        self._awaiting.pop(followed, None)
        self._arrivals.leave_place()

    async def _send_when_there_is_room(self) -> None:
        """For those that the link had no room for, in turns."""
        while True:
            await self._waiting.wait()
            self._waiting = trio.Event()
            while self._backlog.waiting:
                await self._link.room()
                for stream in list(self._backlog.waiting):
                    del self._backlog.waiting[stream]
                    stream.flush()
                await trio.lowlevel.checkpoint()


def _ports(subscription: Subscription) -> frozenset[Port]:
    return families.ports(subscription.port, family=subscription.family)


def _port_of(local: InetEndpoint) -> Port:
    return "inet6" if ":" in local.host else "inet4", local.port
