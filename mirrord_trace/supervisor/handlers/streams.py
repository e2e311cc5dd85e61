"""connect(2) of stream sockets: the process's own socket is connected to a relay when the far side has answered.

Until then the call is held: a blocking one as long as it takes, a non-blocking one for a short budget. A held call must
not outlast a signal (natively it would interrupt it), nor SO_SNDTIMEO. When the answer is not there in time the call is
let go, to a listener that hears no SYN: the socket is then truly in SYN_SENT, and everything else that can happen to it
(EINPROGRESS, EALREADY, EINTR, poll, a second connect, close) is the kernel's doing. See `relay.listener`.

No call whose address is the pod's goes on with that address, whatever state we believe the socket to be in.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import Endpoint, InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, mapped_ipv4
from mirrord_trace.policy.outgoing import OutgoingPolicy, Protocol, Side
from mirrord_trace.relay.addresses import address_of_endpoint, endpoint_of, wished_source
from mirrord_trace.relay.listener import Listener, listen_for, listen_for_unix
from mirrord_trace.relay.tcp import Attempt, Established, Failed, StreamRelay
from mirrord_trace.sockets_here import LOOPBACK4, LOOPBACK6, TreeListeners
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, UseAddress, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.socket_table import Connected, Connecting, Refused, SocketTable, StreamRecord

_SIGNAL_CHECK_S: Final = 0.02
_TCP_CLOSE: Final = 7
_TCP_FASTOPEN_CONNECT: Final = 30
_timeval = struct.Struct("=qq")
_NOT_OVER: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR, errno.EISCONN)


@attrs.frozen
class _Patience:
    """How long a call may be held."""

    limit_s: float
    is_interruptible: bool
    """Whether a signal ends it, as it ends a blocking call only."""


@attrs.define(eq=False)
class StreamHandlers:
    """Stream sockets of the process tree."""

    table: SocketTable
    policy: OutgoingPolicy
    listeners: TreeListeners
    relay: StreamRelay
    hold_s: float
    """How long a non-blocking connect may take."""
    stand_in: Callable[[Protocol, Inet4 | Inet6], Inet4 | Inet6 | None] = lambda protocol, address: None
    """Where the tree listens on this machine when it believes to listen on an address of it, see `IncomingHandlers`."""
    token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)

    def is_local(self, address: Inet4 | Inet6) -> bool:
        """Whether TCP to `address` is none of our business, whoever listens."""
        return self.policy.side("tcp", address) is Side.LOCAL

    def connect_again(self, call: Call, inode: int) -> Answer | None:
        """A connect of a socket that already had one. None: it is the first, or the last one is over."""
        match self.table.get(inode):
            case Connecting(attempt) if not attempt.in_kernel:  # another thread's call is held
                return self._hold(call, attempt, self._patience_of_descriptor(call))
            case Connecting(attempt) | Connected(attempt) | Refused(attempt):
                return self._let_go(attempt)  # EISCONN, EALREADY, the error: the kernel's to say
        return None

    def connect(self, call: Call, borrowed: socket.socket, inode: int, address: Inet4 | Inet6) -> Answer:
        """Connect of a TCP socket, or a send that connects (MSG_FASTOPEN)."""
        side = self.policy.side("tcp", address)
        if side is Side.LOCAL or not _fits(borrowed.family, address):
            return PASS
        if side is Side.LISTENER:
            if self.listeners.serves("tcp", address):
                return PASS
            if (there := self.stand_in("tcp", address)) is not None:
                return UseAddress(there)
        if mapped_ipv4(address) is not None and borrowed.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return Fail(errno.ENETUNREACH)
        if not _is_closed(borrowed):  # EISCONN, EALREADY: the kernel's to say, but never to the address itself
            return UseAddress(nowhere(borrowed.family))
        with contextlib.suppress(OSError):
            # The connection is made before the call returns, so there is nothing to gain from delaying it.
            borrowed.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 0)
        family, patience = borrowed.family, self._patience_of(borrowed)
        source = wished_source(borrowed, address)
        return self._begin(
            call, inode, endpoint_of(address), source, family, patience, lambda: listen_for(address, family)
        )

    def connect_unix(self, call: Call, descriptor: int, inode: int, address: Unix) -> Answer:
        """Connect of a Unix socket. A relative path is one of the target's root, for its directories are not ours."""
        side = self.policy.unix_side(address)
        if side is Side.ABSENT:
            return Fail(errno.ENOENT)
        if side is Side.LOCAL or not address.path:
            return PASS
        again = self.connect_again(call, inode)
        if again is not None:
            return again
        with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
            if (borrowed.family, borrowed.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
                return PASS
            patience = self._patience_of(borrowed)
        return self._begin(call, inode, endpoint_of(address), None, socket.AF_UNIX, patience, listen_for_unix)

    def disconnected(self, inode: int) -> None:
        """AF_UNSPEC has dissolved what the socket was or wanted to be."""
        record = self.table.get(inode)
        if isinstance(record, StreamRecord):
            self.table.drop(record.attempt)
            self.token.run_sync_soon(record.attempt.abandon)

    def _patience_of(self, borrowed: socket.socket) -> _Patience:
        if not os.get_blocking(borrowed.fileno()):
            return _Patience(self.hold_s, is_interruptible=False)
        timeout_s = _send_timeout_s(borrowed)
        if borrowed.family != socket.AF_UNIX and timeout_s < math.inf:
            timeout_s = min(timeout_s, self.hold_s)  # then the kernel begins to count
        return _Patience(timeout_s, is_interruptible=True)

    def _patience_of_descriptor(self, call: Call) -> _Patience:
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            return self._patience_of(borrowed)

    async def _begin(
        self,
        call: Call,
        inode: int,
        remote: Endpoint,
        local: InetEndpoint | None,
        family: int,
        patience: _Patience,
        listen: Callable[[], Listener],
    ) -> Verdict:
        again = self.connect_again(call, inode)  # another thread may have been faster
        if again is not None:
            return await again if isinstance(again, Coroutine) else again
        try:
            listener = listen()
        except OSError as error:
            return Fail(error.errno or errno.ENOBUFS)
        attempt = Attempt(inode, remote, local, listener, family, self._answered, self.table.ended)
        self.table.put(inode, Connecting(attempt))
        self.relay.begin(attempt)
        return await self._hold(call, attempt, patience)

    async def _hold(self, call: Call, attempt: Attempt, patience: _Patience) -> Verdict:
        attempt.holders += 1
        try:
            was_interrupted = await _wait(call, attempt, patience)
        except trio.Cancelled:  # the task is gone
            if attempt.holders == 1:
                self._give_up(attempt)
            raise
        finally:
            attempt.holders -= 1
        if isinstance(attempt.outcome, Failed) and not attempt.in_kernel:
            return Fail(attempt.outcome.errno)
        if attempt.outcome is None and not attempt.in_kernel:
            if attempt.family == socket.AF_UNIX:  # knows no state between: connect(2), EAGAIN
                if not attempt.holders:
                    self._give_up(attempt)
                return Fail(errno.EINTR if was_interrupted else errno.EAGAIN)
            attempt.listener.silence()
        return self._let_go(attempt)

    def _give_up(self, attempt: Attempt) -> None:
        if not attempt.in_kernel:
            self.table.drop(attempt)
            attempt.abandon()

    def _let_go(self, attempt: Attempt) -> Verdict:
        """The process's own call goes on, to the listener. Once its socket connects the kernel ignores the address.

        From here on the socket may connect at any time, and the call may be interrupted without our being told.
        """
        attempt.in_kernel = True
        self._record(attempt)
        return UseAddress(attempt.listener.address, lambda result: self._returned(attempt, result))

    def _returned(self, attempt: Attempt, result: int) -> int:
        if result >= 0 or -result in _NOT_OVER:
            return result
        self.table.drop(attempt)
        self.token.run_sync_soon(attempt.abandon)
        match attempt.outcome:
            case Failed(number) if result == -errno.ECONNREFUSED:
                return -number
        return result

    def _answered(self, attempt: Attempt) -> None:
        if attempt.in_kernel:
            self._record(attempt)
        elif isinstance(attempt.outcome, Failed):
            self.table.drop(attempt)

    def _record(self, attempt: Attempt) -> None:
        """What is known once the process's socket connects in the kernel and the far side has answered."""
        match attempt.outcome:
            case Established(local, peer):
                shown = (address_of_endpoint(end, attempt.family) for end in (local, peer))
                self.table.advance(Connected(attempt, *shown))
            case Failed(number):
                self.table.advance(Refused(attempt, number))


async def _wait(call: Call, attempt: Attempt, patience: _Patience) -> bool:
    """Waits for the answer, within the patience; whether a signal ended the wait."""
    with trio.move_on_after(patience.limit_s):
        if not patience.is_interruptible:
            await attempt.answered.wait()
        while not attempt.answered.is_set():
            with trio.move_on_after(_SIGNAL_CHECK_S):
                await attempt.answered.wait()
            if not attempt.answered.is_set() and call.has_pending_signal():
                return True
    return False


def nowhere(family: int) -> Inet4 | Inet6:
    """An address at which nobody can listen, for calls in which the kernel ignores the address, or must refuse."""
    return Inet6(LOOPBACK6, 0) if family == socket.AF_INET6 else Inet4(LOOPBACK4, 0)


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
