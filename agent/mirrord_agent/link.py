"""The agent's end of a session: frames over one client's socket."""

from __future__ import annotations

from contextlib import suppress

import trio

from mirrord_agent.frame_socket import FrameSocket
from mirrord_agent.wire import Decoder, ProtocolError
from mirrord_agent.wire.frames import Frame, Goodbye

#: Answers, credit and the like that may wait for a client that does not read; beyond, it is at fault.
_MAX_UNREAD_ANSWERS = 1 << 17
#: How many of them show that it does not read.
_MANY_UNREAD = 1 << 13


class ClientGone(Exception):
    """The client's end of the socket is closed, or broke; the message says how."""


class Link(FrameSocket):
    """One client's socket, as a source and a sink of frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._decoder = Decoder()

    @property
    def keeps_up(self) -> bool:
        """Whether the client reads what it is told without having asked."""
        return self._outbox.waiting_control_frames < _MANY_UNREAD

    async def receive(self) -> list[Frame]:
        """The next frames, possibly none. Raises ClientGone at the end, ProtocolError for what is no frame."""
        if self._outbox.waiting_control_frames > _MAX_UNREAD_ANSWERS:
            raise ProtocolError("the client asks and does not read the answers")
        try:
            data = await self.read()
        except OSError as error:
            raise ClientGone(f"reading from the client failed: {error.strerror}") from error
        if not data:
            raise ClientGone("the client closed the connection")
        return self._decoder.feed(data)

    async def say_goodbye(self, goodbye: Goodbye) -> None:
        """Writes what is waiting and then a goodbye, unless the client is gone; `write` must have ended."""
        with suppress(OSError):  # nobody is left to be told
            await self._write_out()
            self.put(goodbye)
            await self._write_out()
