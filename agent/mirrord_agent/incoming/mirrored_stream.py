"""The client's copy of a connection that is only watched.

What is watched comes as fast as it does. So what the link or the client's window has no room for is kept, within
bounds, and beyond them the copy is cut: the target is never waited for, and neither are other copies.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs

from mirrord_agent.link import Link
from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow, WindowPool
from mirrord_agent.wire.frames import Credit, Data, Eof, Reset

#: Bytes that one copy may be behind, and all of a session together.
MAX_BEHIND = 8 << 20
MAX_ALL_BEHIND = 32 << 20
#: What keeping a piece costs besides its bytes.
_PIECE_OVERHEAD = 64
#: Most bytes of one frame.
_FRAME_BYTES = 256 << 10


@attrs.define(eq=False)
class Backlog:
    """What the copies of a session are behind, and those of them that wait for room on the link."""

    bytes: int = 0
    waiting: dict[MirroredStream, None] = attrs.Factory(dict)
    """In the order of their turns."""
    wake: Callable[[], None] = lambda: None
    """Told that there is somebody waiting."""


class Follower(Protocol):
    """Whoever has opened copies. Each method is told which of them it is about."""

    def heard(self, stream: int, payload: bytes) -> None:
        """The process has said something."""

    def written(self, stream: int, amount: int) -> None:
        """So many bytes have gone out."""

    def over(self, stream: int, number: int | None) -> None:
        """It is over. The client has left it for the reason of an errno, or 0; None if it was ended from here."""


class MirroredStream:
    """A copy, which is a stream of the agent's."""

    def __init__(self, link: Link, pool: WindowPool | None, stream: int, backlog: Backlog, follower: Follower) -> None:
        """`pool` is None if the process may not say anything on it."""
        self._link = link
        self._stream = stream
        self._backlog = backlog
        self._follower = follower
        self._credit = SendWindow()
        self._window = None if pool is None else ReceiveWindow(pool)
        self._pieces: deque[bytes] = deque()
        self._behind = 0
        self._last: Eof | Reset | None = None
        """What is said when all pieces are sent."""
        self._is_over = False

    def add(self, payload: bytes) -> bool:
        """Takes the next bytes, to be sent by `flush`. False if that is too much: then it has been cut."""
        cost = len(payload) + _PIECE_OVERHEAD
        self._pieces.append(payload)
        self._behind += cost
        self._backlog.bytes += cost
        if self._is_far_behind:
            self.flush()
        if self._is_far_behind:
            self.cut()
            return False
        return True

    @property
    def _is_far_behind(self) -> bool:
        return self._behind > MAX_BEHIND or self._backlog.bytes > MAX_ALL_BEHIND

    def end(self) -> None:
        """Nothing more will come."""
        self._last = Eof(self._stream)
        self.flush()

    def reset(self, number: int) -> None:
        """The connection was broken, or is not seen any further; what has come of it still goes out."""
        self._last = Reset(self._stream, number)
        self.flush()

    def cut(self) -> None:
        """Gives the copy up at once."""
        if not self._is_over:
            self._link.put_ordered(Reset(self._stream, errno.ECONNABORTED))
            self._finish()

    def flush(self) -> None:
        """Sends what there is room for; what there is not is sent when there is."""
        while self._pieces:
            if not self._credit.available:
                return
            if not self._link.has_room:
                self._backlog.waiting[self] = None
                self._backlog.wake()
                return
            payload = self._take()
            self._link.send(Data(self._stream, payload))
            self._follower.written(self._stream, len(payload))
        if self._last is not None and not self._is_over:
            self._link.put_ordered(self._last)
            if isinstance(self._last, Reset):
                self._finish()
            self._last = None

    def _take(self) -> bytes:
        """The bytes of the next frame: many small pieces make one."""
        most = self._credit.take(_FRAME_BYTES)
        taken: list[bytes] = []
        length = 0
        while self._pieces and length < most:
            piece = self._pieces.popleft()
            if length + len(piece) > most:
                self._pieces.appendleft(piece[most - length :])
                piece = piece[: most - length]
            else:
                self._drop(_PIECE_OVERHEAD)
            taken.append(piece)
            length += len(piece)
        self._drop(length)
        self._credit.available += most - length
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _drop(self, cost: int) -> None:
        self._behind -= cost
        self._backlog.bytes -= cost

    def _finish(self, number: int | None = None) -> None:
        self._is_over = True
        self._pieces.clear()
        self._drop(self._behind)
        self._backlog.waiting.pop(self, None)
        if self._window is not None:
            self._window.close()
        self._follower.over(self._stream, number)

    # What the client says.

    def on_data(self, payload: bytes) -> None:
        """The process's words, for whoever needs them. Raises ProtocolError."""
        if self._window is None:
            raise ProtocolError(f"data on stream {self._stream}, which is a copy")
        self._window.received(len(payload))
        credit = self._window.consumed(len(payload), drained=True)
        if credit:
            self._link.put(Credit(self._stream, credit))
        self._follower.heard(self._stream, payload)

    def on_eof(self) -> None:
        """The process says nothing any more. Raises ProtocolError."""
        if self._window is None:
            raise ProtocolError(f"an end of data on stream {self._stream}, which is a copy")

    def on_close(self) -> None:
        """The client has had enough."""
        self.on_reset(0)

    def on_reset(self, number: int) -> None:
        """The client has had enough, for the reason of an errno."""
        self._link.discard(self._stream)
        self._finish(number)

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)
        self.flush()
