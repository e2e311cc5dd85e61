"""A port of the target whose connections come here, as the client holds it.

`mirrord_trace.session` makes it, and its reader calls the `on_…` methods, which never block. A connection that nobody
has received yet holds no more than its window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from mirrord_agent.wire.frames import Close
from mirrord_trace.remote import RemoteStream
from mirrord_trace.session_link import SessionLink


class RemoteListener:
    """A subscription to a TCP port. Streams that were received live on when it is closed."""

    def __init__(self, link: SessionLink, stream: int, forget: Callable[[int], None]) -> None:
        self._link = link
        self._stream = stream
        self._forget = forget
        self._arrived: deque[RemoteStream] = deque()
        self._receiver = trio.lowlevel.ParkingLot()
        self._closed = False

    async def receive(self) -> RemoteStream:
        """The next connection: its `peer` is the real client, its `local` the target's address that this one meant.

        Raises SessionLost; trio.ClosedResourceError after `close`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._arrived:
            if self._closed:
                raise trio.ClosedResourceError("the subscription is closed")
            self._link.check()
            await self._receiver.park()
        return self._arrived.popleft()

    def close(self) -> None:
        """Ends the subscription; connections that nobody has received are reset. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            # Not behind other data: a new subscription to the port must not overtake it.
            self._link.put(Close(self._stream))
            self._forget(self._stream)
            while self._arrived:
                self._arrived.popleft().reset()
            self.wake()

    def wake(self) -> None:
        """Something happened that those who wait should look at."""
        self._receiver.unpark_all()

    def on_arrived(self, stream: RemoteStream) -> None:
        """A connection has come."""
        self._arrived.append(stream)
        self._receiver.unpark()
