"""Frames to bytes and back.

A frame is a prefix of six bytes (length of the header, length of the payload; big-endian), a header (a msgpack array:
the frame's number, then its fields) and a payload (raw bytes, for the frames that carry some). Lengths come first so
that nothing is unpacked, or kept, before it is known to be within the limits. The payload stays outside msgpack so that
it is never copied on the way out, and exactly once on the way in: out of the receive buffer.

`_LAYOUTS`, made of `fields`, is the one declaration of what travels: encoder, decoder and all checks follow from it.
The decoder trusts nothing. Whatever is wrong with what it is fed raises `ProtocolError` with a reason, and it stays
broken from then on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import attrs
import msgpack  # type: ignore[import-untyped]

from mirrord_agent.wire import frames
from mirrord_agent.wire.fields import (
    BLOB,
    ENDPOINT,
    ERRNO,
    FACTS,
    FAMILY,
    FILTER,
    FLAG,
    INCOMING_MODE,
    INET,
    INT64_MAX,
    KIND,
    STREAM,
    TEXT,
    TEXTS,
    TRANSPORT,
    UINT32,
    Layout,
    integer,
    optional,
)
from mirrord_agent.wire.file_layouts import FILE_LAYOUTS
from mirrord_agent.wire.frames import MAX_PAYLOAD, Frame

#: Longest header of a frame, in bytes: the two longest paths (PATH_MAX is 4096) and a text fit with room to spare.
MAX_HEADER = 16384

_PREFIX = struct.Struct(">HI")


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow; the message says what."""


_LAYOUTS = (
    Layout(1, frames.Hello, (("version", UINT32), ("features", TEXTS), ("secret", BLOB))),
    Layout(2, frames.Welcome, (("version", UINT32), ("features", TEXTS), ("facts", FACTS))),
    Layout(3, frames.Goodbye, (("kind", KIND), ("message", TEXT))),
    Layout(4, frames.Ping, (("number", UINT32),)),
    Layout(5, frames.Pong, (("number", UINT32),)),
    Layout(16, frames.GetEnvironment, (("stream", STREAM),)),
    Layout(18, frames.Connect, (("stream", STREAM), ("remote", ENDPOINT), ("local", optional(INET)))),
    Layout(
        19,
        frames.OpenDatagrams,
        (("stream", STREAM), ("family", FAMILY), ("peer", optional(INET)), ("local", optional(INET))),
    ),
    Layout(
        20,
        frames.Subscribe,
        (
            ("stream", STREAM),
            ("port", integer(1, 65535)),
            ("protocol", TRANSPORT),
            ("mode", INCOMING_MODE),
            ("filter", optional(FILTER)),
            ("flush", FLAG),
            ("mark", FLAG),
            ("family", optional(FAMILY)),
        ),
    ),
    Layout(32, frames.Part, (("stream", STREAM),), payload=True),
    Layout(33, frames.Done, (("stream", STREAM),)),
    Layout(34, frames.Failed, (("stream", STREAM), ("errno", ERRNO), ("message", TEXT))),
    Layout(36, frames.Connected, (("stream", STREAM), ("local", ENDPOINT), ("peer", ENDPOINT))),
    Layout(37, frames.DatagramsOpened, (("stream", STREAM), ("local", INET), ("peer", optional(INET)))),
    Layout(38, frames.Subscribed, (("stream", STREAM),)),
    Layout(39, frames.Arrived, (("stream", STREAM), ("subscription", STREAM), ("peer", INET), ("local", INET))),
    Layout(40, frames.Notice, (("stream", STREAM), ("message", TEXT))),
    Layout(48, frames.Data, (("stream", STREAM),), payload=True),
    Layout(49, frames.Eof, (("stream", STREAM),)),
    Layout(50, frames.Reset, (("stream", STREAM), ("errno", ERRNO))),
    Layout(51, frames.Close, (("stream", STREAM),)),
    Layout(52, frames.Credit, (("stream", STREAM), ("amount_bytes", integer(1, INT64_MAX)))),
    Layout(53, frames.Datagram, (("stream", STREAM), ("peer", optional(INET))), payload=True),
    Layout(54, frames.DatagramError, (("stream", STREAM), ("errno", ERRNO))),
    *FILE_LAYOUTS,
)
_BY_NUMBER = {layout.number: layout for layout in _LAYOUTS}
_BY_CLASS: dict[type[Any], Layout] = {layout.frame: layout for layout in _LAYOUTS}


def encode(frame: Frame) -> tuple[bytes, bytes | memoryview]:
    """The bytes of a frame in two pieces, to be sent one after the other: prefix and header, then the payload.

    The payload is the frame's own object, not a copy; it is empty for most frames. Raises ValueError for a frame beyond
    the limits: that is a fault of the caller.
    """
    layout = _BY_CLASS[type(frame)]
    header = msgpack.packb([layout.number, *[field.pack(getattr(frame, name)) for name, field in layout.fields]])
    payload: bytes | memoryview = frame.payload if layout.payload else b""  # type: ignore[union-attr]
    if len(header) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"a {layout.frame.__name__} with {len(header)} + {len(payload)} bytes is beyond the protocol's limits"
        )
    return _PREFIX.pack(len(header), len(payload)) + header, payload


@attrs.frozen
class _Head:
    """A frame whose header is known and whose payload is still to come."""

    layout: Layout
    values: list[Any]
    payload_length: int


class Decoder:
    """Makes frames of the bytes of a stream, however they are cut.

    At most one incomplete frame is kept: memory is bounded by the limits of one header and one payload.
    """

    def __init__(self) -> None:
        self._start = b""
        """The incomplete prefix and header of the next frame."""
        self._head: _Head | None = None
        self._pieces: list[bytes | memoryview] = []
        self._missing = 0
        """Bytes of the payload of `_head` that are not in `_pieces`."""
        self._failure: str | None = None

    @property
    def in_frame(self) -> bool:
        """Whether the stream, if it ended here, would end in the middle of a frame."""
        return self._head is not None or bool(self._start)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`, in order. Raises ProtocolError for what is no frame."""
        if self._failure is not None:
            raise ProtocolError(self._failure)
        try:
            return self._feed(data)
        except ProtocolError as error:
            self._failure = str(error)
            self._start, self._head, self._pieces = b"", None, []
            raise

    def _feed(self, data: bytes) -> list[Frame]:
        result: list[Frame] = []
        position = 0
        view = memoryview(data)
        while True:
            if self._head is None:
                head, position = self._read_head(data, position)
                if head is None:
                    return result
                self._head = head
                self._missing = head.payload_length
            piece = view[position : position + self._missing]
            position += len(piece)
            self._missing -= len(piece)
            if self._missing:
                # The rest of the data is the beginning of a payload. It may be a view of a buffer many times its
                # size only if it is large itself.
                self._pieces.append(piece if len(piece) * 2 > len(data) else bytes(piece))
                return result
            payload = b"".join((*self._pieces, piece)) if self._pieces else bytes(piece)
            result.append(_build(self._head, payload))
            self._head = None
            self._pieces.clear()

    def _read_head(self, data: bytes, position: int) -> tuple[_Head | None, int]:
        """The next frame's head, if `data` from `position` on completes it, and the position behind it."""
        begun = len(self._start)
        if begun:
            data = self._start + data[position : position + _PREFIX.size + MAX_HEADER]
            start, shift = 0, position - begun
        else:
            start, shift = position, 0
        if len(data) - start < _PREFIX.size:
            self._start = data[start:]
            return None, start
        header_length, payload_length = _PREFIX.unpack_from(data, start)
        if header_length > MAX_HEADER:
            raise ProtocolError(f"a frame's header of {header_length} bytes (the limit is {MAX_HEADER})")
        if payload_length > MAX_PAYLOAD:
            raise ProtocolError(f"a frame's payload of {payload_length} bytes (the limit is {MAX_PAYLOAD})")
        end = start + _PREFIX.size + header_length
        if len(data) < end:
            self._start = data[start:]
            return None, start
        self._start = b""
        return _parse_header(data[start + _PREFIX.size : end], payload_length), end + shift


def _parse_header(header: bytes, payload_length: int) -> _Head:
    try:
        values = msgpack.unpackb(header, use_list=True, raw=False, max_array_len=64, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises a dozen kinds, some of them built-in
        raise ProtocolError(f"a frame's header that is not msgpack: {error}") from None
    if type(values) is not list or not values:
        raise ProtocolError("a frame's header that is not a list")
    layout = _BY_NUMBER.get(values[0]) if type(values[0]) is int else None
    if layout is None:
        raise ProtocolError(f"a frame of unknown number {values[0]!r:.40}")
    name = layout.frame.__name__
    if len(values) != len(layout.fields) + 1:
        raise ProtocolError(f"a {name} with {len(values) - 1} fields (expected {len(layout.fields)})")
    if payload_length and not layout.payload:
        raise ProtocolError(f"a {name} with a payload")
    unpacked: list[object] = []
    for (field_name, field), value in zip(layout.fields, values[1:], strict=True):
        try:
            unpacked.append(field.unpack(value))
        except ValueError as error:
            raise ProtocolError(f"a {name} whose {field_name} is wrong: {error}") from None
    return _Head(layout, unpacked, payload_length)


def _build(head: _Head, payload: bytes) -> Frame:
    constructor: Callable[..., Frame] = head.layout.frame
    return constructor(*head.values, payload) if head.layout.payload else constructor(*head.values)
