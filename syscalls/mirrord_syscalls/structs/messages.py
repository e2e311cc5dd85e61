"""What sendmsg(2), recvmsg(2) and their relatives point to: message headers, scattered buffers, control messages.

Sources: include/linux/socket.h and include/uapi/linux/uio.h. A control buffer is a row of struct cmsghdr, each followed
by its data and padded to 8 bytes (cmsg(3)). Reading follows the kernel's CMSG_FIRSTHDR and CMSG_NXTHDR: a header that
does not fit, or a length smaller than a header, ends the row. A message whose data is cut gives what is there.
"""

import struct
from collections.abc import Iterable
from typing import ClassVar, Self

import attrs

from mirrord_syscalls.structs.layout import Buffer, require

CONTROL_HEADER_BYTES = 16

_msghdr = struct.Struct("<QI4xQQQQi4x")
_mmsghdr_length = struct.Struct("<I4x")
_iovec = struct.Struct("<QQ")
_cmsghdr = struct.Struct("<Qii")


@attrs.frozen
class Msghdr:
    """struct msghdr: what sendmsg(2) and recvmsg(2) point to. Pointers are addresses in the task."""

    SIZE: ClassVar[int] = 56
    FLAGS_OFFSET: ClassVar[int] = 48

    name: int
    name_length: int
    iov: int
    iov_count: int
    control: int
    control_length: int
    flags: int

    @classmethod
    def decode(cls, raw: Buffer, offset: int = 0) -> Self:
        """Read one structure at `offset`. Raises ValueError if it is not wholly there."""
        require(raw, offset, cls.SIZE, "struct msghdr")
        return cls(*_msghdr.unpack_from(raw, offset))

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        return _msghdr.pack(
            self.name, self.name_length, self.iov, self.iov_count, self.control, self.control_length, self.flags
        )


@attrs.frozen
class Mmsghdr:
    """struct mmsghdr: one element of the array of sendmmsg(2) and recvmmsg(2)."""

    SIZE: ClassVar[int] = 64
    LENGTH_OFFSET: ClassVar[int] = 56

    header: Msghdr
    length: int
    """Bytes sent or received, written by the kernel."""

    @classmethod
    def decode(cls, raw: Buffer, offset: int = 0) -> Self:
        """Read one structure at `offset`. Raises ValueError if it is not wholly there."""
        require(raw, offset, cls.SIZE, "struct mmsghdr")
        return cls(Msghdr.decode(raw, offset), _mmsghdr_length.unpack_from(raw, offset + cls.LENGTH_OFFSET)[0])

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        return self.header.encode() + _mmsghdr_length.pack(self.length)


@attrs.frozen
class Iovec:
    """struct iovec: one piece of a scattered buffer, its address in the task and its length in bytes."""

    SIZE: ClassVar[int] = 16

    base: int
    length: int

    @classmethod
    def decode(cls, raw: Buffer, offset: int = 0) -> Self:
        """Read one structure at `offset`. Raises ValueError if it is not wholly there."""
        require(raw, offset, cls.SIZE, "struct iovec")
        return cls(*_iovec.unpack_from(raw, offset))

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        return _iovec.pack(self.base, self.length)


def decode_iovecs(raw: Buffer) -> tuple[Iovec, ...]:
    """Return every struct iovec of the array `raw`. Raises ValueError if the last one is cut."""
    if len(raw) % Iovec.SIZE:
        raise ValueError(f"an array of struct iovec takes a multiple of {Iovec.SIZE} bytes, not {len(raw)}")
    return tuple(Iovec(base, length) for base, length in _iovec.iter_unpack(raw))


@attrs.frozen
class ControlMessage:
    """One control message: its level (SOL_SOCKET, IPPROTO_IP, …), its type at that level, and its data."""

    level: int
    type: int
    data: bytes


def decode_control(raw: Buffer) -> tuple[ControlMessage, ...]:
    """Return the messages of a control buffer; never fails, as the kernel's walk doesn't."""
    messages = []
    offset = 0
    while len(raw) - offset >= CONTROL_HEADER_BYTES:
        length, level, kind = _cmsghdr.unpack_from(raw, offset)
        if length < CONTROL_HEADER_BYTES:
            break
        messages.append(ControlMessage(level, kind, bytes(raw[offset + CONTROL_HEADER_BYTES : offset + length])))
        offset += _aligned(length)
    return tuple(messages)


def encode_control(messages: Iterable[ControlMessage]) -> bytes:
    """Return a control buffer of the messages, the last one padded too (CMSG_SPACE)."""
    buffer = bytearray()
    for message in messages:
        length = CONTROL_HEADER_BYTES + len(message.data)
        buffer += _cmsghdr.pack(length, message.level, message.type)
        buffer += message.data
        buffer += bytes(_aligned(length) - length)
    return bytes(buffer)


def _aligned(length: int) -> int:
    return (length + 7) & ~7
