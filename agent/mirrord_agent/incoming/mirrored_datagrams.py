"""The client's copies of datagrams to a port of the target."""

from __future__ import annotations

from mirrord_agent.link import Link
from mirrord_agent.wire import ProtocolError, SendWindow
from mirrord_agent.wire.frames import Datagram, InetEndpoint
from mirrord_agent.wire.windows import DATAGRAM_OVERHEAD, DATAGRAM_WINDOW


class MirroredDatagrams:
    """Those of one subscription. What the client has no room for is lost, as on any line."""

    def __init__(self, link: Link, stream: int) -> None:
        self._link = link
        self._stream = stream
        self._credit = SendWindow(DATAGRAM_WINDOW)

    def send(self, client: InetEndpoint, payload: bytes) -> None:
        """A datagram was seen."""
        cost = len(payload) + DATAGRAM_OVERHEAD
        if cost <= self._credit.available and self._link.has_room:
            self._credit.take(cost)
            self._link.put_ordered(Datagram(self._stream, client, payload))

    def on_datagram(self, datagram: Datagram) -> None:
        """Raises ProtocolError: nobody waits for an answer."""
        raise ProtocolError(f"a datagram on stream {self._stream}, whose port is mirrored")

    def on_credit(self, amount: int) -> None:
        """The client has room for more. Raises ProtocolError when it is more than any window."""
        self._credit.add(amount)

    def on_close(self) -> None:
        """The client has had enough."""
        self._link.discard(self._stream)
