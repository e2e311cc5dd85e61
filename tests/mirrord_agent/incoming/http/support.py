"""A router's owner on paper: carries its actions out and remembers what came of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import attrs

from mirrord_agent.incoming.http.actions import Action, Close, End, Notice, Open, Raw, Router, Send, Side
from mirrord_agent.incoming.http.filters import Filter, parse_filter

CLIENT, TARGET, PROCESS = Side

NOTHING = parse_filter({"method": "(?!)"})
EVERYTHING = parse_filter({"method": ".*"})
MINE = parse_filter({"header": "^x-mine:"})
"""Only requests with such a header."""


@attrs.define
class Connection:
    sent: bytearray = attrs.Factory(bytearray)
    ended: bool = False
    closed: bool = False
    reset: bool = False


@attrs.define
class Owner:
    router: Router
    connections: dict[Side, list[Connection]] = attrs.Factory(
        lambda: {CLIENT: [Connection()], TARGET: [Connection()], PROCESS: []}
    )
    raw: Side | None = None
    notices: list[str] = attrs.Factory(list)
    order: list[tuple[Side, bytes]] = attrs.Factory(list)
    """What was sent, in the order it was."""
    writes: bool = True
    """Whether what is sent goes out at once."""
    now: float = 0.0

    def receive(self, side: Side, *pieces: bytes) -> None:
        for piece in pieces:
            self.do(self.router.receive(side, piece, self.now))

    def end(self, side: Side, *, reset: bool = False) -> None:
        self.do(self.router.ended(side, self.now, reset=reset))

    def refuse(self, side: Side) -> None:
        self.do(self.router.unreachable(side, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.router.deadline is not None and self.now >= self.router.deadline:
            self.do(self.router.expire(self.now))

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Open(side):
                    assert not self.is_open(side)
                    self.connections[side].append(Connection())
                case Send(side, data):
                    assert data
                    assert self.is_open(side), f"{data!r} to {side} without a connection"
                    assert not self.last(side).ended
                    self.last(side).sent += data
                    self.order.append((side, data))
                    if self.writes:
                        self.do(self.router.written(side, len(data), self.now))
                case End(side):
                    assert self.is_open(side)
                    assert not self.last(side).ended
                    self.last(side).ended = True
                case Close(side, reset):
                    assert self.is_open(side)
                    self.last(side).closed = True
                    self.last(side).reset = reset
                case Raw(side):
                    assert self.raw is None
                    self.raw = side
                case Notice(message):
                    self.notices.append(message)

    def is_open(self, side: Side) -> bool:
        return bool(self.connections[side]) and not self.last(side).closed

    def last(self, side: Side) -> Connection:
        return self.connections[side][-1]

    def sent(self, side: Side) -> bytes:
        """Everything that went to that side, on whatever connection."""
        return b"".join(connection.sent for connection in self.connections[side])

    def taken(self, side: Side) -> bytes:
        """What went to that side since this was last asked."""
        data = b"".join(data for receiver, data in self.order if receiver is side)
        self.order = [(receiver, data) for receiver, data in self.order if receiver is not side]
        return data


def header_filter(pattern: str) -> Filter:
    return parse_filter({"header": pattern})


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The bytes cut at these places, as far as there are bytes; no piece is empty."""
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)]
