"""A client of HTTP/2 with prior knowledge, whose streams are open side by side, as those of gRPC are."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import attrs
import h2.config
import h2.connection
import h2.events


@attrs.define
class Stream:
    """What has come on one."""

    headers: dict[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = attrs.field(factory=dict)
    has_ended: bool = False


@attrs.define
class Client:
    """One connection."""

    connection: socket.socket
    streams: dict[int, Stream] = attrs.field(factory=dict)
    _http: h2.connection.H2Connection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection.settimeout(20)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._http.initiate_connection()
        self._flush()

    def open(self, path: str, headers: Sequence[tuple[str, str]] = ()) -> int:
        """A stream that goes on."""
        stream = self._http.get_next_available_stream_id()
        first = [(":method", "POST"), (":scheme", "http"), (":authority", "pod"), (":path", path)]
        self._http.send_headers(stream, [*first, ("content-type", "application/grpc"), ("te", "trailers"), *headers])
        self.streams[stream] = Stream()
        self._flush()
        return stream

    def send(self, stream: int, data: bytes) -> None:
        self._http.send_data(stream, data)
        self._flush()

    def end(self, stream: int) -> Stream:
        """The same with all that has come until its end."""
        self._http.end_stream(stream)
        self._flush()
        while not self.streams[stream].has_ended:
            self._receive()
        return self.streams[stream]

    def reset(self, stream: int) -> None:
        self._http.reset_stream(stream)
        self._flush()

    def receive(self, stream: int, size: int) -> bytes:
        """The next bytes of a stream, whatever comes on others."""
        got = self.streams[stream]
        while len(got.body) < size:
            assert not got.has_ended, got
            self._receive()
        taken, got.body = got.body[:size], got.body[size:]
        return taken

    def _flush(self) -> None:
        self.connection.sendall(self._http.data_to_send())

    def _receive(self) -> None:
        data = self.connection.recv(1 << 16)
        assert data, "the connection has ended"
        for event in self._http.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None) or 0, Stream())
            if isinstance(event, h2.events.ResponseReceived):
                stream.headers = dict(event.headers or ())
            elif isinstance(event, h2.events.DataReceived):
                stream.body += event.data or b""
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, h2.events.TrailersReceived):
                stream.trailers = dict(event.headers or ())
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                stream.has_ended = True
        self._flush()
