"""Messages with descriptors over a socket that keeps their bounds (SOCK_SEQPACKET)."""

from __future__ import annotations

import array
import pickle
import socket
from collections.abc import Sequence
from typing import Any

LARGEST_MESSAGE = 256 << 10
"""In bytes; a container's files and environment must fit."""

_MOST_DESCRIPTORS = 2


def send(channel: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    """Sends a value that can be pickled. Raises OSError."""
    socket.send_fds(channel, [pickle.dumps(message)], list(descriptors))


def receive(channel: socket.socket) -> tuple[Any, list[int]] | None:
    """The next message and its descriptors, which no program inherits; None at the end. Raises OSError.

    Not `socket.recv_fds`, which ignores its flags in Python 3.11.
    """
    descriptors = array.array("i")
    room = socket.CMSG_LEN(_MOST_DESCRIPTORS * descriptors.itemsize)
    message, ancillary, _, _ = channel.recvmsg(LARGEST_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data)
    if not message:
        return None
    return pickle.loads(message), list(descriptors)
