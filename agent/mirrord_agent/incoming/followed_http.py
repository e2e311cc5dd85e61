"""Connections of the target of which a client gets the HTTP requests that its filter takes."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence

import trio

from mirrord_agent.incoming.events import Cut, Data, Eof, Opened, Reset
from mirrord_agent.incoming.followed import TOO_SLOW, Copies, tell_cut
from mirrord_agent.incoming.http.actions import Action, Close, End, Notice, Open, Send, Side
from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.mirror import ConnectionMirror
from mirrord_agent.incoming.mirrored_stream import MirroredStream
from mirrord_agent.incoming.subscriptions import Subscription


class FollowedHttp:
    """One of them."""

    def __init__(
        self, copies: Copies, subscription: Subscription, accepts: Filter, opened: Opened, forget: Callable[[], None]
    ) -> None:
        self._copies = copies
        self._subscription = subscription
        self._opened = opened
        self._forget = forget
        self._mirror = ConnectionMirror(accepts)
        self._number = 0
        self._stream: MirroredStream | None = None
        """The copy that there is now."""
        self._actions: deque[Action] = deque()
        self._is_acting = False
        self._has_ended = False
        """Whether nothing more is heard of the connection."""
        self._is_forgotten = False

    @property
    def deadline(self) -> float | None:
        """When a body has been awaited long enough."""
        return self._mirror.deadline

    def hear(self, event: Data | Eof | Reset | Cut) -> None:
        """What has become of the connection."""
        now = trio.current_time()
        match event:
            case Data(_, payload):
                self._act(self._mirror.receive(Side.CLIENT, payload, now))
                return
            case Eof():
                self._act(self._mirror.ended(Side.CLIENT, now))
            case Reset():
                self._lose(errno.ECONNRESET)
            case Cut(_, reason):
                if self._stream is not None:
                    tell_cut(self._subscription, self._opened, reason)
                self._lose(errno.ECONNABORTED)
        self._has_ended = True
        self._forget_if_done()

    def _lose(self, number: int) -> None:
        if self._stream is not None:
            self._stream.reset(number)

    def flush(self) -> None:
        """For now that was all."""
        if self._stream is not None:
            self._stream.flush()

    def expire(self) -> None:
        """The deadline has come."""
        self._act(self._mirror.expire(trio.current_time()))
        self.flush()

    def heard(self, stream: int, payload: bytes) -> None:
        """The process has said something."""
        if stream == self._number:
            self._act(self._mirror.receive(Side.PROCESS, payload, trio.current_time()))
            self.flush()

    def written(self, stream: int, amount: int) -> None:
        """So many bytes have gone out."""
        if stream == self._number:
            self._act(self._mirror.written(amount, trio.current_time()))

    def over(self, stream: int, number: int | None) -> None:
        """A copy is over."""
        self._copies.arrivals.end(stream)
        if stream == self._number:
            self._number, self._stream = 0, None
            now = trio.current_time()
            if number == errno.ECONNREFUSED:
                self._act(self._mirror.unreachable(now))
            elif not self._has_ended:
                self._act(self._mirror.ended(Side.PROCESS, now, reset=number != 0))
            self.flush()
        self._forget_if_done()

    def _act(self, actions: Sequence[Action]) -> None:
        """Carries out what the mirror wants, in order also where it wants more meanwhile."""
        self._actions.extend(actions)
        if self._is_acting:
            return
        self._is_acting = True
        while self._actions:
            self._carry_out(self._actions.popleft())
        self._is_acting = False
        if self.deadline is None or self._is_forgotten:
            self._copies.awaiting.pop(self, None)
        else:
            self._copies.awaiting[self] = None

    def _carry_out(self, action: Action) -> None:
        match action:
            case Open():
                self._number, self._stream = self._copies.open(self._subscription, self._opened, self, hears=True)
            case Send(_, data) if self._stream is not None:
                if not self._stream.add(data):
                    tell_cut(self._subscription, self._opened, TOO_SLOW)
            case End() if self._stream is not None:
                self._stream.end()
            case Close(_, reset) if self._stream is not None:
                stream, self._number, self._stream = self._stream, 0, None
                if reset:
                    stream.reset(errno.ECONNRESET)
                else:
                    stream.end()
            case Notice(message):
                self._subscription.notices.tell(message)

    def _forget_if_done(self) -> None:
        if self._has_ended and self._stream is None and not self._is_forgotten:
            self._is_forgotten = True
            self._forget()
