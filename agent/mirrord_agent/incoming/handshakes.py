"""Beginnings of TCP connections: SYNs that were seen, until the client's acknowledgment makes them connections.

Most SYNs of a scan or a flood come to nothing, so they are kept apart from connections, and the oldest give way. What
data the SYN itself has (TCP Fast Open, RFC 7413) is kept with it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from mirrord_agent.incoming.packets import ACK, FIN, RST, SYN, TcpSegment, reversed_flow
from mirrord_agent.incoming.stream import MAX_WINDOW, distance


@attrs.define(eq=False)
class Handshake:
    """A SYN that came to nothing yet."""

    syn: TcpSegment
    began_s: float
    back: bytes
    """The flow of what the target answers."""
    target_initial: int | None = None
    """The sequence number of the target's SYN-ACK, if that was seen."""


class Handshakes:
    """Those under way, one for a flow."""

    def __init__(self, most: int, longest_s: float) -> None:
        self.forgotten = 0
        """How many gave way to others."""
        self.held_bytes = 0
        """Bytes of data that came in SYNs."""
        self._most = most
        self._longest_s = longest_s
        self._by_flow: dict[bytes, Handshake] = {}
        """The oldest first."""
        self._by_back: dict[bytes, Handshake] = {}

    def __len__(self) -> int:
        return len(self._by_flow)

    def begin(self, syn: TcpSegment, now_s: float, room_bytes: int) -> None:
        """A SYN was seen. Another one of the same flow gives way if this is not its repetition.

        Of data that does not fit into the room only the length is kept: a gap, in a connection.
        """
        former = self._by_flow.get(syn.flow)
        if former is not None:
            if former.syn.sequence == syn.sequence:
                return
            self._remove(former)
        if len(self._by_flow) >= self._most:
            self._remove(next(iter(self._by_flow.values())))
            self.forgotten += 1
        syn = syn._replace(payload=bytes(syn.payload) if len(syn.payload) <= room_bytes else b"")
        self.held_bytes += len(syn.payload)
        handshake = Handshake(syn, now_s, reversed_flow(syn.flow))
        self._by_flow[syn.flow] = self._by_back[handshake.back] = handshake

    def is_accepted_by(self, segment: TcpSegment) -> bool:
        """Notes what the target sends to a client with a handshake; returns whether it is the answer to its SYN."""
        handshake = self._by_back.get(segment.flow)
        if handshake is None or not segment.flags & ACK:
            return False
        if not 0 <= distance(segment.acknowledgment, handshake.syn.sequence + 1) <= handshake.syn.length:
            return False
        if segment.flags & RST:
            self._remove(handshake)
            return False
        if segment.flags & SYN:
            handshake.target_initial = segment.sequence
        return bool(segment.flags & SYN)

    def completed_by(self, segment: TcpSegment) -> Handshake | None:
        """The handshake that becomes a connection with this segment of the client's; it is none any more then."""
        handshake = self._by_flow.get(segment.flow)
        if handshake is None:
            return None
        ahead = distance(segment.sequence, handshake.syn.sequence + 1)
        if segment.flags & RST:
            if 0 <= ahead <= handshake.syn.length:
                self._remove(handshake)
            return None
        if segment.flags & (SYN | ACK) != ACK or not 0 <= ahead < MAX_WINDOW:
            return None
        initial = handshake.target_initial
        if initial is not None and not 0 <= distance(segment.acknowledgment, initial + 1) < MAX_WINDOW:
            return None
        self._remove(handshake)
        return handshake

    def acknowledged_by(self, segment: TcpSegment) -> Handshake | None:
        """As `completed_by`, but only by the acknowledgment of the SYN-ACK itself.

        What else of this flow there is may belong to a former connection.
        """
        handshake = self._by_flow.get(segment.flow)
        if handshake is None or not 0 <= distance(segment.sequence, handshake.syn.sequence + 1) <= handshake.syn.length:
            return None
        return self.completed_by(segment)

    def forget(self, is_meant: Callable[[bytes], bool]) -> None:
        """Forgets those of such flows."""
        for handshake in [each for flow, each in self._by_flow.items() if is_meant(flow)]:
            self._remove(handshake)

    def expire(self, now_s: float) -> None:
        """Forgets those that have taken too long."""
        while self._by_flow:
            oldest = next(iter(self._by_flow.values()))
            if oldest.began_s + self._longest_s > now_s:
                return
            self._remove(oldest)

    def _remove(self, handshake: Handshake) -> None:
        del self._by_flow[handshake.syn.flow], self._by_back[handshake.back]
        self.held_bytes -= len(handshake.syn.payload)


def begins_connection(segment: TcpSegment) -> bool:
    """Whether this is a SYN that a listener takes."""
    return segment.flags & (SYN | ACK | RST | FIN) == SYN
