"""Routes one HTTP/1 connection of a client, request by request, between the target's process and the user's.

The target gets the client's bytes, unchanged, on one connection. That is opened when the client connects, so that a
server that speaks first is heard at once: whatever it says makes the connection raw, as does anything that is not HTTP.
So nobody ever waits for a guess.

One side has its turn at a time. Requests that follow one another to the same side are passed on as they come; one for
the other side waits until all before it are answered. Thus responses are in order by themselves, nothing is kept but
what the client sent ahead, and no request is begun before those that its client sent first are done.

Where it cannot be told any more what belongs to whom, the connection becomes raw: all that follows goes to one side.
That is the target, unless the bytes are part of what the process already has: its request's body, its response, the
protocol that it switched to.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from mirrord_agent.incoming.http.actions import Action, Actions, Side
from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.framing import NotHttpError
from mirrord_agent.incoming.http.marks import Mark
from mirrord_agent.incoming.http.readers import HELD_LIMIT, Judged, RequestReader, ResponseReader
from mirrord_agent.incoming.http.relay import Relay

#: Requests that may be unanswered at a time; later ones wait.
MAX_UNANSWERED = 64

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Server(enum.Enum):
    """How far the connection to a server is."""

    AWAY = enum.auto()
    """There is none, and one can be had."""
    UNUSED = enum.auto()
    """There is one, and nothing was sent on it."""
    USED = enum.auto()
    ENDED = enum.auto()
    """The server sends no more, and the client is to see that."""
    UNREACHABLE = enum.auto()


@attrs.define
class _Exchange:
    """A request that was passed on and is not answered."""

    method: bytes
    closes: bool
    """Whether the connection ends with its answer."""
    is_last: bool
    """Whether it depends on its answer what follows it."""
    drops_continue: bool
    """Whether the client has been told already to send the body."""


class Http1Router:
    """Routes one connection, as `actions.Router` says. The target's is there already, or under way."""

    def __init__(self, accepts: Filter, mark: Mark | None = None) -> None:
        self._actions = Actions()
        self._mark = mark
        self._requests = RequestReader(accepts)
        self._responses = {Side.TARGET: ResponseReader(), Side.PROCESS: ResponseReader()}
        self._servers = {Side.TARGET: _Server.UNUSED, Side.PROCESS: _Server.AWAY}
        self._unanswered: deque[_Exchange] = deque()
        self._turn = Side.TARGET
        """Who has the requests that are not answered, or had the last one."""
        self._has_begun = False
        """Whether there has been a request."""
        self._has_asked = False
        """Whether the client was told to send the body of the next request."""
        self._response_closes = False
        self._client_has_ended = False
        self._relay: Relay | None = None
        self._broken = False

    @property
    def deadline(self) -> float | None:
        """When the body of a request has been awaited long enough."""
        return self._requests.deadline if self._is_routing else None

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, or none is told from others any more."""
        is_busy = self._unanswered or self._requests.is_in_body() or self._requests.held
        return not (self._is_routing and is_busy)

    def reads(self, side: Side) -> bool:
        """Whether bytes of this side are wanted now."""
        if self._relay is not None:
            return self._relay.reads(side)
        if self._broken:
            return False
        if side is Side.CLIENT:
            has_room = self._actions.has_room(Side.TARGET) and self._actions.has_room(Side.PROCESS)
            return has_room and self._requests.held < HELD_LIMIT
        return self._actions.has_room(Side.CLIENT) and self._responses[side].held < HELD_LIMIT

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """A side has sent this."""
        if self._broken:
            return []
        if self._relay is not None:
            self._relay.receive(side, data)
        elif side is Side.CLIENT:
            self._requests.feed(data)
        else:
            self._respond(side, data)
        return self._go_on(now)

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """A side sends no more, or has reset its connection."""
        if self._broken:
            return []
        if self._relay is not None:
            self._relay.end(side, reset=reset)
        elif side is not Side.CLIENT:
            self._end_server(side, reset)
        elif reset:
            self._break()
        else:
            self._client_has_ended = True
            self._requests.end()
        return self._go_on(now)

    def unreachable(self, side: Side, now: float) -> list[Action]:
        """There is no connection to this side to be had."""
        if self._broken:
            return []
        self._servers[side] = _Server.UNREACHABLE
        if self._relay is not None:
            self._relay.end(side, reset=True)
        elif self._has_work(side):
            self._break()
        return self._go_on(now)

    def written(self, side: Side, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to this side."""
        self._actions.written(side, amount)
        return []

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        return self._go_on(now)

    @property
    def _is_routing(self) -> bool:
        return self._relay is None and not self._broken

    def _go_on(self, now: float) -> list[Action]:
        """Does all that can be done now."""
        while self._is_routing and self._step(now):
            pass
        return self._actions.take()

    def _step(self, now: float) -> bool:
        """Moves one request on; returns whether there may be another."""
        if self._target_has_left():
            self._become_raw(Side.TARGET)
            return False
        if self._requests.is_in_body():
            return self._pass_body_on()
        if self._unanswered and self._unanswered[-1].is_last:
            self._end_requests()
            return False
        try:
            judged = self._requests.next(now)
        except NotHttpError:
            if self._may_turn_to(Side.TARGET):
                self._become_raw(Side.TARGET)
            return False
        if judged is not None:
            return self._pass_request_on(judged)
        if self._requests.must_ask and not self._unanswered:
            self._actions.send(Side.CLIENT, _CONTINUE)
            self._requests.asked(now)
            self._has_asked = True
        self._end_requests()
        return False

    def _pass_body_on(self) -> bool:
        try:
            self._actions.send(self._turn, self._requests.take_body())
        except NotHttpError:
            self._become_raw(self._turn)
            return False
        if self._requests.is_in_body():
            self._end_requests()
        return not self._requests.is_in_body()

    def _pass_request_on(self, judged: Judged) -> bool:
        side = Side.PROCESS if judged.matches else Side.TARGET
        if not self._may_turn_to(side) or len(self._unanswered) >= MAX_UNANSWERED or not self._reach(side):
            return False
        if judged.notice is not None:
            self._actions.notice(judged.notice)
        self._turn = side
        self._has_begun = True
        head = judged.head
        self._unanswered.append(
            _Exchange(head.line.method, head.closes, head.closes or head.may_switch, self._has_asked)
        )
        self._has_asked = False
        self._actions.send(side, self._requests.take_head())
        return True

    def _may_turn_to(self, side: Side) -> bool:
        return self._turn is side or not self._unanswered

    def _has_work(self, side: Side) -> bool:
        return self._turn is side and (bool(self._unanswered) or self._requests.is_in_body())

    def _reach(self, side: Side) -> bool:
        """Sees to it that there is a connection to be used; returns whether there can be."""
        match self._servers[side]:
            case _Server.UNREACHABLE:
                self._break()
                return False
            case _Server.AWAY:
                self._responses[side] = ResponseReader()
                self._actions.open(side)
        if self._servers[side] is not _Server.ENDED:
            self._servers[side] = _Server.USED
        return True

    def _drop(self, side: Side) -> None:
        """Does without a connection that has nothing to do."""
        if self._servers[side] in (_Server.UNUSED, _Server.USED, _Server.ENDED):
            self._actions.close(side)
            self._servers[side] = _Server.AWAY

    def _end_requests(self) -> None:
        """Says so if no more requests will come."""
        if not self._client_has_ended:
            return
        if self._unanswered or self._requests.is_in_body():
            if not self._requests.held:
                self._actions.end(self._turn)
        elif self._requests.held or self._servers[self._turn] is _Server.AWAY:
            self._become_raw(Side.TARGET)
        else:
            self._become_raw(self._turn)

    def _respond(self, side: Side, data: bytes) -> None:
        self._responses[side].feed(data)
        while self._is_routing and self._answer(side, self._responses[side]):
            pass

    def _answer(self, side: Side, reader: ResponseReader) -> bool:
        """Moves one response on; returns whether there may be another."""
        if self._turn is not side or not self._unanswered:
            self._hear_unasked(side)
            return False
        try:
            if reader.is_in_body():
                self._actions.send(Side.CLIENT, reader.take_body())
                return not reader.is_in_body() and self._count_answered(side)
            found = reader.next(self._unanswered[0].method)
        except NotHttpError:
            self._become_raw(side)
            return False
        if found is None:
            return False
        head, data = found
        exchange = self._unanswered[0]
        if head.switches(exchange.method):
            self._actions.send(Side.CLIENT, self._marked(side, data))
            self._become_raw(side)
            return False
        if not head.is_final:
            if head.status != 100 or not exchange.drops_continue:
                self._actions.send(Side.CLIENT, data)
            exchange.drops_continue &= head.status != 100
            return True
        self._actions.send(Side.CLIENT, self._marked(side, data))
        self._response_closes = head.closes
        return reader.is_in_body() or self._count_answered(side)

    def _count_answered(self, side: Side) -> bool:
        """One response is complete; returns whether there may be another."""
        exchange = self._unanswered.popleft()
        if exchange.closes or self._response_closes:
            self._become_raw(side)
        return self._is_routing and self._responses[side].held > 0

    def _marked(self, side: Side, head: bytes) -> bytes:
        header = self._mark.header(side) if self._mark is not None else None
        return head if header is None else b"%b%b: %b\r\n\r\n" % (head[:-2], *header)

    def _hear_unasked(self, side: Side) -> None:
        """A server says something that is no answer: that it ends the connection, or it is none of HTTP."""
        if side is Side.TARGET and (self._servers[side] is _Server.USED or not self._has_begun):
            # The client hears it, once it has had all answers before.
            self._servers[side] = _Server.USED
        elif self._has_work(side):
            self._become_raw(side)
        else:
            self._drop(side)

    def _target_has_left(self) -> bool:
        """Whether the target has said or ended something by itself, and it is time for the client to see it."""
        if self._unanswered or self._has_work(Side.PROCESS):
            return False
        server = self._servers[Side.TARGET]
        return server is _Server.ENDED or (server is _Server.USED and self._responses[Side.TARGET].held > 0)

    def _end_server(self, side: Side, reset: bool) -> None:
        if self._has_work(side):
            if reset:
                self._break()
            else:
                self._servers[side] = _Server.ENDED
                self._become_raw(side)
        elif side is Side.TARGET and (self._servers[side] is _Server.USED or not self._has_begun):
            self._servers[side] = _Server.ENDED
            if reset and not self._unanswered:
                self._break()
        else:
            # Who has had nothing to do for the client is asked again when there is something.
            self._drop(side)
            if not self._unanswered and set(self._servers.values()) == {_Server.AWAY}:
                self._actions.close(Side.CLIENT)
                self._broken = True

    def _become_raw(self, side: Side) -> None:
        self._drop(Side.PROCESS if side is Side.TARGET else Side.TARGET)
        if not self._reach(side):
            return
        self._actions.send(side, self._requests.take_rest())
        self._actions.send(Side.CLIENT, self._responses[side].take_rest())
        ended = [side] if self._servers[side] is _Server.ENDED else []
        self._relay = Relay(self._actions, side, ended + [Side.CLIENT] * self._client_has_ended)

    def _break(self) -> None:
        """What the client wants cannot be had."""
        self._actions.close(Side.CLIENT, reset=True)
        for side, server in self._servers.items():
            if server in (_Server.UNUSED, _Server.USED, _Server.ENDED):
                self._actions.close(side, reset=True)
        self._broken = True
