"""Credit windows: how much one stream may have under way.

The receiver of a stream's data grants credit, the sender uses it up, and so a reader that stalls stops its own stream
only, and what is held for it is bounded. A window begins small and doubles while its reader keeps up with it, because
throughput over a long line is window per round trip; the room for that growth is shared by the whole session
(`WindowPool`), so that a thousand streams cannot each hold the maximum.
"""

from __future__ import annotations

from mirrord_agent.wire.codec import ProtocolError

#: What each side may send on a new connection before it hears of credit, in bytes.
INITIAL_WINDOW = 256 << 10
#: What a connection's window may grow to, in bytes: 80 MB/s at 50 ms.
MAX_WINDOW = 4 << 20
#: Room of one session, on each side, for windows beyond their initial size, in bytes.
POOL_BYTES = 64 << 20
#: Window of a UDP flow, in bytes. It does not grow: what exceeds it is dropped, as by a socket's receive buffer
#: (net.core.rmem_default is 212992).
DATAGRAM_WINDOW = 256 << 10
#: What a datagram costs besides its payload, in bytes, so that empty ones are bounded as well.
DATAGRAM_OVERHEAD = 128


class WindowPool:
    """The room that the windows of a session share for growing."""

    def __init__(self, size_bytes: int = POOL_BYTES) -> None:
        self._free = size_bytes

    def take(self, amount: int) -> bool:
        """Takes `amount` bytes if they are there."""
        if amount > self._free:
            return False
        self._free -= amount
        return True

    def give_back(self, amount: int) -> None:
        """Returns what was taken."""
        self._free += amount


class SendWindow:
    """The sender's side: credit that is left."""

    def __init__(self, size_bytes: int = INITIAL_WINDOW) -> None:
        self.available = size_bytes
        """Bytes that may be sent now."""

    def take(self, wanted: int) -> int:
        """Uses up to `wanted` bytes of credit; returns how many."""
        taken = min(wanted, self.available)
        self.available -= taken
        return taken

    def add(self, amount: int) -> None:
        """Credit arrived. Raises ProtocolError when it is more than any window."""
        if amount > MAX_WINDOW - self.available:
            raise ProtocolError(f"a credit of {amount} bytes on top of {self.available} (the limit is {MAX_WINDOW})")
        self.available += amount


class ReceiveWindow:
    """The receiver's side: what was granted and not used, and what was consumed and not granted again."""

    def __init__(self, pool: WindowPool | None, size_bytes: int = INITIAL_WINDOW) -> None:
        """`pool` is where growth comes from; without one the window keeps its size."""
        self._pool = pool
        self._initial = size_bytes
        self._size = size_bytes
        self._granted = size_bytes
        self._consumed = 0

    @property
    def exhausted(self) -> bool:
        """Whether the sender has no credit left."""
        return self._granted <= 0

    def received(self, amount: int) -> None:
        """Data arrived. Raises ProtocolError when the sender had no credit for it."""
        if amount > self._granted:
            raise ProtocolError(f"{amount} bytes on a stream with a credit of {self._granted}")
        self._granted -= amount

    def consumed(self, amount: int, *, drained: bool = False) -> int:
        """The reader took `amount` bytes; returns the credit to send now, often 0: credit is sent by half windows.

        `drained` says that nothing is left for the reader, so that it could use a larger window.
        """
        self._consumed += amount
        if self._consumed * 2 < self._size:
            return 0
        credit = self._consumed
        self._consumed = 0
        if drained and self._pool is not None and self._size < MAX_WINDOW:
            growth = min(self._size, MAX_WINDOW - self._size)
            if self._pool.take(growth):
                self._size += growth
                credit += growth
        self._granted += credit
        return credit

    def close(self) -> None:
        """The stream is over: returns the growth to the pool. Safe to call twice."""
        if self._pool is not None:
            self._pool.give_back(self._size - self._initial)
        self._pool = None
