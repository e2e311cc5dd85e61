"""What the session's reader tells the streams that a client knows. These methods never block."""

from __future__ import annotations

from typing import Protocol

from mirrord_agent.wire.frames import Datagram


class ByteStream(Protocol):
    """A connection, or what looks like one to the client."""

    def on_data(self, payload: bytes) -> None:
        """Data from the client. Raises ProtocolError where there may be none."""

    def on_eof(self) -> None:
        """The client sends no more. Raises ProtocolError where it may send nothing."""

    def on_close(self) -> None:
        """The client is done with the stream."""

    def on_reset(self, number: int) -> None:
        """The client wants the connection broken, for the reason of an errno."""

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""


class DatagramStream(Protocol):
    """UDP datagrams that share a stream."""

    def on_datagram(self, datagram: Datagram) -> None:
        """A datagram from the client. Raises ProtocolError where there may be none."""

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""

    def on_close(self) -> None:
        """The client is done with the stream."""
