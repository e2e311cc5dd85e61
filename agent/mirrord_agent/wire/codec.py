"""Frames to bytes and back.

A frame is a prefix of six bytes (length of the header, length of the payload; big-endian), a header (a msgpack array:
the frame's number, then its fields) and a payload (raw bytes, for the frames that carry some). Lengths come first so
that nothing is unpacked, or kept, before it is known to be within the limits. The payload stays outside msgpack so that
it is never copied on the way out, and exactly once on the way in: out of the receive buffer.

`_LAYOUTS` is the one declaration of what travels: encoder, decoder and all checks follow from it. The decoder trusts
nothing. Whatever is wrong with what it is fed raises `ProtocolError` with a reason, and it stays broken from then on.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Any, get_args

import attrs
import msgpack  # type: ignore[import-untyped]

from mirrord_agent.wire import frames
from mirrord_agent.wire.frames import MAX_PAYLOAD, Endpoint, Frame, InetEndpoint, UnixEndpoint

#: Longest header of a frame, in bytes: the longest path (PATH_MAX is 4096) and text fit with room to spare.
MAX_HEADER = 16384
#: Longest text field, in characters.
MAX_TEXT = 4096
#: Longest bytes field in a header.
MAX_BLOB = 4096

_PREFIX = struct.Struct(">HI")
_INT64_MAX = (1 << 63) - 1


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow; the message says what."""


@attrs.frozen
class _Field:
    """How one field travels. `unpack` raises ValueError with a reason for what it does not accept."""

    pack: Callable[[Any], object]
    unpack: Callable[[Any], object]


def _same(value: Any) -> object:
    return value


def _integer(low: int, high: int) -> _Field:
    def unpack(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected an integer from {low} to {high}, got {value!r:.40}")
        return value

    return _Field(_same, unpack)


def _unpack_text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise ValueError(f"expected a text of at most {MAX_TEXT} characters, got {value!r:.40}")
    return value


def _unpack_blob(value: Any) -> bytes:
    if type(value) is not bytes or len(value) > MAX_BLOB:
        raise ValueError(f"expected at most {MAX_BLOB} bytes, got {value!r:.40}")
    return value


def _unpack_seconds(value: Any) -> float:
    if type(value) is not float or not 0 <= value < 1e9:
        raise ValueError(f"expected seconds, got {value!r:.40}")
    return value


def _unpack_texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > 64:
        raise ValueError(f"expected a list of at most 64 texts, got {value!r:.40}")
    return tuple(_unpack_text(item) for item in value)


def _choice(*choices: str) -> _Field:
    def unpack(value: Any) -> object:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {value!r:.40}")
        return value

    return _Field(_same, unpack)


def _unpack_kind(value: Any) -> frames.GoodbyeKind:
    if type(value) is not str:
        raise ValueError(f"expected a kind of goodbye, got {value!r:.40}")
    return frames.GoodbyeKind(value)


_PORT = _integer(0, 65535)
_UINT32 = _integer(0, (1 << 32) - 1)


def _pack_inet(endpoint: InetEndpoint) -> object:
    return [endpoint.host, endpoint.port, endpoint.scope_id]


def _unpack_inet(value: Any) -> InetEndpoint:
    if type(value) is not list or len(value) != 3:
        raise ValueError(f"expected an address, got {value!r:.40}")
    host, port, scope_id = value
    if type(host) is not str or "%" in host:
        raise ValueError(f"expected a numeric address, got {host!r:.40}")
    ipaddress.ip_address(host)
    _PORT.unpack(port)
    _UINT32.unpack(scope_id)
    return InetEndpoint(host, port, scope_id)


def _pack_endpoint(endpoint: Endpoint) -> object:
    return endpoint.path if isinstance(endpoint, UnixEndpoint) else _pack_inet(endpoint)


def _unpack_endpoint(value: Any) -> Endpoint:
    return UnixEndpoint(_unpack_blob(value)) if type(value) is bytes else _unpack_inet(value)


def _optional(field: _Field) -> _Field:
    return _Field(
        pack=lambda value: None if value is None else field.pack(value),
        unpack=lambda value: None if value is None else field.unpack(value),
    )


def _pack_facts(facts: frames.Facts) -> object:
    return [facts.hostname, facts.domain_name, facts.pid, float(facts.communication_timeout_s)]


def _unpack_facts(value: Any) -> frames.Facts:
    if type(value) is not list or len(value) != 4:
        raise ValueError(f"expected facts, got {value!r:.40}")
    pid = value[2]
    if type(pid) is not int or pid < 0:
        raise ValueError(f"expected a process id, got {pid!r:.40}")
    return frames.Facts(_unpack_text(value[0]), _unpack_text(value[1]), pid, _unpack_seconds(value[3]))


_TEXT = _Field(_same, _unpack_text)
_TEXTS = _Field(list, _unpack_texts)
_BLOB = _Field(_same, _unpack_blob)
_KIND = _Field(lambda kind: kind.value, _unpack_kind)
_FACTS = _Field(_pack_facts, _unpack_facts)
_STREAM = _integer(1, _INT64_MAX)
_ERRNO = _integer(1, 4095)  # MAX_ERRNO of the kernel
_INET = _Field(_pack_inet, _unpack_inet)
_ENDPOINT = _Field(_pack_endpoint, _unpack_endpoint)
_FAMILY = _choice(*get_args(frames.AddressFamily))


@attrs.frozen
class _Layout:
    """How a frame travels: its number, its header fields in the order of the class, and whether a payload follows.

    The payload is always the class's last attribute.
    """

    number: int
    frame: type[Frame]
    fields: tuple[tuple[str, _Field], ...] = ()
    payload: bool = False


_LAYOUTS = (
    _Layout(1, frames.Hello, (("version", _UINT32), ("features", _TEXTS), ("secret", _BLOB))),
    _Layout(2, frames.Welcome, (("version", _UINT32), ("features", _TEXTS), ("facts", _FACTS))),
    _Layout(3, frames.Goodbye, (("kind", _KIND), ("message", _TEXT))),
    _Layout(4, frames.Ping, (("number", _UINT32),)),
    _Layout(5, frames.Pong, (("number", _UINT32),)),
    _Layout(16, frames.GetEnvironment, (("stream", _STREAM),)),
    _Layout(17, frames.ReadFile, (("stream", _STREAM), ("path", _BLOB), ("limit_bytes", _integer(0, _INT64_MAX)))),
    _Layout(18, frames.Connect, (("stream", _STREAM), ("remote", _ENDPOINT), ("local", _optional(_INET)))),
    _Layout(
        19,
        frames.OpenDatagrams,
        (("stream", _STREAM), ("family", _FAMILY), ("peer", _optional(_INET)), ("local", _optional(_INET))),
    ),
    _Layout(32, frames.Part, (("stream", _STREAM),), payload=True),
    _Layout(33, frames.Done, (("stream", _STREAM),)),
    _Layout(34, frames.Failed, (("stream", _STREAM), ("errno", _ERRNO), ("message", _TEXT))),
    _Layout(
        35,
        frames.FileRead,
        (("stream", _STREAM), ("mode", _UINT32), ("mtime_ns", _integer(-_INT64_MAX, _INT64_MAX))),
    ),
    _Layout(36, frames.Connected, (("stream", _STREAM), ("local", _ENDPOINT), ("peer", _ENDPOINT))),
    _Layout(37, frames.DatagramsOpened, (("stream", _STREAM), ("local", _INET), ("peer", _optional(_INET)))),
    _Layout(48, frames.Data, (("stream", _STREAM),), payload=True),
    _Layout(49, frames.Eof, (("stream", _STREAM),)),
    _Layout(50, frames.Reset, (("stream", _STREAM), ("errno", _ERRNO))),
    _Layout(51, frames.Close, (("stream", _STREAM),)),
    _Layout(52, frames.Credit, (("stream", _STREAM), ("amount_bytes", _integer(1, _INT64_MAX)))),
    _Layout(53, frames.Datagram, (("stream", _STREAM), ("peer", _optional(_INET))), payload=True),
    _Layout(54, frames.DatagramError, (("stream", _STREAM), ("errno", _ERRNO))),
)
_BY_NUMBER = {layout.number: layout for layout in _LAYOUTS}
_BY_CLASS: dict[type[Any], _Layout] = {layout.frame: layout for layout in _LAYOUTS}


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

    layout: _Layout
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
