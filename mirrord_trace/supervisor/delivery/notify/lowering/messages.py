"""What the arguments of a send or a receive point to, read and written as the kernel does it (net/socket.c).

What the kernel finds fault with raises OSError with its errno.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from mirrord_syscalls.sockaddr import SOCKADDR_STORAGE_BYTES
from mirrord_syscalls.structs import Iovec, Msghdr, decode_iovecs
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import CONTROL_ROOM
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall

MESSAGES_MAXIMUM: Final = 1024  # UIO_MAXIOV, for messages as for segments
_SEGMENTS_MAXIMUM: Final = 1024
_IS_NEGATIVE: Final = 0x8000_0000
_IS_NEGATIVE_LONG: Final = 1 << 63
_BYTES_MAXIMUM: Final = 0x7FFF_F000  # MAX_RW_COUNT: no call moves more


def fault(number: int) -> OSError:
    """The error that the kernel's answer stands for."""
    return OSError(number, os.strerror(number))


def read_header(call: NotifiedCall, place: int) -> Msghdr:
    """A message's header, its name's length within bounds. Raises OSError, MemoryFault."""
    header = Msghdr.decode(call.memory.read(place, Msghdr.SIZE))
    if header.name and header.name_length & _IS_NEGATIVE:
        raise fault(errno.EINVAL)
    if header.iov_count > _SEGMENTS_MAXIMUM:
        raise fault(errno.EMSGSIZE)
    return header


def read_name(call: NotifiedCall, header: Msghdr) -> bytes | None:
    """The name that a message is sent to; None where it has none. Raises MemoryFault."""
    if not header.name or not header.name_length:
        return None
    return call.memory.read(header.name, min(header.name_length, SOCKADDR_STORAGE_BYTES))


def read_control(call: NotifiedCall, header: Msghdr) -> bytes:
    """The control messages of a message that is sent. Raises OSError, MemoryFault."""
    if not header.control or not header.control_length:
        return b""
    if header.control_length > CONTROL_ROOM:
        raise fault(errno.ENOBUFS)
    return call.memory.read(header.control, header.control_length)


def read_segments(call: NotifiedCall, header: Msghdr) -> tuple[Iovec, ...]:
    """Where a message's data lie in the task. Raises OSError, MemoryFault."""
    if not header.iov_count:
        return ()
    segments = decode_iovecs(call.memory.read(header.iov, header.iov_count * Iovec.SIZE))
    if any(segment.length & _IS_NEGATIVE_LONG for segment in segments):
        raise fault(errno.EINVAL)
    return segments


def length_of(segments: Sequence[Iovec]) -> int:
    """The bytes of all segments that a call moves."""
    return min(sum(segment.length for segment in segments), _BYTES_MAXIMUM)


def gather(call: NotifiedCall, segments: Sequence[Iovec], begin: int, length: int) -> bytes:
    """Up to `length` bytes of what the segments hold, from `begin` on. Raises MemoryFault."""
    parts = []
    for segment in segments:
        if begin < segment.length and length:
            part = call.memory.read(segment.base + begin, min(segment.length - begin, length))
            parts.append(part)
            length -= len(part)
        begin = max(begin - segment.length, 0)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def scatter(call: NotifiedCall, segments: Sequence[Iovec], data: bytes) -> None:
    """Puts data into the segments, as much as there is room for. Raises MemoryFault."""
    done = 0
    for segment in segments:
        if done == len(data):
            return
        part = data[done : done + segment.length]
        if part:
            call.memory.write(segment.base, part)
        done += len(part)
