"""Classic BPF programs as filters of sockets: socket(7), SO_ATTACH_FILTER."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_INSTRUCTION_BYTES: Final = 8


def attach_filter(filtered: socket.socket, instructions: bytes) -> None:
    """From now on what the program drops is not received."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("=H6xQ", len(instructions) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    filtered.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def detach_filter(filtered: socket.socket) -> None:
    """Everything is received again."""
    filtered.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
