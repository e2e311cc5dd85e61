"""Connections of the target that are followed, each for one client."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

import attrs

from mirrord_agent.incoming.arrivals import Arrivals
from mirrord_agent.incoming.events import Cut, Data, Eof, Opened, Reset
from mirrord_agent.incoming.mirrored_stream import Backlog, Follower, MirroredStream
from mirrord_agent.incoming.subscriptions import Subscription, in_words
from mirrord_agent.link import Link
from mirrord_agent.wire import WindowPool

#: Why a copy was cut whose client was too slow.
TOO_SLOW = "it comes faster than it is taken"


class Followed(Protocol):
    """A connection that is followed."""

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, on Trio's clock; None for not at all."""

    def hear(self, event: Data | Eof | Reset | Cut) -> None:
        """What has become of the connection."""

    def flush(self) -> None:
        """For now that was all."""

    def expire(self) -> None:
        """The deadline has come."""


@attrs.frozen
class Copies:
    """What copies have in common."""

    link: Link
    pool: WindowPool
    arrivals: Arrivals
    backlog: Backlog
    awaiting: dict[Followed, None]
    """Those that have a deadline."""

    def follow(self, subscription: Subscription, opened: Opened, forget: Callable[[], None]) -> Followed:
        """Copies a connection; `forget` is called when nobody wants to hear of it any more."""
        if subscription.accepts is None:
            return FollowedWhole(self, subscription, opened, forget)
        from mirrord_agent.incoming.followed_http import FollowedHttp  # loaded with the first filter

        return FollowedHttp(self, subscription, subscription.accepts, opened, forget)

    def open(
        self, subscription: Subscription, opened: Opened, follower: Follower, *, hears: bool = False
    ) -> tuple[int, MirroredStream]:
        """A stream for a copy, and its number. `hears` says that what the process says is wanted."""
        number = self.arrivals.next_stream()
        stream = MirroredStream(self.link, self.pool if hears else None, number, self.backlog, follower)
        self.arrivals.announce(number, stream, subscription.stream, opened.client, opened.local)
        return number, stream


def tell_cut(subscription: Subscription, opened: Opened, reason: str) -> None:
    """Tells the user that a copy does not go on."""
    who = in_words(opened.client)
    subscription.notices.tell(f"the copy of a connection of {who} to port {opened.local.port} was cut: {reason}")


class FollowedWhole:
    """A connection that is the client's whatever it carries."""

    deadline = None

    def __init__(self, copies: Copies, subscription: Subscription, opened: Opened, forget: Callable[[], None]) -> None:
        self._copies = copies
        self._subscription = subscription
        self._opened = opened
        self._forget = forget
        _, self._stream = copies.open(subscription, opened, self)

    def hear(self, event: Data | Eof | Reset | Cut) -> None:
        """What has become of the connection."""
        match event:
            case Data(_, payload):
                if not self._stream.add(payload):
                    tell_cut(self._subscription, self._opened, TOO_SLOW)
            case Eof():
                self._stream.end()
            case Reset():
                self._stream.reset(errno.ECONNRESET)
            case Cut(_, reason):
                tell_cut(self._subscription, self._opened, reason)
                self._stream.reset(errno.ECONNABORTED)

    def flush(self) -> None:
        """For now that was all."""
        self._stream.flush()

    def expire(self) -> None:
        """There is no deadline."""

    def heard(self, stream: int, payload: bytes) -> None:
        """Nothing is said on such streams."""

    def written(self, stream: int, amount: int) -> None:
        """The copy keeps its own books."""

    def over(self, stream: int, number: int | None) -> None:
        """That was the only copy."""
        self._copies.arrivals.end(stream)
        self._forget()
