"""A low descriptor, kept from the start of a session for the socket to which its redirects belong.

Files of a process that is killed are closed from the highest descriptor down, and connections have to go before their
redirects (`redirects`).
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress


class ReservedDescriptor:
    """It has something open until it is taken; whoever takes it closes it."""

    def __init__(self) -> None:
        self._is_taken = False
        self._reserve()

    def _reserve(self) -> None:
        self.number = os.memfd_create("reserved", os.MFD_CLOEXEC)
        self._placeholder = os.fstat(self.number)

    def take(self) -> int:
        """The descriptor, for something else to be opened in its place."""
        self._is_taken = True
        return self.number

    def give_back(self) -> None:
        """What was to be opened there was not, or is closed: reserves one again, if the former is not there."""
        self._is_taken = False
        with suppress(OSError):
            if os.path.samestat(os.fstat(self.number), self._placeholder):
                return
        self._reserve()

    def below(self, connection: socket.socket) -> socket.socket:
        """The same socket, of a higher descriptor than this one."""
        if connection.fileno() > self.number:
            return connection
        with connection:
            return socket.socket(fileno=fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, self.number + 1))

    def close(self) -> None:
        """Closes it, unless it is taken."""
        if not self._is_taken:
            os.close(self.number)
