"""The bytes that one side of a TCP connection sends, put in order from the segments that carry them.

Segments come late, twice, in other pieces than before, or not at all. What is next in order is passed on at once; what
is ahead of it is held until the gap before it is filled. The first bytes seen for a position stay, as for a receiver
that has them already; what says otherwise later is ignored, the garbage byte of a keep-alive probe for one.

A gap is known in three ways: by what is held behind it, by numbers that the sender uses (its bare acknowledgments and
its FIN have them too), and by what the receiver acknowledges. `reach` is the highest of all these. A receiver that
acknowledges what was never seen here is proof that it is lost for good: nobody will send it again.

A position is a sequence number that does not wrap around: they begin with the initial one and grow.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from mirrord_agent.incoming.packets import Buffer

#: Sequence numbers are counted modulo this.
SEQUENCES: Final = 1 << 32
#: The largest window there can be, in bytes (RFC 7323 section 2.3): what is farther off belongs to something else.
MAX_WINDOW: Final = 1 << 30
#: What holding one segment costs besides its bytes: so that many small ones are bounded as well.
SEGMENT_OVERHEAD: Final = 128


def distance(sequence: int, position: int) -> int:
    """How far a sequence number is ahead of a position, negative when it is behind: the shorter way round."""
    return (sequence - position + (1 << 31)) % SEQUENCES - (1 << 31)


class Stream:
    """One direction of a connection, from its SYN on."""

    def __init__(self, initial: int) -> None:
        """`initial` is the sequence number of the SYN."""
        self.initial = initial
        self.position = initial + 1
        """Where the next byte in order belongs. Behind the FIN when the stream has ended."""
        self.reach = self.position
        """How far the stream is known to go. It is not kept up while there is no gap: then it may be behind."""
        self.has_ended = False
        self._end: int | None = None
        """The position of the FIN, when it has been seen."""
        self._held: list[bytes] = []
        self._starts: list[int] = []
        """Where each piece of `_held` belongs: in order, none overlapping."""
        self._held_bytes = 0

    @property
    def has_gap(self) -> bool:
        """Whether something is known to be missing."""
        return self.reach > self.position

    @property
    def held_segments(self) -> int:
        """Pieces that wait for a gap to be filled."""
        return len(self._held)

    @property
    def cost(self) -> int:
        """What they take, in bytes."""
        return self._held_bytes + SEGMENT_OVERHEAD * len(self._held)

    @property
    def passed_on(self) -> int:
        """Bytes that came out in order."""
        return self.position - self.initial - 1 - self.has_ended

    @property
    def missing(self) -> int:
        """Bytes between what came out and what comes next of what is known: the size of the first gap."""
        if self._starts:
            return self._starts[0] - self.position
        behind = self.reach if self._end is None else self._end
        return max(behind, self.position + 1) - self.position

    def nearest(self, sequence: int) -> int | None:
        """The position that a sequence number means here; None when it is not within a window of what is expected."""
        ahead = distance(sequence, self.position)
        return self.position + ahead if -MAX_WINDOW < ahead < MAX_WINDOW else None

    def is_reset_at(self, position: int) -> bool:
        """Whether a receiver takes a RST at this position at its word; it asks back after others (RFC 5961 section 3).

        The next in order it is, or behind a gap the end of what came last, which is all that the sender knows when it
        has SACK; some senders do not count their own FIN (tcp_validate_incoming() in Linux's net/ipv4/tcp_input.c).
        """
        if position == self.position or (self.has_ended and position == self.position - 1):
            return True
        return bool(self._starts) and position == self._held_end

    def sent_up_to(self, position: int) -> None:
        """The sender says, or the receiver confirms, that everything before this position was sent."""
        if not self.has_ended and position > self.reach:
            self.reach = position

    def add(self, start: int, length: int, payload: Buffer, *, fin: bool) -> list[bytes]:
        """Takes a segment; returns what is in order now. Sets `has_ended` behind the last byte.

        `length` is that of the segment, `payload` as much of it as was captured; nothing of it is kept uncopied.
        """
        if self.has_ended:
            return []
        if fin and self._end is None and start + length >= self._held_end:
            self._end = start + length
        self.sent_up_to(start + length)
        ready: list[bytes] = []
        if start < self.position:
            payload = payload[self.position - start :]
            start = self.position
        if self._end is not None and start + len(payload) > self._end:
            payload = payload[: max(0, self._end - start)]
        if len(payload):
            self._hold(start, payload)
            ready = self._taken()
        if self.position == self._end:
            self.position += 1
            self.has_ended = True
            self.reach = self.position
        return ready

    @property
    def _held_end(self) -> int:
        """Behind the last byte that was seen."""
        return self._starts[-1] + len(self._held[-1]) if self._starts else self.position

    def _hold(self, start: int, payload: Buffer) -> None:
        """Keeps those bytes whose positions are not held yet."""
        starts, held = self._starts, self._held
        end = start + len(payload)
        index = bisect_right(starts, start)
        if index:
            before = starts[index - 1] + len(held[index - 1])
            if before > start:
                payload = payload[before - start :]
                start = before
        while start < end:
            following = starts[index] if index < len(starts) else end
            piece = bytes(payload[: max(0, min(end, following) - start)])
            if piece:
                starts.insert(index, start)
                held.insert(index, piece)
                self._held_bytes += len(piece)
                index += 1
            if following >= end:
                return
            behind = following + len(held[index])
            payload = payload[behind - start :]
            start = behind
            index += 1

    def _taken(self) -> list[bytes]:
        """Takes out what is in order."""
        count = 0
        for start, piece in zip(self._starts, self._held, strict=True):
            if start != self.position:
                break
            self.position += len(piece)
            self._held_bytes -= len(piece)
            count += 1
        ready = self._held[:count]
        del self._held[:count], self._starts[:count]
        return ready
