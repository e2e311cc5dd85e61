"""Outgoing stream connections: from connect() in the process to a connection in the pod.

An `Attempt` is one connect() on its way. It outlives the call: a non-blocking connect returns before the answer is
there, a blocking one may be interrupted and made again. Until the call is let go into the kernel, nothing has happened
to the process's socket; from then on it connects, or waits in SYN_SENT, at the attempt's listener.

Nobody tells when a process closes a socket that waits there. The kernel is asked from time to time, for all of them at
once, as long as there are any.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import Endpoint, InetEndpoint
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.relay.exchange import Exchange
from mirrord_trace.relay.listener import Listener
from mirrord_trace.session import RemoteStream, Session
from mirrord_trace.sockets_here import SocketsHere

_SWEEP_INTERVAL_S: Final = 1.0
_MISSES: Final = 2
"""A call that was let go may not have reached the kernel yet: a socket is gone when it is missed so often."""


@attrs.frozen
class Established:
    """The far side answered. The addresses are the agent's socket's."""

    local: Endpoint
    peer: Endpoint


@attrs.frozen
class Failed:
    """The connection was not made."""

    errno: int


@attrs.define(eq=False)
class Attempt:
    """One connect(). For Trio's thread; `outcome` and `in_kernel` may be read in any."""

    inode: int
    remote: Endpoint
    local: InetEndpoint | None
    listener: Listener
    family: int
    """The family of the process's socket, AF_*."""
    on_answer: Callable[[Attempt], None]
    """Called when `outcome` is known, before the process's socket can notice."""
    on_end: Callable[[Attempt], None]
    """Called when nothing serves the process's socket any more."""
    in_kernel: bool = False
    """Whether the process's own connect() was let go, to `listener`. Set by who lets it go; it stays so."""
    holders: int = 0
    """How many calls wait for the answer."""
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcome: Established | Failed | None = None
    missed: int = 0
    """How many times in a row the process's socket was not found."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def abandon(self) -> None:
        """Nobody wants the connection any more."""
        self._scope.cancel()

    async def run(self, relay: StreamRelay) -> None:
        """Connects, waits for the process's socket, and moves bytes until both sides are done."""
        try:
            with self._scope, closing(self.listener):
                await self._connect(relay)
        finally:
            if self.outcome is None:  # abandoned; whoever still waits learns of it
                self._answer(Failed(errno.ECONNABORTED))
            self.on_end(self)

    async def _connect(self, relay: StreamRelay) -> None:
        try:
            stream = await relay.session.connect(self.remote, self.local)
        except OSError as error:
            self._answer(Failed(error.errno or errno.EIO))
            return
        try:
            with relay.sending() as sent:
                self._answer(Established(stream.local, stream.peer))
                self.listener.admit()
                connection = await self._accept(relay)
                self.listener.close()
                if connection is not None:
                    relay.waiting.discard(self)
                    await relay.serve(connection, stream, sent)
        finally:
            stream.reset()  # no effect after an orderly end

    def _answer(self, outcome: Established | Failed) -> None:
        self.outcome = outcome
        self.on_answer(self)
        self.answered.set()

    async def _accept(self, relay: StreamRelay) -> trio.socket.SocketType | None:
        """The process's connection; None when we cannot take it, and the process sees it reset."""
        server = trio.socket.from_stdlib_socket(self.listener.socket)
        while True:
            try:
                connection, _ = await server.accept()
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                return None
            if self._is_the_process(relay.here, connection):
                return connection
            connection.close()

    def _is_the_process(self, here: SocketsHere, connection: trio.socket.SocketType) -> bool:
        """Whether it is not somebody else on this machine who tries all ports.

        A process may write and close at once; the kernel then knows no owner any more. That is the process itself only
        if its connect() was let go and its socket is not to be seen any more.
        """
        if connection.family == socket.AF_UNIX:
            return True  # the listener's name cannot be guessed
        owner = owner_of_peer(here, connection)
        if owner:
            return owner == self.inode
        return self.in_kernel and self.inode not in here.connecting()


def owner_of_peer(here: SocketsHere, connection: trio.socket.SocketType) -> int | None:
    """The inode of the socket at the other end of a TCP connection on loopback; None or 0 when nobody has it open."""
    try:
        client = connection.getpeername()
    except OSError:  # reset already
        return None
    return here.inode("tcp", address_of_name(client), address_of_name(connection.getsockname()))


@attrs.define(eq=False)
class _Sending:
    """Something that the process may have written and that is not on its way yet, until `end`."""

    _relay: StreamRelay
    _ended: bool = False

    def __enter__(self) -> Callable[[], None]:
        self._relay.unsent += 1
        return self.end

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._relay.unsent -= 1
            if not self._relay.unsent:
                self._relay.all_sent.set()


@attrs.define(eq=False)
class StreamRelay:
    """All stream connections of one session."""

    session: Session
    nursery: trio.Nursery
    here: SocketsHere = attrs.field(factory=SocketsHere)
    waiting: set[Attempt] = attrs.field(init=False, factory=set)
    """Attempts whose process has not come yet."""
    unsent: int = attrs.field(init=False, default=0)
    all_sent: trio.Event = attrs.field(init=False, factory=trio.Event)
    _is_sweeping: bool = attrs.field(init=False, default=False)

    def begin(self, attempt: Attempt) -> None:
        """Starts to connect in the pod."""
        self.waiting.add(attempt)
        self.nursery.start_soon(self._run, attempt)
        if not self._is_sweeping:
            self._is_sweeping = True
            self.nursery.start_soon(self._sweep)

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run(self)
        finally:
            self.waiting.discard(attempt)

    async def _sweep(self) -> None:
        """Gives up attempts whose socket is gone, while there are attempts."""
        try:
            while self.waiting:
                await trio.sleep(_SWEEP_INTERVAL_S)
                candidates = [attempt for attempt in self.waiting if attempt.in_kernel]
                present = self.here.connecting() if candidates else set()
                for attempt in candidates:
                    attempt.missed = 0 if attempt.inode in present else attempt.missed + 1
                    if attempt.missed >= _MISSES:
                        attempt.abandon()
        finally:
            self._is_sweeping = False

    def sending(self) -> _Sending:
        """A block during which `sent` waits, unless what the block gets is called."""
        return _Sending(self)

    async def serve(
        self, connection: trio.socket.SocketType, stream: RemoteStream, sent: Callable[[], None] = lambda: None
    ) -> None:
        """Moves bytes both ways until both sides have ended or one was reset. Closes the process's connection."""
        with connection:
            await self.exchange(connection, stream, sent)

    async def exchange(
        self, connection: trio.socket.SocketType, stream: RemoteStream, sent: Callable[[], None]
    ) -> None:
        """The same; the process's connection is to be closed next."""
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_closed = partial(is_closed_by_process, self.here, connection)
        await Exchange(connection, stream, self.session.lost, is_closed, sent).run()

    async def sent(self) -> None:
        """Returns when what the process wrote before it ended is on its way; a matter of moments once it is dead."""
        while self.unsent:
            self.all_sent = trio.Event()
            await self.all_sent.wait()


def is_closed_by_process(here: SocketsHere, connection: trio.socket.SocketType) -> bool:
    """Whether a process has closed the other end; of Unix sockets it is not known."""
    return connection.family != socket.AF_UNIX and not owner_of_peer(here, connection)
