"""Streams that the agent opens: their numbers, how many there may be, and who hears what the client says on them."""

from __future__ import annotations

from mirrord_agent.link import Link
from mirrord_agent.streams import ByteStream
from mirrord_agent.wire.frames import Arrived, InetEndpoint

#: Most connections at a time that have arrived and are not over.
MAX_ARRIVED = 4096
TOO_MANY = f"more are open than can be followed (the limit is {MAX_ARRIVED})"
"""For the user, as the rest of a sentence behind a colon."""


class Arrivals:
    """Those of one session."""

    def __init__(self, link: Link, streams: dict[int, ByteStream]) -> None:
        """`streams` is where the session's reader finds them."""
        self._link = link
        self._streams = streams
        self._places = MAX_ARRIVED
        self.last_stream = 0
        """The number of the last one; 0 before the first."""

    def take_place(self) -> bool:
        """Whether there may be one connection more; `leave_place` is due when it is over."""
        if not self._places or not self._link.keeps_up:
            return False
        self._places -= 1
        return True

    def leave_place(self) -> None:
        """A connection is over."""
        self._places += 1

    def next_stream(self) -> int:
        """A number that no stream had."""
        self.last_stream += 2
        return self.last_stream

    def announce(
        self, stream: int, handler: ByteStream, subscription: int, peer: InetEndpoint, local: InetEndpoint
    ) -> None:
        """Tells the client of a stream, and the handler from now on what the client says on it."""
        self._streams[stream] = handler
        self._link.put_at_once(Arrived(stream, subscription, peer, local))

    def end(self, stream: int) -> None:
        """What the client may still say on the stream is of no interest. Safe to call twice."""
        self._streams.pop(stream, None)
