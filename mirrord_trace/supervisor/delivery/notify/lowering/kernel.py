"""Socket calls with raw names, control bytes and flags, on descriptors of this process; and who closes those.

Python's own socket module takes addresses and control messages apart and puts them together again, which loses what it
does not know. Here a call is given bytes and answers as the kernel does: a value, or a negative errno.

The interpreter's lock. What takes no socket's lock is called without letting go of it, for it is shorter than getting
it back: options, and what UDP sends and receives. What may wait for a socket's lock lets go: a task holds that while
the kernel copies from its memory, which may have to be fetched by one of our own threads.
"""

from __future__ import annotations

import ctypes
import math
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.sockaddr import SOCKADDR_STORAGE_BYTES
from mirrord_syscalls.structs import Iovec, Msghdr

_patient = ctypes.CDLL(None, use_errno=True)
_brief = ctypes.PyDLL(None, use_errno=True)

_connect = _patient.connect
_connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_names = {"getsockname": _patient.getsockname, "getpeername": _patient.getpeername}
for _function in _names.values():
    _function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_getsockopt = _brief.getsockopt
_getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

_sendto, _sendmsg = _brief.sendto, _brief.sendmsg
_sendto.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_stream_sendmsg = _patient.sendmsg
_recvmsg = _brief.recvmsg
for _function in (_sendmsg, _stream_sendmsg, _recvmsg):
    _function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_recvfrom = _brief.recvfrom
_recvfrom.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
for _function in (_sendto, _sendmsg, _stream_sendmsg, _recvmsg, _recvfrom):
    _function.restype = ctypes.c_ssize_t

_syscall = _brief.syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_syscall.restype = ctypes.c_long

DATAGRAM_ROOM: Final = 1 << 16
"""More bytes than any UDP datagram takes (udp(7), RFC 768)."""
CONTROL_ROOM: Final = 1 << 16

_timeval = struct.Struct("=qq")
_int_bytes: Final = ctypes.sizeof(ctypes.c_int)
_UDP_ENCAP: Final = 100  # linux/udp.h


@attrs.define(eq=False)
class Loan:
    """A borrowed duplicate of a task's descriptor; closed with the block, or when nobody knows it any more."""

    number: int

    def close(self) -> None:
        """May be called again."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:  # of a coroutine that was dropped before it began
        self.close()


def connect(number: int, name: bytes) -> int:
    """connect(2)."""
    return 0 if _connect(number, name, len(name)) == 0 else -ctypes.get_errno()


def name_of(call: str, number: int) -> tuple[int, bytes]:
    """What getsockname(2) or getpeername(2) says: 0 or a negative errno, and the name."""
    room, length = ctypes.create_string_buffer(SOCKADDR_STORAGE_BYTES), ctypes.c_uint(SOCKADDR_STORAGE_BYTES)
    if _names[call](number, ctypes.addressof(room), ctypes.addressof(length)) < 0:
        return -ctypes.get_errno(), b""
    return 0, room.raw[: length.value]


class _Option(threading.local):
    """Where an option's value is handed out, for each thread."""

    def __init__(self) -> None:
        self.room = ctypes.create_string_buffer(_timeval.size)
        self.length = ctypes.c_uint()
        self.room_address, self.length_address = ctypes.addressof(self.room), ctypes.addressof(self.length)


_option = _Option()


def option(number: int, option: int) -> int:
    """An integer option of the level SOL_SOCKET. Raises OSError (ENOTSOCK)."""
    return int.from_bytes(_raw_option(number, option, _int_bytes), sys.byteorder, signed=True)


def timeout_s(number: int, option: int) -> float:
    """SO_SNDTIMEO or SO_RCVTIMEO, in seconds; inf where there is none. Raises OSError."""
    seconds, microseconds = _timeval.unpack(_raw_option(number, option, _timeval.size))
    return (seconds + microseconds / 1e6) or math.inf


def _raw_option(number: int, option: int, length: int) -> bytes:
    here = _option
    here.length.value = length
    if _getsockopt(number, socket.SOL_SOCKET, option, here.room_address, here.length_address) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"option {option} of descriptor {number}")
    return here.room.raw[:length]


def is_udp(number: int) -> bool:
    """Whether this is a UDP socket: no other knows UDP's options (checked on Linux 6.18), and one call tells."""
    here = _option
    here.length.value = _int_bytes
    found: int = _getsockopt(number, socket.IPPROTO_UDP, _UDP_ENCAP, here.room_address, here.length_address)
    return found == 0


def send_datagram(number: int, data: bytes, flags: int, name: bytes | None, control: bytes) -> int:
    """sendmsg(2) on a UDP socket; never blocks, never raises a signal."""
    flags |= socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    if control:
        result = _send_message(_sendmsg, number, data, flags, name, control)
    else:
        result = _sendto(number, data, len(data), flags, name, len(name or b""))
    return result if result >= 0 else -ctypes.get_errno()


def send_stream(number: int, data: bytes, flags: int, name: bytes | None, control: bytes) -> int:
    """sendmsg(2) on a stream socket; never blocks, never raises a signal."""
    flags |= socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    result = _send_message(_stream_sendmsg, number, data, flags, name, control)
    return result if result >= 0 else -ctypes.get_errno()


def _send_message(
    send: Callable[..., int], number: int, data: bytes, flags: int, name: bytes | None, control: bytes
) -> int:
    iovec = Iovec(_address(data), len(data)).encode()
    name, name_length = name or b"", len(name or b"")
    header = Msghdr(
        _address(name) if name else 0,
        name_length,
        _address(iovec),
        1,
        _address(control) if control else 0,
        len(control),
        0,
    ).encode()
    return send(number, _address(header), flags)


def _address(data: bytes) -> int:
    """Where the bytes lie, for as long as the caller keeps them."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


class _Room(threading.local):
    """Where a message is received, for each thread. The structures that point there are filled once."""

    def __init__(self) -> None:
        self.data, self.name, self.control = (
            bytearray(length) for length in (DATAGRAM_ROOM, SOCKADDR_STORAGE_BYTES, CONTROL_ROOM)
        )
        self.iovec, self.header = bytearray(Iovec.SIZE), bytearray(Msghdr.SIZE)
        self._pins = [
            (ctypes.c_char * len(room)).from_buffer(room)
            for room in (self.data, self.name, self.control, self.iovec, self.header)
        ]
        self.places = [ctypes.addressof(pin) for pin in self._pins]
        self.name_length = ctypes.c_uint()
        self.name_length_address = ctypes.addressof(self.name_length)


_room = _Room()


@attrs.define(eq=False)
class Received:
    """A message, as recvmsg(2) hands it out."""

    result: int
    """Its length, which with MSG_TRUNC may be greater than that of `data`; or a negative errno."""
    data: bytes = b""
    name: bytes = b""
    control: bytes = b""
    flags: int = 0


def receive_from(number: int, flags: int, room: int) -> Received:
    """recvfrom(2) on a UDP socket, of up to `room` bytes; never blocks."""
    here = _room
    here.name_length.value = SOCKADDR_STORAGE_BYTES
    data, name, *_ = here.places
    result = _recvfrom(
        number, data, min(room, DATAGRAM_ROOM), flags | socket.MSG_DONTWAIT, name, here.name_length_address
    )
    if result < 0:
        return Received(-ctypes.get_errno())
    return Received(
        result, bytes(memoryview(here.data)[: min(result, room)]), bytes(here.name[: here.name_length.value])
    )


def receive_message(number: int, flags: int, room: int, control_room: int) -> Received:
    """recvmsg(2) on a UDP socket, of up to `room` bytes of data; never blocks."""
    here = _room
    data, name, control, iovec, header = here.places
    here.iovec[:] = Iovec(data, min(room, DATAGRAM_ROOM)).encode()
    control_room = min(control_room, CONTROL_ROOM)
    here.header[:] = Msghdr(
        name, SOCKADDR_STORAGE_BYTES, iovec, 1, control if control_room else 0, control_room, 0
    ).encode()
    result = _recvmsg(number, header, flags | socket.MSG_DONTWAIT)
    if result < 0:
        return Received(-ctypes.get_errno())
    after = Msghdr.decode(here.header)
    return Received(
        result,
        bytes(memoryview(here.data)[: min(result, room)]),
        bytes(here.name[: after.name_length]),
        bytes(memoryview(here.control)[: after.control_length]),
        after.flags,
    )


def signal_task(abi: Abi, tid: int, number: int) -> None:
    """Sends a signal to one task: tgkill(2). Nothing happens where it is gone."""
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            group = next(int(line[5:]) for line in status if line.startswith(b"Tgid:"))
    except OSError:
        return
    _syscall(abi.numbers["tgkill"], group, tid, number)
