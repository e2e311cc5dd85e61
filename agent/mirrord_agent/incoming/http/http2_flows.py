"""What flows through one direction of an HTTP/2 stream, from one connection to another."""

from __future__ import annotations

import attrs

from mirrord_agent.incoming.http.filters import Headers
from mirrord_agent.incoming.http.http2_leg import Leg


@attrs.define(eq=False)
class Flow:
    """Data that has come and not gone on, at most what its sender may send ahead.

    It is acknowledged only when it goes on: so a receiver that takes nothing stops its own sender, and no other.
    """

    origin: Leg
    origin_stream: int
    held: bytearray = attrs.Factory(bytearray)
    trailers: Headers = ()
    has_ended: bool = False
    """Whether all has come."""
    is_done: bool = False
    """Whether all has gone on, or nothing more will."""

    def add(self, data: bytes, cost: int, *, ends: bool) -> None:
        """Takes in data, which cost its sender so much: padding counts."""
        self.held += data
        self.has_ended |= ends
        self._acknowledge(cost - len(data))

    def add_trailers(self, trailers: Headers) -> None:
        """Takes in the last that comes."""
        self.trailers = trailers
        self.has_ended = True

    def drop(self) -> None:
        """Nothing more goes on."""
        self._acknowledge(len(self.held))
        self.held.clear()
        self.is_done = True

    def move(self, destination: Leg, stream: int, room: int) -> bool:
        """Moves one frame on, of at most `room` bytes, if there is one; returns whether there may be another."""
        if self.is_done:
            return False
        size = max(0, min(len(self.held), destination.room(stream), room))
        data = bytes(self.held[:size])
        del self.held[:size]
        self._acknowledge(size)
        ends = self.has_ended and not self.held
        if data or (ends and not self.trailers):
            destination.send_data(stream, data, ends=ends and not self.trailers)
        if ends and self.trailers:
            destination.send_headers(stream, self.trailers, ends=True)
        self.is_done = ends
        return size > 0 and not ends

    def _acknowledge(self, amount: int) -> None:
        if amount:
            self.origin.acknowledge(self.origin_stream, amount)
