"""What the user should know of a subscription: told once, and not in a flood."""

from __future__ import annotations

import math

import trio

from mirrord_agent.link import Link
from mirrord_agent.wire.fields import MAX_TEXT
from mirrord_agent.wire.frames import Notice

_EVERY_S = 1.0


class Notices:
    """Those of one subscription, at most one a second; the next one says how many were left out."""

    def __init__(self, link: Link, stream: int) -> None:
        self._link = link
        self._stream = stream
        self._told_s = -math.inf
        self._left_out = 0

    def tell(self, message: str) -> None:
        """Tells the client, unless it has just heard another."""
        now_s = trio.current_time()
        if now_s < self._told_s + _EVERY_S:
            self._left_out += 1
            return
        more = f" (and {self._left_out} more such notices before)" if self._left_out else ""
        self._link.put(Notice(self._stream, message[: MAX_TEXT - len(more)] + more))
        self._told_s, self._left_out = now_s, 0
