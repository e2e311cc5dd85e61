"""What tests of the agent share: Trio tests with a limit, a session with an agent in this process, small services."""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import attrs
import trio
import trio.testing

from mirrord_agent.server import serve
from mirrord_agent.target import Target
from mirrord_agent.wire import Decoder, encode, handshake
from mirrord_agent.wire.frames import Data, Frame, Goodbye, StreamFrame
from mirrord_trace.session import Session, open_session

F = TypeVar("F")

SECRET = bytes(range(32))
_MORE_THAN_WRITES_LET_GO = 1000
"""Senders: each write lets a few go, and it takes some dozens of writes to empty an outbox."""
SECRET_HASH = handshake.hash_secret(SECRET)


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test; one that hangs fails."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        async def limited() -> None:
            with trio.fail_after(20):
                await test(**fixtures)

        trio.run(limited)

    return run


@asynccontextmanager
async def stream_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a Unix socket."""
    here, there = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    async with here, there:
        yield here, there


class Sink(Protocol):
    """What `Link` and `SessionLink` have in common: frames wait there to be written, and senders for room."""

    @property
    def has_room(self) -> bool: ...
    def put_ordered(self, frame: StreamFrame) -> None: ...
    async def room(self) -> None: ...
    async def write(self) -> None: ...


async def nobody_is_left_waiting(link: Sink, far_end: trio.SocketStream) -> None:
    """Many wait for room and send nothing when they have it; all of them must get it. Fails when one does not."""
    while link.has_room:
        link.put_ordered(Data(1, bytes(64 << 10)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.write)
        async with trio.open_nursery() as waiting:
            for _ in range(_MORE_THAN_WRITES_LET_GO):
                waiting.start_soon(link.room)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_read_all, far_end)
        nursery.cancel_scope.cancel()


async def _read_all(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


@attrs.define
class Served:
    """An agent that serves in this process."""

    ending: Goodbye | None = None
    """How its session ended, when it has."""
    ended: trio.Event = attrs.Factory(trio.Event)
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Cancel it to stop the agent as SIGTERM does."""

    async def run(self, stream: trio.SocketStream, target: Target | Goodbye, timeout_s: float) -> None:
        with self.scope:
            self.ending = await serve(stream, target, SECRET_HASH, timeout_s)
        self.ended.set()


@asynccontextmanager
async def agent_for_frames(
    target: Target | Goodbye | None = None, timeout_s: float = 0
) -> AsyncIterator[tuple[FrameClient, Served]]:
    """An agent in this process, whose target is this process, and a client that says what a test wants."""
    served = Served()
    own = Target.open(os.getpid())
    try:
        async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(served.run, theirs, target or own, timeout_s)
            yield FrameClient(ours), served
            nursery.cancel_scope.cancel()
    finally:
        own.close()


@asynccontextmanager
async def session_with_agent(timeout_s: float = 0) -> AsyncIterator[tuple[Session, Served]]:
    """A session with an agent in this process, whose target is this process."""
    served = Served()
    target = Target.open(os.getpid())
    try:
        async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(served.run, theirs, target, timeout_s)
            async with open_session(ours, SECRET) as session:
                yield session, served
            await served.ended.wait()
    finally:
        target.close()


class FrameClient:
    """One end of a session, frame by frame."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    async def send(self, *frames: Frame) -> None:
        """Sends all at once, so that the agent cannot have closed in between."""
        await self.stream.send_all(b"".join(piece for frame in frames for piece in encode(frame)))

    async def receive(self) -> Frame | None:
        """The next frame; None at the end of the stream."""
        while not self._frames:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:  # closed by the agent with data of ours unread
                return None
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    async def receive_kind(self, kind: type[F]) -> F:
        """The next frame of this class; others are passed over."""
        while True:
            frame = await self.receive()
            assert frame is not None, f"the stream ended without a {kind.__name__}"
            if isinstance(frame, kind):
                return frame


@attrs.frozen
class Listener:
    """A TCP listener of a test, on loopback."""

    socket: trio.socket.SocketType
    host: str
    port: int

    async def accept(self) -> trio.SocketStream:
        connection, _ = await self.socket.accept()
        return trio.SocketStream(connection)


@asynccontextmanager
async def listener(host: str = "127.0.0.1", backlog: int = 128) -> AsyncIterator[Listener]:
    """A listening TCP socket."""
    with trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        await listening.bind((host, 0))
        listening.listen(backlog)
        yield Listener(listening, host, listening.getsockname()[1])


def reset(stream: trio.SocketStream) -> None:
    """Breaks a connection with a RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
