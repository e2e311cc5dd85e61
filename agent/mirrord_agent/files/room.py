"""Room for answers that carry data: what there is none for waits, in the order in which it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Room:
    """A number of bytes, shared by all who take some."""

    def __init__(self, size_bytes: int) -> None:
        """Nobody may ask for more than all of it."""
        self._free = size_bytes
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._is_starting = False

    def take(self, amount: int, start: Callable[[], None]) -> None:
        """Takes `amount` bytes and calls `start`, at once or when there are so many."""
        self._waiting.append((amount, start))
        self._start_what_fits()

    def give_back(self, amount: int) -> None:
        """Returns what was taken."""
        self._free += amount
        self._start_what_fits()

    def _start_what_fits(self) -> None:
        if self._is_starting:
            return  # what starts may end at once, and give back; the loop below sees it
        self._is_starting = True
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, start = self._waiting.popleft()
            self._free -= amount
            start()
        self._is_starting = False
