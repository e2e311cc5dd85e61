"""One HTTP/2 connection of a router: h2 as its state machine, and what a router needs besides.

h2 is given one frame at a time, so that what came before a fault is not lost with it, and none that is longer than
allowed. It never sees GOAWAY: it would take no frame after it, where those of streams under way have to follow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event
from h2.exceptions import (
    FrameDataMissingError,
    FrameTooLargeError,
    NoAvailableStreamIDError,
    ProtocolError,
    StreamClosedError,
    TooManyStreamsError,
)
from h2.settings import SettingCodes, Settings

from mirrord_agent.incoming.http.filters import Headers

#: What begins every connection of a client (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Streams that a client may have open at a time, and longest header list in bytes.
MAX_STREAMS = 1000
MAX_HEADER_LIST = 256 << 10
#: A GOAWAY with this as its last stream announces another.
LAST_OF_ALL = (1 << 31) - 1

#: Length in two parts, type, flags, stream (RFC 9113 section 4.1).
_FRAME_HEAD = struct.Struct(">HBBBL")
_GOAWAY_BODY = struct.Struct(">LL")
_SETTINGS_TYPE = 4
_GOAWAY_TYPE = 7
_ACK = 1
#: Longest frame that we take (SETTINGS_MAX_FRAME_SIZE, whose initial value is the least).
_MAX_FRAME = 16384
#: What a server whose client is only watched may have allowed it: as long a frame as Go's servers allow, and as large a
#: table of headers as any uses.
_MAX_WATCHED_FRAME = 1 << 20
_MAX_WATCHED_TABLE = 1 << 20
_INITIAL_WINDOW = 65535
_MAX_WINDOW = (1 << 31) - 1


@attrs.frozen
class Windows:
    """How much the other side of a connection may send ahead, in bytes: on one stream, and on all."""

    stream: int
    connection: int


@attrs.frozen
class GoneAway:
    """The other side takes no more streams; those after `last_stream` it has not looked at."""

    last_stream: int
    code: int


@attrs.frozen
class Failed:
    """The other side broke the protocol, and the connection is over."""

    reason: str
    is_http2: bool
    """Whether it ever spoke HTTP/2."""


Heard = Event | GoneAway | Failed


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 1024  # of 65536, which are megabytes for each connection


class Leg:
    """A connection to a server, or as a server to the client."""

    def __init__(self, *, is_client: bool, windows: Windows, max_streams: int = MAX_STREAMS) -> None:
        self._h2 = _Connection(
            H2Configuration(
                client_side=is_client,
                header_encoding=None,
                # Headers are passed on as they are. Whoever gets them judges them.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: windows.stream,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
        }
        if is_client:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self._h2.local_settings = Settings(client=is_client, initial_values=settings)
        self._h2.decoder.max_header_list_size = MAX_HEADER_LIST
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(windows.connection - _INITIAL_WINDOW)
        if not is_client:
            self._h2.receive_data(PREFACE)
        self._max_frame = _MAX_FRAME
        self._held = bytearray()
        self._is_http2 = False
        self._has_failed = False
        self._out = bytearray()
        self._collect()

    @classmethod
    def watching(cls) -> Leg:
        """What a client says to another server: it may say all that some server would allow. Nothing is to be sent."""
        leg = cls(is_client=False, windows=Windows(_MAX_WINDOW, _MAX_WINDOW), max_streams=LAST_OF_ALL)
        leg._max_frame = leg._h2.max_inbound_frame_size = _MAX_WATCHED_FRAME
        leg._h2.decoder.max_allowed_table_size = _MAX_WATCHED_TABLE
        return leg

    @property
    def waiting(self) -> int:
        """Bytes to be sent that were not taken."""
        return len(self._out)

    @property
    def last_stream(self) -> int:
        """The last stream that the other side has begun."""
        return self._h2.highest_inbound_stream_id

    @property
    def max_streams(self) -> int:
        """How many streams the other side allows at a time."""
        return self._h2.remote_settings.max_concurrent_streams

    @property
    def allows_extended_connect(self) -> bool:
        """Whether the other side takes WebSockets and the like (RFC 8441)."""
        return bool(self._h2.remote_settings.enable_connect_protocol)

    def take(self) -> bytes:
        """What is to be sent."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def _collect(self) -> None:
        self._out += self._h2.data_to_send()

    def receive(self, data: bytes) -> Iterator[Heard]:
        """What the other side says by these bytes, behind the preface; nothing more once it has failed."""
        if not self._has_failed:
            self._held += data
        while not self._has_failed:
            try:
                frame = self._next_frame()
                if frame is None:
                    return
                events: Sequence[Heard] = [_gone_away(frame)] if frame[3] == _GOAWAY_TYPE else self._digest(frame)
            except ProtocolError as error:
                self._h2.close_connection(error.error_code)
                events = self._fail(error)
            self._is_http2 |= not self._has_failed
            self._collect()
            yield from events

    def _digest(self, frame: bytes) -> Sequence[Heard]:
        try:
            return self._h2.receive_data(frame)
        except ProtocolError as error:  # of which h2 has told the other side
            return self._fail(error)

    def _fail(self, error: ProtocolError) -> Sequence[Heard]:
        self._has_failed = True
        self._held.clear()
        return [Failed(str(error) or type(error).__name__, self._is_http2)]

    def _next_frame(self) -> bytes | None:
        """The next whole frame. Raises ProtocolError for one that cannot be."""
        if len(self._held) < _FRAME_HEAD.size:
            return None
        upper, lower, kind, flags, _ = _FRAME_HEAD.unpack_from(self._held)
        length = upper << 8 | lower
        if not self._is_http2 and (kind != _SETTINGS_TYPE or flags & _ACK):
            raise ProtocolError("the first frame is not SETTINGS: this is no HTTP/2")
        if length > self._max_frame:
            raise FrameTooLargeError(f"a frame of {length} bytes, and {self._max_frame} are allowed")
        end = _FRAME_HEAD.size + length
        if len(self._held) < end:
            return None
        frame = bytes(self._held[:end])
        del self._held[:end]
        return frame

    def open_stream(self, headers: Headers, *, ends: bool) -> int | None:
        """Begins a stream, if the other side allows one more."""
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, headers, end_stream=ends)
        except (TooManyStreamsError, NoAvailableStreamIDError):
            return None
        self._collect()
        return stream

    def send_headers(self, stream: int, headers: Headers, *, ends: bool) -> None:
        """Sends a response, or trailers."""
        self._h2.send_headers(stream, headers, end_stream=ends)
        self._collect()

    def send_data(self, stream: int, data: bytes, *, ends: bool) -> None:
        """Sends data for which there is room."""
        self._h2.send_data(stream, data, end_stream=ends)
        self._collect()

    def room(self, stream: int) -> int:
        """How many bytes may be sent on the stream in one frame."""
        return min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)

    def acknowledge(self, stream: int, amount: int) -> None:
        """So many bytes of the stream were taken by whom they are for: as many more may come."""
        self._h2.acknowledge_received_data(amount, stream)
        self._collect()

    def reset(self, stream: int, code: int) -> None:
        """Ends a stream at once, unless it has ended or the connection has failed."""
        if not self._has_failed:
            with suppress(StreamClosedError):
                self._h2.reset_stream(stream, code)
            self._collect()

    def announce(self, max_streams: int, allows_extended_connect: bool) -> None:
        """Tells a client what is allowed from now on."""
        settings: dict[SettingCodes | int, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: min(max_streams, MAX_STREAMS)}
        if allows_extended_connect:
            settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        self._h2.update_settings(settings)
        self._collect()

    def go_away(self, last_stream: int, code: int) -> None:
        """Tells a client that no streams after this one are taken. Those before go on."""
        body = _GOAWAY_BODY.pack(last_stream, code)
        self._out += _FRAME_HEAD.pack(0, len(body), _GOAWAY_TYPE, 0, 0) + body


def _gone_away(frame: bytes) -> GoneAway:
    if len(frame) < _FRAME_HEAD.size + _GOAWAY_BODY.size:
        raise FrameDataMissingError("a GOAWAY that is too short")
    last_stream, code = _GOAWAY_BODY.unpack_from(frame, _FRAME_HEAD.size)
    return GoneAway(last_stream & LAST_OF_ALL, code)
