"""Peers that speak HTTP/2 by h2, with all its checks unless these are in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

Headers = Sequence[tuple[bytes, bytes]]


@attrs.define
class Message:
    """What came on a stream."""

    headers: Headers = ()
    hints: list[Headers] = attrs.Factory(list)
    body: bytes = b""
    trailers: Headers | None = None
    has_ended: bool = False
    reset: int | None = None


class Peer:
    """One end of a connection, which takes everything at once unless told not to."""

    def __init__(self, *, is_client: bool, checks: bool = True) -> None:
        self.h2 = H2Connection(
            H2Configuration(
                client_side=is_client,
                header_encoding=None,
                validate_inbound_headers=checks,
                normalize_inbound_headers=checks,
                validate_outbound_headers=checks,
                normalize_outbound_headers=checks,
            )
        )
        self.h2.initiate_connection()
        self.messages: dict[int, Message] = {}
        self.gone: list[ConnectionTerminated] = []
        self.takes = True
        self.untaken: list[tuple[int, int]] = []
        self.on_end: Callable[[int], None] = lambda stream: None

    def sent(self) -> bytes:
        return self.h2.data_to_send()

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        message = self.messages.setdefault(getattr(event, "stream_id", 0) or 0, Message())
        match event:
            case RequestReceived(headers=headers) | ResponseReceived(headers=headers):
                message.headers = headers
            case InformationalResponseReceived(headers=headers):
                message.hints.append(headers)
            case DataReceived(stream_id=stream, data=data, flow_controlled_length=cost):
                message.body += data
                self.untaken.append((cost, stream))
                if self.takes:
                    self.take()
            case TrailersReceived(headers=headers):
                message.trailers = headers
            case StreamEnded(stream_id=stream):
                message.has_ended = True
                self.on_end(stream)
            case StreamReset(error_code=code):
                message.reset = code
            case ConnectionTerminated():
                self.gone.append(event)

    def take(self) -> None:
        for cost, stream in self.untaken:
            self.h2.acknowledge_received_data(cost, stream)
        self.untaken.clear()


def get(path: bytes = b"/theirs", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Headers:
    return [(b":method", method), (b":path", path), (b":scheme", b"http"), (b":authority", b"pod"), *more]


MINE = (b"x-mine", b"1")
