"""Two connections, the process's and the pod's, and the bytes between them.

Each half ends as it does at its source. EOF becomes a shutdown, and a reset becomes a reset, after the bytes that came
before it. Two things the kernel does not tell are looked for: whether a process that has ended its half has closed its
socket altogether (then the pod's kernel may close too, and answer late bytes as this one would have), and whether the
session is lost while nothing flows.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_trace.session import RemoteStream

CHUNK_BYTES: Final = 1 << 18
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: no lingering, RST (socket(7))
_LAST_BYTES_S: Final = 1.0
"""How long a process may take to read what came before a reset. One that only writes learns of the reset then."""
CLOSED_CHECK_S: Final = 5.0
"""How often is looked whether a process has closed its socket."""


@attrs.define(eq=False)
class Exchange:
    """One connection of the process and its counterpart. Owns neither."""

    connection: trio.socket.SocketType
    stream: RemoteStream
    session_lost: trio.Event
    is_closed_by_process: Callable[[], bool]
    """Whether no process has the other end of `connection` open any more."""
    on_sent: Callable[[], None]
    """Called once, when the process has sent all that it will or nobody can take it."""
    _both: trio.CancelScope = attrs.field(init=False)
    _far_ended: bool = False
    _is_broken: bool = False
    """Whether the pod's connection broke."""

    async def run(self) -> None:
        """Returns when both halves have ended or the connection broke. What the process wrote still goes out."""
        try:
            async with trio.open_nursery() as nursery:
                self._both = nursery.cancel_scope
                nursery.start_soon(self._send)
                nursery.start_soon(self._receive)
        finally:
            if self._is_broken:
                reset_on_close(self.connection)
            if self.stream.is_eof_sent:
                with trio.CancelScope(shield=True):
                    await self.stream.aclose()
            else:
                self.stream.reset()

    async def _send(self) -> None:
        try:
            await self._send_until_end()
        finally:
            self.on_sent()
        if self.stream.is_eof_sent and not self._far_ended:
            while not self.is_closed_by_process():  # noqa: ASYNC110 - the kernel has no event for it
                await trio.sleep(CLOSED_CHECK_S)
        if self.stream.is_eof_sent:
            self._both.cancel()

    async def _send_until_end(self) -> None:
        while True:
            try:
                data = await self.connection.recv(CHUNK_BYTES)
            except OSError:  # reset by the process
                self._reset_far()
                return
            try:
                if not data:
                    await self.stream.send_eof()
                    return
                await self.stream.send(data)
            except OSError:
                self._is_broken = True
                # The receiving half reads on, up to the reset.
                self._both.deadline = trio.current_time() + (0 if self._far_ended else _LAST_BYTES_S)
                return

    async def _receive(self) -> None:
        while True:
            try:
                data = await self.stream.receive()
            except OSError:
                break
            try:
                if not data:
                    self._far_ended = True
                    self.connection.shutdown(socket.SHUT_WR)
                    if self.stream.is_eof_sent:
                        self._both.cancel()
                        return
                    await self.session_lost.wait()
                    break
                view = memoryview(data)
                while view:
                    view = view[await self.connection.send(view) :]
            except OSError:  # reset by the process, or closed
                self._reset_far()
                return
        self._is_broken = True
        await let_process_read(self.connection)
        self._both.cancel()

    def _reset_far(self) -> None:
        self.stream.reset()
        self._both.cancel()


async def let_process_read(connection: trio.socket.SocketType) -> None:
    """Waits a moment for the process to have room for what a reset would destroy: bytes that we still hold."""
    if connection.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError), trio.move_on_after(_LAST_BYTES_S):
        # Writable only while nothing is unsent (tcp(7)); what is sent on loopback has arrived.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)
        await trio.lowlevel.wait_writable(connection)


def reset_on_close(connection: trio.socket.SocketType) -> None:
    """When the connection is closed its other end sees a reset; of Unix sockets it sees the end."""
    if connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
