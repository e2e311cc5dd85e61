"""A copy of what a client sends to the target, for the process; what the process answers goes nowhere.

The process may be slow or stop reading: then the stream's window fills, and the agent cuts the copy. The target does
not notice, nor does the client.

With a filter, what comes is not the client's whole connection but the process's part of it, which for HTTP/2 the agent
cannot make up without knowing what the process says. So that is passed on there.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_trace.relay.exchange import CHUNK_BYTES, CLOSED_CHECK_S, let_process_read, reset_on_close
from mirrord_trace.session import RemoteStream

_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0"
"""How a connection of HTTP/2 begins, and no other does (RFC 9113 section 3.4)."""
_never_written: Final = bytearray(1 << 20)


@attrs.define(eq=False)
class Mirroring:
    """One connection to the process and what it is to hear. Owns neither."""

    connection: trio.socket.SocketType
    stream: RemoteStream
    is_closed_by_process: Callable[[], bool]
    """Whether no process has the other end of `connection` open any more."""
    is_filtered: bool = False
    """Whether the agent chooses what the process hears."""
    _begun: trio.Event = attrs.field(init=False, factory=trio.Event)
    _answers_count: bool = attrs.field(init=False, default=False)

    async def run(self) -> None:
        """Returns when the process has heard all and has closed, or either side has broken off."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_answers, nursery.cancel_scope)
                if not await self._pass_on():
                    nursery.cancel_scope.cancel()
        finally:
            self.stream.reset()

    async def _pass_on(self) -> bool:
        """Whether the process has heard the client's end."""
        while True:
            try:
                data = await self.stream.receive()
            except OSError:  # broken by the client, or cut
                await let_process_read(self.connection)
                reset_on_close(self.connection)
                return False
            if not self._begun.is_set():
                self._answers_count = self.is_filtered and data.startswith(_HTTP2_PREFACE)
                self._begun.set()
            try:
                if not data:
                    self.connection.shutdown(socket.SHUT_WR)
                    await self.stream.aclose()
                    return True
                view = memoryview(data)
                while view:
                    view = view[await self.connection.send(view) :]
            except OSError:  # broken by the process, or closed
                return False

    async def _take_answers(self, everything: trio.CancelScope) -> None:
        with contextlib.suppress(OSError):
            if self.is_filtered:
                await self._begun.wait()
            if self._answers_count:
                await self._tell_agent()
            # Without looking; the kernel does not even copy it (tcp(7), MSG_TRUNC).
            while await self.connection.recv_into(_never_written, 0, socket.MSG_TRUNC):
                pass
            while not self.is_closed_by_process():  # noqa: ASYNC110 - the kernel has no event for it
                await trio.sleep(CLOSED_CHECK_S)
        everything.cancel()

    async def _tell_agent(self) -> None:
        """Returns when the process has said all, or nobody wants to know. Raises OSError when the process broke off."""
        while data := await self.connection.recv(CHUNK_BYTES):
            try:
                await self.stream.send(data)
            except OSError:
                return
