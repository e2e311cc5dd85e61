"""What goes wrong with single connections, told without flooding whoever reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

_AT_A_TIME: Final = 5
_PERIOD_S: Final = 10.0


@attrs.define(eq=False)
class Complaints:
    """Tells some lines in a period, and how many were left out before."""

    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = attrs.field(init=False, default=0.0)
    _told: int = attrs.field(init=False, default=0)
    _left_out: int = attrs.field(init=False, default=0)

    def add(self, text: str) -> None:
        """Tells it, or counts it."""
        now = self.clock()
        if not self._told or now - self._began >= _PERIOD_S:
            self._began, self._told = now, 0
        if self._told >= _AT_A_TIME:
            self._left_out += 1
            return
        self._told += 1
        before, self._left_out = self._left_out, 0
        self.tell(f"{text} ({before} more such lines were left out before)" if before else text)
