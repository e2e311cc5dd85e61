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
from types import TracebackType
from typing import Self

import attrs

from mirrord_syscalls.sockaddr import SOCKADDR_STORAGE_BYTES

_patient = ctypes.CDLL(None, use_errno=True)
_brief = ctypes.PyDLL(None, use_errno=True)

_connect = _patient.connect
_connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_names = {"getsockname": _patient.getsockname, "getpeername": _patient.getpeername}
for _function in _names.values():
    _function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_getsockopt = _brief.getsockopt
_getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

_timeval = struct.Struct("=qq")


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


def option(number: int, option: int) -> int:
    """An integer option of the level SOL_SOCKET. Raises OSError (ENOTSOCK)."""
    value, length = ctypes.c_int(), ctypes.c_uint(ctypes.sizeof(ctypes.c_int))
    _get_option(number, option, value, length)
    return value.value


def timeout_s(number: int, option: int) -> float:
    """SO_SNDTIMEO or SO_RCVTIMEO, in seconds; inf where there is none. Raises OSError."""
    room, length = ctypes.create_string_buffer(_timeval.size), ctypes.c_uint(_timeval.size)
    _get_option(number, option, room, length)
    seconds, microseconds = _timeval.unpack(room.raw)
    return (seconds + microseconds / 1e6) or math.inf


def _get_option(
    number: int, option: int, value: ctypes.c_int | ctypes.Array[ctypes.c_char], length: ctypes.c_uint
) -> None:
    if _getsockopt(number, socket.SOL_SOCKET, option, ctypes.addressof(value), ctypes.addressof(length)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"option {option} of descriptor {number}")
