"""Gives the process those requests of a watched connection that a filter matches.

Only what the client says is known, and nothing can hold it up. So there are no turns: each request that matches goes to
the process as its bytes come, on one connection, which is made when it is needed. What the process answers is nobody's.
"""

from __future__ import annotations

from typing import Protocol

from mirrord_agent.incoming.http.actions import Action, Actions, Side
from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.framing import NotHttpError
from mirrord_agent.incoming.http.http2_leg import PREFACE
from mirrord_agent.incoming.http.http2_mirror import Http2Mirror
from mirrord_agent.incoming.http.readers import RequestReader


class Mirror(Protocol):
    """Decides for one watched connection; its actions concern the process alone."""

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, on the clock of the times that were given; None for not at all."""

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """The client or the process has sent this."""

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """The client or the process sends no more, or has reset its connection."""

    def unreachable(self, now: float) -> list[Action]:
        """There is no connection to the process to be had."""

    def written(self, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to the process."""

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""


class ConnectionMirror:
    """Watches a connection, whatever it speaks."""

    def __init__(self, accepts: Filter) -> None:
        self._filter = accepts
        self._mirror: Mirror | None = None
        self._client_said = b""

    @property
    def deadline(self) -> float | None:
        """When to call `expire`."""
        return None if self._mirror is None else self._mirror.deadline

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """The client or the process has sent this."""
        if self._mirror is not None:
            return self._mirror.receive(side, data, now)
        said = self._client_said = self._client_said + data
        if said.startswith(PREFACE):
            self._mirror = Http2Mirror(self._filter)
            said = said[len(PREFACE) :]
        elif not PREFACE.startswith(said):
            self._mirror = Http1Mirror(self._filter)
        return [] if self._mirror is None else self._mirror.receive(side, said, now)

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """The client or the process sends no more, or has reset its connection."""
        return [] if self._mirror is None else self._mirror.ended(side, now, reset=reset)

    def unreachable(self, now: float) -> list[Action]:
        """There is no connection to the process to be had."""
        return [] if self._mirror is None else self._mirror.unreachable(now)

    def written(self, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to the process."""
        return [] if self._mirror is None else self._mirror.written(amount, now)

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        return [] if self._mirror is None else self._mirror.expire(now)


class Http1Mirror:
    """Watches a connection that does not begin as HTTP/2 does."""

    def __init__(self, accepts: Filter) -> None:
        self._actions = Actions()
        self._requests = RequestReader(accepts)
        self._is_open = False
        """Whether there is a connection to the process."""
        self._gives = False
        """Whether the present request is given to the process."""
        self._may_switch = False
        """Whether other than HTTP may follow the present request."""
        self._is_raw = False
        """Whether all that follows is as the present request."""

    @property
    def deadline(self) -> float | None:
        """When the body of a request has been awaited long enough."""
        return self._requests.deadline

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """The client or the process has sent this."""
        if side is Side.CLIENT:
            self._requests.feed(data)
        return self._go_on(now)

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """The client or the process sends no more, or has reset its connection."""
        if side is Side.PROCESS:
            self._lose(is_open=True)
            return self._go_on(now)
        self._requests.end()
        actions = self._go_on(now)
        if self._is_open:
            if reset:
                self._lose(is_open=True)
            else:
                self._actions.end(Side.PROCESS)
        return actions + self._actions.take()

    def unreachable(self, now: float) -> list[Action]:
        """There is no connection to the process to be had."""
        self._lose(is_open=False)
        return self._go_on(now)

    def written(self, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to the process."""
        self._actions.written(Side.PROCESS, amount)
        return []

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        return self._go_on(now)

    def _lose(self, *, is_open: bool) -> None:
        """The process has no more of the present request; the next one may have a connection of its own."""
        if is_open and self._is_open:
            self._actions.close(Side.PROCESS)
        self._is_open = self._gives = False

    def _go_on(self, now: float) -> list[Action]:
        while self._step(now):
            pass
        return self._actions.take()

    def _step(self, now: float) -> bool:
        """Moves one request on; returns whether there may be another."""
        if self._is_raw:
            self._give(self._requests.take_rest())
            return False
        try:
            if self._requests.is_in_body():
                self._give(self._requests.take_body())
                return not self._requests.is_in_body()
            judged = self._requests.next(now)
        except NotHttpError:
            self._is_raw = True
            self._gives &= self._may_switch or self._requests.is_in_body()
            return True
        if judged is None:
            if self._requests.must_ask:
                # Its server asks for the body.
                self._requests.asked(now)
            return False
        if judged.notice is not None:
            self._actions.notice(judged.notice)
        self._gives = judged.matches
        self._may_switch = judged.head.may_switch
        if self._gives and not self._is_open:
            self._is_open = True
            self._actions.open(Side.PROCESS)
        self._give(self._requests.take_head())
        return True

    def _give(self, data: bytes) -> None:
        if self._gives:
            self._actions.send(Side.PROCESS, data)
