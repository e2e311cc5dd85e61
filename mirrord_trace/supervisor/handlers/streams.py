"""connect(2) of stream sockets: the process's own socket is connected to a relay when the far side has answered.

Until then the call is held: a blocking one as long as it takes, a non-blocking one for a short budget. A held call must
not outlast a signal (natively it would interrupt it), nor SO_SNDTIMEO. When the answer is not there in time the call is
let go, to a listener that hears no SYN: the socket is then truly in SYN_SENT, and everything else that can happen to it
(EINPROGRESS, EALREADY, EINTR, poll, a second connect, close) is the kernel's doing. See `relay.listener`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import Endpoint, InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix
from mirrord_trace.policy.outgoing import OutgoingPolicy, Side
from mirrord_trace.relay.addresses import address_of_endpoint, endpoint_of, wished_source
from mirrord_trace.relay.listener import Listener, listen_for, listen_for_unix
from mirrord_trace.relay.tcp import Attempt, Established, Failed, StreamRelay
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, UseAddress, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.socket_table import Connected, Connecting, Refused, SocketTable

_SIGNAL_CHECK_S: Final = 0.02
_TCP_CLOSE: Final = 7
_TCP_FASTOPEN_CONNECT: Final = 30
_timeval = struct.Struct("=qq")
_NOT_OVER: Final = (-errno.EINPROGRESS, -errno.EALREADY, -errno.EINTR)


@attrs.define(eq=False)
class StreamHandlers:
    """Stream sockets of the process tree."""

    table: SocketTable
    policy: OutgoingPolicy
    listeners: TreeListeners
    relay: StreamRelay
    hold_s: float
    """How long a non-blocking connect may take."""
    token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)

    def is_local(self, address: Inet4 | Inet6) -> bool:
        """Whether TCP to `address` is none of our business, whoever listens."""
        return self.policy.side("tcp", address) is Side.LOCAL

    def connect_again(self, call: Call, inode: int) -> Answer | None:
        """A connect of a socket that already had one. None: it is the first, or the last one is over."""
        match self.table.get(inode):
            case Connected(attempt):
                return UseAddress(attempt.listener.address)  # EISCONN
            case Connecting(attempt) if attempt.in_kernel and call.is_nonblocking(call.integer(0)):
                return UseAddress(attempt.listener.address)  # EALREADY
            case Connecting(attempt):
                return self._hold(call, attempt, _patience(call, self.hold_s))
            case Refused(attempt, _):
                return self._let_go(attempt)  # the kernel tells the error, once
        return None

    def connect(self, call: Call, borrowed: socket.socket, inode: int, address: Inet4 | Inet6) -> Answer:
        """Connect of a TCP socket, or a send that connects (MSG_FASTOPEN)."""
        side = self.policy.side("tcp", address)
        if side is Side.LOCAL or not _is_closed(borrowed) or not _fits(borrowed.family, address):
            return PASS
        if side is Side.LISTENER and self.listeners.serves("tcp", address):
            return PASS
        with contextlib.suppress(OSError):
            # The connection is made before the call returns, so there is nothing to gain from delaying it.
            borrowed.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 0)
        family, patience_s = borrowed.family, self._patience_of(borrowed)
        return self._begin(
            call,
            inode,
            endpoint_of(address),
            wished_source(borrowed, address),
            family,
            patience_s,
            lambda: listen_for(address, family),
        )

    def connect_unix(self, call: Call, descriptor: int, inode: int, address: Unix) -> Answer:
        """Connect of a Unix socket."""
        side = self.policy.unix_side(address)
        if side is Side.ABSENT:
            return Fail(errno.ENOENT)
        if side is Side.LOCAL:
            return PASS
        again = self.connect_again(call, inode)
        if again is not None:
            return again
        with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
            if borrowed.type != socket.SOCK_STREAM:
                return PASS
            patience_s = self._patience_of(borrowed)
        return self._begin(call, inode, endpoint_of(address), None, socket.AF_UNIX, patience_s, listen_for_unix)

    def _patience_of(self, borrowed: socket.socket) -> float:
        return _send_timeout_s(borrowed) if os.get_blocking(borrowed.fileno()) else self.hold_s

    async def _begin(
        self,
        call: Call,
        inode: int,
        remote: Endpoint,
        local: InetEndpoint | None,
        family: int,
        patience_s: float,
        listen: Callable[[], Listener],
    ) -> Verdict:
        match self.table.get(inode):
            case Connecting(attempt):  # another thread was faster
                return await self._hold(call, attempt, patience_s)
        try:
            listener = listen()
        except OSError as error:
            return Fail(error.errno or errno.ENOBUFS)
        attempt = Attempt(inode, remote, local, listener, family, self._answered, self._ended)
        self.table.put(inode, Connecting(attempt))
        self.relay.begin(attempt)
        return await self._hold(call, attempt, patience_s)

    async def _hold(self, call: Call, attempt: Attempt, patience_s: float) -> Verdict:
        try:
            with trio.move_on_after(patience_s):
                while True:
                    with trio.move_on_after(_SIGNAL_CHECK_S):
                        await attempt.answered.wait()
                        break
                    if call.has_pending_signal():
                        break
        except trio.Cancelled:
            if not attempt.in_kernel:
                attempt.abandon()
                self.table.remove(attempt.inode)
            raise
        match attempt.outcome:
            case Failed(number) if not attempt.in_kernel:
                return Fail(number)
            case None if not attempt.in_kernel:
                attempt.listener.silence()
        return self._let_go(attempt)

    def _let_go(self, attempt: Attempt) -> Verdict:
        """The process's own call goes on, to the listener. Once its socket connects the kernel ignores the address."""
        return UseAddress(attempt.listener.address, lambda result: self._returned(attempt, result))

    def _returned(self, attempt: Attempt, result: int) -> int:
        if result >= 0 or result in _NOT_OVER:
            attempt.in_kernel = True
            self._record(attempt)
            return result
        self.table.remove(attempt.inode)
        match attempt.outcome:
            case Failed(number) if result == -errno.ECONNREFUSED:
                return -number
        self.token.run_sync_soon(attempt.abandon)
        return result

    def _answered(self, attempt: Attempt) -> None:
        if attempt.in_kernel:
            self._record(attempt)
        elif isinstance(attempt.outcome, Failed):
            self.table.remove(attempt.inode)

    def _record(self, attempt: Attempt) -> None:
        """What is known once the process's socket connects in the kernel and the far side has answered."""
        match attempt.outcome:
            case Established(local, peer):
                shown = (address_of_endpoint(end, attempt.family) for end in (local, peer))
                self.table.put(attempt.inode, Connected(attempt, *shown))
            case Failed(number):
                self.table.put(attempt.inode, Refused(attempt, number))

    def _ended(self, attempt: Attempt) -> None:
        self.table.ended(attempt.inode)


def _is_closed(borrowed: socket.socket) -> bool:
    """Whether a TCP socket is neither connected nor connecting nor listening: only then does connect reach out."""
    try:
        return borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError:
        return True


def _fits(family: int, address: SocketAddress) -> bool:
    """Whether a TCP socket of `family` takes such an address; otherwise the kernel says EAFNOSUPPORT."""
    return isinstance(address, Inet6 if family == socket.AF_INET6 else Inet4)


def _send_timeout_s(borrowed: socket.socket) -> float:
    """SO_SNDTIMEO, which bounds a blocking connect too (socket(7))."""
    seconds, microseconds = _timeval.unpack(borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval.size))
    return (seconds + microseconds / 1e6) or math.inf


def _patience(call: Call, hold_s: float) -> float:
    try:
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            return _send_timeout_s(borrowed) if os.get_blocking(borrowed.fileno()) else hold_s
    except OSError:
        return hold_s
