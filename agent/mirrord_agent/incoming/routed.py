"""Stolen connections of which the client's process gets the HTTP requests that a filter takes, the target all else.

A `ConnectionRouter` decides; here are the connections that it speaks of. The real client and the target have sockets,
the process has a stream of the session's. Each of these legs is a task of its own: it outlives the others for as long
as it has something to deliver.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import attrs
import trio

from mirrord_agent.incoming.arrivals import Arrivals
from mirrord_agent.incoming.http.actions import Action, Close, End, Notice, Open, Raw, Send, Side
from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.marks import OF_PROCESS
from mirrord_agent.incoming.http.router import ConnectionRouter
from mirrord_agent.incoming.process_leg import ProcessLeg
from mirrord_agent.incoming.socket_leg import SocketLeg
from mirrord_agent.incoming.subscriptions import Subscription
from mirrord_agent.link import Link
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import InetEndpoint


@attrs.frozen
class Surroundings:
    """What routed connections have in common."""

    link: Link
    pool: WindowPool
    arrivals: Arrivals
    start_task: Callable[..., None]
    mark: int
    """SO_MARK of connections to the target."""
    finished: Callable[[RoutedConnection], None]
    """Told when nothing is left of one."""


class Leg(Protocol):
    """A connection to a side, until the router closes it. None of this blocks."""

    def send(self, data: bytes) -> None:
        """Writes this behind what was written before."""

    def end(self) -> None:
        """Nothing more will be written."""

    def close(self, *, reset: bool) -> None:
        """Writes what is left and closes, or resets at once. Nothing of it is reported any more."""

    def wake(self) -> None:
        """It may be read again, perhaps."""


class RoutedConnection:
    """One of them."""

    def __init__(
        self,
        surroundings: Surroundings,
        subscription: Subscription,
        accepts: Filter,
        peer: InetEndpoint,
        local: InetEndpoint,
    ) -> None:
        self._surroundings = surroundings
        self._subscription = subscription
        self._peer = peer
        self._local = local
        self._router = ConnectionRouter(accepts, OF_PROCESS if subscription.marks else None)
        self._legs: dict[Side, Leg] = {}
        self._actions: deque[Action] = deque()
        self._is_acting = False
        self._has_timer = False
        self._legs_left = 0
        self._is_let_go = False
        """Whether the client has left: its process is not there any more."""

    def begin(self, client: socket.socket) -> None:
        """Serves the client, and connects to the target."""
        self._open_socket(Side.CLIENT, client)
        self._open(Side.TARGET)

    def let_go(self) -> None:
        """Ends it as soon as no request is under way."""
        self._is_let_go = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._router.is_idle:
            for side in list(self._legs):
                self._legs.pop(side).close(reset=False)

    # What the legs report.

    def reads(self, leg: Leg, side: Side) -> bool:
        """Whether bytes of a leg are wanted now."""
        return self._legs.get(side) is leg and self._router.reads(side)

    def receive(self, leg: Leg, side: Side, data: bytes) -> None:
        """A leg has said this."""
        if self._legs.get(side) is leg:
            self._act(self._router.receive(side, data, trio.current_time()))

    def ended(self, leg: Leg, side: Side, *, reset: bool = False) -> None:
        """A leg says no more, or is broken."""
        if self._legs.get(side) is leg:
            self._act(self._router.ended(side, trio.current_time(), reset=reset))

    def unreachable(self, leg: Leg, side: Side) -> None:
        """There is nobody at the other end of a leg."""
        if self._legs.get(side) is leg:
            del self._legs[side]
            self._act(self._router.unreachable(side, trio.current_time()))

    def written(self, leg: Leg, side: Side, amount: int) -> None:
        """So many bytes have gone out."""
        if self._legs.get(side) is leg:
            self._act(self._router.written(side, amount, trio.current_time()))

    # What the router wants.

    def _act(self, actions: Sequence[Action]) -> None:
        """Carries it out, in order also where it wants more meanwhile."""
        self._actions.extend(actions)
        if self._is_acting:
            return
        self._is_acting = True
        while self._actions:
            self._carry_out(self._actions.popleft())
        self._is_acting = False
        if self._is_let_go:
            self._end_if_idle()
        for leg in list(self._legs.values()):
            leg.wake()
        if self._router.deadline is not None and not self._has_timer and self._legs:
            self._has_timer = True
            self._surroundings.start_task(self._expire)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Open(side):
                self._open(side)
            case Send(side, data):
                if leg := self._legs.get(side):
                    leg.send(data)
            case End(side):
                if leg := self._legs.get(side):
                    leg.end()
            case Close(side, reset):
                if leg := self._legs.pop(side, None):
                    leg.close(reset=reset)
            case Notice(message):
                self._subscription.notices.tell(message)
            case Raw():
                pass  # the router passes on what comes

    async def _expire(self) -> None:
        while self._legs and (deadline := self._router.deadline) is not None:
            await trio.sleep_until(deadline)
            if self._router.deadline == deadline:
                self._act(self._router.expire(trio.current_time()))
        self._has_timer = False

    def _open(self, side: Side) -> None:
        around = self._surroundings
        if side is Side.PROCESS and self._is_let_go:
            self._act(self._router.unreachable(side, trio.current_time()))
        elif side is Side.PROCESS:
            number = around.arrivals.next_stream()
            leg = ProcessLeg(self, around.link, around.pool, number, around.arrivals)
            self._legs[side] = leg
            around.arrivals.announce(number, leg, self._subscription.stream, self._peer, self._local)
            self._run(leg.run)
        else:
            self._open_socket(side, None)

    def _open_socket(self, side: Side, connected: socket.socket | None) -> None:
        leg = SocketLeg(self, side, connected, self._local, self._surroundings.mark)
        self._legs[side] = leg
        self._run(leg.run)

    def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        self._legs_left += 1
        self._surroundings.start_task(self._run_leg, run)

    async def _run_leg(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        finally:
            self._legs_left -= 1
            if not self._legs_left:
                self._surroundings.finished(self)
