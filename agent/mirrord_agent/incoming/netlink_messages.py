"""Netlink messages and their attributes as bytes, and back: netlink(7), include/uapi/linux/netlink.h.

A message is a header and a body; a body mostly begins with a structure of its subsystem's and goes on with attributes.
An attribute holds bytes or, which a bit of its number says, attributes. All numbers of the headers are in this
machine's byte order; what is within attributes the subsystems decide.

A message of the kernel's that is cut short raises ValueError.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

#: Message kinds that every subsystem has.
ERROR: Final = 2
DONE: Final = 3

#: Flags of a message. DUMP asks for all objects there are; of the other four, those for new objects.
REQUEST: Final = 0x1
ACKNOWLEDGE: Final = 0x4
DUMP: Final = 0x300
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
APPEND: Final = 0x800

#: Flags of an acknowledgement: the message that it answers is left out but for its header; attributes follow.
_CAPPED: Final = 0x100
_ACK_ATTRIBUTES: Final = 0x200
#: Attributes of an acknowledgement.
_WORDS: Final = 1
_OFFSET: Final = 2

_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF
"""The second highest bit says that a number is in network byte order; nobody needs to be told."""
_MOST_NESTED: Final = 16
_LONGEST: Final = 0xFFFF

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_error = struct.Struct("=i")


@attrs.frozen
class Attribute:
    """A `struct nlattr` with what it holds."""

    kind: int
    """Up to 16383; what it means depends on what the attribute is in."""
    value: bytes | tuple[Attribute, ...]


@attrs.frozen
class Message:
    """A `struct nlmsghdr` with its body. `sequence` is what an answer to it says, too."""

    kind: int
    flags: int
    sequence: int
    body: bytes


@attrs.frozen
class Acknowledgement:
    """That the message with this number was carried out, or not."""

    sequence: int
    errno: int
    """0 when it was."""
    words: str = ""
    """What the kernel says of it besides."""
    offset: int | None = None
    """Where in the message it found what it did not like, in bytes."""


def number(kind: int, value: int) -> Attribute:
    """An attribute of 32 bits in network byte order, which is what netfilter has."""
    return Attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def text(kind: int, value: str) -> Attribute:
    """An attribute that holds a text with a zero byte at its end."""
    return Attribute(kind, value.encode() + b"\0")


def encode_attributes(attributes: Iterable[Attribute]) -> bytes:
    """Attributes one after the other. Raises ValueError for one that is too long."""
    return b"".join(map(_encode_attribute, attributes))


def _encode_attribute(attribute: Attribute) -> bytes:
    nested = not isinstance(attribute.value, bytes)
    value = attribute.value if isinstance(attribute.value, bytes) else encode_attributes(attribute.value)
    length = _attribute.size + len(value)
    if length > _LONGEST:
        raise ValueError(f"an attribute of {length} bytes is too long")
    return _attribute.pack(length, attribute.kind | nested * _NESTED) + value + _padding(length)


def decode_attributes(raw: bytes) -> tuple[Attribute, ...]:
    """What `encode_attributes` was given."""
    return _decode_attributes(raw, _MOST_NESTED)


def _decode_attributes(raw: bytes, depth: int) -> tuple[Attribute, ...]:
    if depth == 0:
        raise ValueError(f"attributes are nested more than {_MOST_NESTED} deep")
    found = []
    offset = 0
    while offset < len(raw):
        if len(raw) - offset < _attribute.size:
            raise ValueError(f"{len(raw) - offset} bytes are no attribute")
        length, kind = _attribute.unpack_from(raw, offset)
        if length < _attribute.size or offset + length > len(raw):
            raise ValueError(f"an attribute of {length} bytes is cut short")
        value = raw[offset + _attribute.size : offset + length]
        found.append(Attribute(kind & _KIND, _decode_attributes(value, depth - 1) if kind & _NESTED else value))
        offset += _aligned(length)
    return tuple(found)


def by_kind(attributes: Iterable[Attribute]) -> dict[int, bytes]:
    """What those hold that hold bytes."""
    return {each.kind: each.value for each in attributes if isinstance(each.value, bytes)}


def encode_message(message: Message) -> bytes:
    """One message."""
    length = _header.size + len(message.body)
    head = _header.pack(length, message.kind, message.flags, message.sequence, 0)
    return head + message.body + _padding(length)


def decode_messages(raw: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset < len(raw):
        if len(raw) - offset < _header.size:
            raise ValueError(f"{len(raw) - offset} bytes are no netlink message")
        length, kind, flags, sequence, _ = _header.unpack_from(raw, offset)
        if length < _header.size or offset + length > len(raw):
            raise ValueError(f"a netlink message of {length} bytes is cut short")
        yield Message(kind, flags, sequence, raw[offset + _header.size : offset + length])
        offset += _aligned(length)


def decode_acknowledgement(message: Message) -> Acknowledgement:
    """What a message of kind ERROR says (`struct nlmsgerr`), or DONE at the end of a dump."""
    if len(message.body) < _error.size:
        raise ValueError(f"a struct nlmsgerr of {len(message.body)} bytes is cut short")
    errno = -_error.unpack_from(message.body)[0]
    if not message.flags & _ACK_ATTRIBUTES:
        return Acknowledgement(message.sequence, errno)
    begin = _error.size
    if message.kind == ERROR:
        begin += _header.size
        if len(message.body) < begin:
            raise ValueError(f"a struct nlmsgerr of {len(message.body)} bytes is cut short")
        if not message.flags & _CAPPED:
            (length, *_) = _header.unpack_from(message.body, _error.size)
            begin = _error.size + _aligned(max(length, _header.size))
    said = by_kind(decode_attributes(message.body[begin:]))
    words = said.get(_WORDS, b"").rstrip(b"\0").decode(errors="replace")
    offset = int.from_bytes(said[_OFFSET], sys.byteorder) if _OFFSET in said else None
    return Acknowledgement(message.sequence, errno, words, offset)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _padding(length: int) -> bytes:
    return bytes(_aligned(length) - length)
