"""How fast packets come: whether it is a pace at which copying more of them would be felt by the target."""

from __future__ import annotations

from typing import Final

#: Packets in a second from which on the pace is fast. Below, to copy what the target sends as well costs it less than
#: 0.4 % of a processor (measured: 0.6 µs a packet).
FAST_PER_S: Final = 5000
#: How long packets are counted before they are a pace.
_COUNTED_S: Final = 0.02


class Pace:
    """The pace of packets, by a monotonic clock in seconds."""

    def __init__(self, now_s: float) -> None:
        self.is_fast = False
        """Whether more than `FAST_PER_S` came lately."""
        self._since_s = now_s
        self._counted = 0

    def count(self, packets: int, now_s: float) -> None:
        """So many came since the last time. To be called at least as often as the pace is asked for."""
        self._counted += packets
        passed_s = now_s - self._since_s
        if passed_s >= _COUNTED_S:
            self.is_fast = self._counted > FAST_PER_S * passed_s
            self._since_s, self._counted = now_s, 0
