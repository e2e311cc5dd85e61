"""What a router wants done, and how much of it is still to do.

A router says what to do and never waits. Whoever carries it out (its owner) does so in order for each side, reports by
`written` how much has gone out, and asks `reads` before it reads: in this way nothing piles up without bound. There is
at most one connection to each side at a time.
"""

from __future__ import annotations

import enum
from typing import Protocol

import attrs

#: Bytes that wait to be written to a side, at which nothing more is read that would be written there.
BACKLOG_LIMIT = 256 << 10


class Side(enum.Enum):
    """Whom a router speaks with."""

    CLIENT = enum.auto()
    """Who connected to the target's port."""
    TARGET = enum.auto()
    """The target's own process."""
    PROCESS = enum.auto()
    """The user's process."""


@attrs.frozen
class Open:
    """Connect to this side: there is no connection, or the last one is over. What follows is sent once there is one."""

    side: Side


@attrs.frozen
class Send:
    """Write these bytes."""

    side: Side
    data: bytes


@attrs.frozen
class End:
    """Write no more after what was written before: shutdown(SHUT_WR)."""

    side: Side


@attrs.frozen
class Close:
    """Close the connection once everything is written, or at once with a RST; nothing of it is reported any more."""

    side: Side
    reset: bool = False


@attrs.frozen
class Raw:
    """From here on bytes only go back and forth between the client and this side. The owner may do so by itself."""

    side: Side


@attrs.frozen
class Notice:
    """Something that the user should know; the same may come often."""

    message: str


Action = Open | Send | End | Close | Raw | Notice


class Router(Protocol):
    """Decides for one connection of a client."""

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, on the clock of the times that were given; None for not at all."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, or none is told from others any more."""

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """A side has sent this."""

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """A side sends no more, or has reset its connection."""

    def unreachable(self, side: Side, now: float) -> list[Action]:
        """There is no connection to this side to be had."""

    def written(self, side: Side, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to this side."""

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""

    def reads(self, side: Side) -> bool:
        """Whether bytes of this side are wanted now."""


class Actions:
    """Collects what is to be done, and counts the bytes that are not yet written."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._backlog = dict.fromkeys(Side, 0)
        self._ended: set[Side] = set()

    def open(self, side: Side) -> None:
        """A new connection is needed."""
        self._ended.discard(side)
        self._backlog[side] = 0
        self._actions.append(Open(side))

    def send(self, side: Side, data: bytes) -> None:
        """Bytes are to be written, if there are any."""
        if data:
            self._backlog[side] += len(data)
            self._actions.append(Send(side, data))

    def end(self, side: Side) -> None:
        """Nothing more is to be written, if that was not said before."""
        if side not in self._ended:
            self._ended.add(side)
            self._actions.append(End(side))

    def close(self, side: Side, *, reset: bool = False) -> None:
        """The connection is to be closed."""
        self._backlog[side] = 0
        self._actions.append(Close(side, reset))

    def become_raw(self, side: Side) -> None:
        """The rest is between the client and this side."""
        self._actions.append(Raw(side))

    def notice(self, message: str) -> None:
        """The user should know this."""
        self._actions.append(Notice(message))

    def take(self) -> list[Action]:
        """What was added since."""
        actions, self._actions = self._actions, []
        return actions

    def written(self, side: Side, amount: int) -> None:
        """So many bytes have gone out."""
        self._backlog[side] = max(0, self._backlog[side] - amount)

    def backlog(self, side: Side) -> int:
        """Bytes that wait to be written to a side."""
        return self._backlog[side]

    def has_room(self, side: Side) -> bool:
        """Whether more may be added for a side."""
        return self._backlog[side] < BACKLOG_LIMIT
