"""The client half of the agent session: requests, and the sockets in the pod that they open.

One task reads the agent's frames and dispatches each without ever blocking, one writes, one asks for a sign of life
where the agent wants that. They live in `open_session`. When the agent goes, the block does not end: `lost` is set,
once, with a reason, and whatever is asked for from then on raises `SessionLost`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args

import trio

from mirrord_agent.wire import Decoder, ProtocolError, WindowPool, encode, frames, handshake
from mirrord_agent.wire.file_frames import FileAnswer
from mirrord_agent.wire.frames import (
    AddressFamily,
    Endpoint,
    Facts,
    Frame,
    Goodbye,
    GoodbyeKind,
    InetEndpoint,
    UnixEndpoint,
)
from mirrord_trace.nurseries import serving_nursery
from mirrord_trace.remote import RemoteDatagrams, RemoteStream
from mirrord_trace.remote_files import RemoteFile, RemoteFiles
from mirrord_trace.remote_incoming import RemoteIncoming
from mirrord_trace.remote_listener import RemoteListener
from mirrord_trace.session_link import SessionLink, SessionLost
from mirrord_trace.session_requests import Requests

__all__ = [
    "AgentRefused",
    "Facts",
    "GoodbyeKind",
    "InetEndpoint",
    "RemoteDatagrams",
    "RemoteFile",
    "RemoteListener",
    "RemoteStream",
    "Session",
    "SessionLost",
    "UnixEndpoint",
    "open_session",
]

#: Bytes asked for by one read of the agent's socket.
_READ_BYTES = 256 << 10
#: No environment is longer: the kernel holds arguments and environment together to 6 MiB (execve(2), `_STK_LIM`).
_ENVIRONMENT_LIMIT_BYTES = 8 << 20
#: How long what was sent may take to leave when the session ends in good order.
_FLUSH_TIMEOUT_S = 5.0
#: How long the agent may take to close its end after that: longer than it lets streams finish.
_FAREWELL_TIMEOUT_S = 6.0
#: Pings per communication timeout; as many in a row without a sign of life lose the session.
_PINGS_PER_TIMEOUT = 3
_MAX_PING = (1 << 32) - 1


class AgentRefused(Exception):
    """The agent does not serve us; `kind` says why, `message` in words."""

    def __init__(self, kind: GoodbyeKind, message: str) -> None:
        super().__init__(f"{kind.value}: {message}")
        self.kind = kind
        self.message = message


class Session:
    """A session with an agent. Made by `open_session`."""

    def __init__(self, stream: trio.SocketStream, decoder: Decoder, welcomed: handshake.Welcomed) -> None:
        self.facts = welcomed.facts
        """What the agent knows of the target."""
        self.lost = trio.Event()
        """Set once, when the agent is gone."""
        self._decoder = decoder
        self._link = SessionLink(stream)
        self._pool = WindowPool()
        self._requests = Requests(self._link)
        self.files = RemoteFiles(self._requests, self._distrust)
        """The files below the target's root."""
        self._streams: dict[int, RemoteStream] = {}
        self._flows: dict[int, RemoteDatagrams] = {}
        self.incoming = RemoteIncoming(
            self._link,
            self._requests,
            is_served="incoming" in welcomed.features,
            add_stream=self._add_stream,
            add_flow=self._flows.__setitem__,
            forget=self._forget,
        )
        """What comes to the target."""
        self._heard = True
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            frames.Data: self._on_data,
            frames.Credit: self._on_credit,
            frames.Datagram: self._on_datagram,
            frames.DatagramError: self._on_datagram,
            frames.Eof: self._on_eof,
            frames.Reset: self._on_reset,
            frames.Part: self._requests.on_part,
            frames.Connected: self._on_connected,
            frames.DatagramsOpened: self._on_datagrams_opened,
            frames.Subscribed: self.incoming.on_subscribed,
            frames.Arrived: self.incoming.on_arrived,
            frames.Notice: self.incoming.on_notice,
            frames.Pong: self._on_pong,
            **dict.fromkeys((frames.Done, frames.Failed, *get_args(FileAnswer)), self._requests.on_answer),
        }

    @property
    def loss_reason(self) -> str | None:
        """Why the agent is gone, in words; None while it is not."""
        return self._link.loss_reason

    # What a user of the session asks for.

    async def environment(self) -> dict[bytes, bytes]:
        """The target's environment variables. Raises OSError with the pod's errno, SessionLost."""
        request = self._requests.start(frames.GetEnvironment, _ENVIRONMENT_LIMIT_BYTES)
        await self._requests.finish(request, frames.Done)
        variables = (variable.partition(b"=") for variable in b"".join(request.parts).split(b"\0"))
        return {name: value for name, separator, value in variables if separator}

    async def read_file(self, path: bytes, limit_bytes: int = 1 << 20) -> RemoteFile:
        """Reads a regular file below the target's root.

        Raises OSError with the pod's errno (ENOENT, EACCES, …; EISDIR, EINVAL for what is not a regular file, EFBIG for
        one that is longer than `limit_bytes`), SessionLost.
        """
        return await self.files.read_whole(path, limit_bytes)

    async def connect(self, remote: InetEndpoint | UnixEndpoint, local: InetEndpoint | None = None) -> RemoteStream:
        """Connects a stream socket from the pod, from `local` if that can be had.

        Raises OSError with the pod's errno, SessionLost. When cancelled, the agent is told to give up, and breaks the
        connection if it stands already.
        """
        request = self._requests.start(partial(frames.Connect, remote=remote, local=local))
        return await self._requests.finish(request, RemoteStream)

    async def open_datagrams(
        self, family: AddressFamily, peer: InetEndpoint | None, local: InetEndpoint | None = None
    ) -> RemoteDatagrams:
        """Opens a UDP socket in the pod, connected if `peer` is given, bound to `local` if that can be had.

        Raises OSError with the pod's errno, SessionLost.
        """
        request = self._requests.start(partial(frames.OpenDatagrams, family=family, peer=peer, local=local))
        return await self._requests.finish(request, RemoteDatagrams)

    # What the agent says.

    def keep(self, received: list[Frame], nursery: trio.Nursery) -> None:
        """Starts the session's tasks. `received` came together with the welcome."""
        nursery.start_soon(self._link.write)
        nursery.start_soon(self._read_until_end, received)
        if self.facts.communication_timeout_s:
            nursery.start_soon(self._ping)

    async def _read_until_end(self, received: list[Frame]) -> None:
        try:
            await self._read(received)
        except OSError as error:
            self._lose(f"the connection to the agent broke: {error.strerror}")
        except ProtocolError as error:
            self._lose(f"the agent sent what it may not: {error}")

    async def _read(self, received: list[Frame]) -> None:
        while True:
            for frame in received:
                if isinstance(frame, Goodbye):
                    self._lose(f"the agent left: {frame.message}")
                    return
                handler = self._handlers.get(type(frame))
                if handler is None:
                    raise ProtocolError(f"a {type(frame).__name__} from an agent")
                handler(frame)
            data = await self._link.read()
            if not data:
                self._lose("the agent ended without a word")
                return
            self._heard = True
            received = self._decoder.feed(data)

    async def _ping(self) -> None:
        number = silent = 0
        while silent < _PINGS_PER_TIMEOUT:
            self._heard = False
            number = (number + 1) & _MAX_PING
            self._link.put(frames.Ping(number))
            await trio.sleep(self.facts.communication_timeout_s / _PINGS_PER_TIMEOUT)
            silent = 0 if self._heard else silent + 1
        self._lose(f"nothing was heard from the agent for {self.facts.communication_timeout_s:.0f} s")

    def _lose(self, reason: str) -> None:
        """The agent is gone; the first reason counts."""
        if self.lost.is_set():
            return
        self._link.lose(reason)
        self.lost.set()
        self._requests.lose()
        for stream in self._streams.values():
            stream.wake()
        for flow in self._flows.values():
            flow.wake()
        self.incoming.wake()

    def _distrust(self, what: str) -> SessionLost:
        """The agent sent what it may not; returns what is to be raised for it."""
        self._lose(f"the agent sent what it may not: {what}")
        return SessionLost(self._link.loss_reason or "the agent is gone")

    async def farewell(self) -> None:
        """Ends the session in good order: what was sent leaves, the agent is told, and closes its end."""
        with trio.move_on_after(_FLUSH_TIMEOUT_S):
            await self._link.flush()
        with trio.move_on_after(_FAREWELL_TIMEOUT_S):
            self._link.put(Goodbye(GoodbyeKind.SHUTDOWN, "the client is done"))
            await self.lost.wait()

    def end(self) -> None:
        """Nothing is sent any more, by any thread: the stream is about to be closed."""
        if self.loss_reason is None:
            self._link.lose("the session is over")

    def _on_data(self, frame: frames.Data) -> None:
        stream = self._streams.get(frame.stream)
        if stream is not None:
            stream.on_data(frame.payload)
        else:
            self._check_known(frame.stream)

    def _on_credit(self, frame: frames.Credit) -> None:
        stream = self._streams.get(frame.stream) or self._flows.get(frame.stream)
        if stream is not None:
            stream.on_credit(frame.amount_bytes)
        else:
            self._check_known(frame.stream)

    def _on_datagram(self, frame: frames.Datagram | frames.DatagramError) -> None:
        flow = self._flows.get(frame.stream)
        if flow is not None:
            flow.on_datagram(frame)
        else:
            self._check_known(frame.stream)

    def _on_eof(self, frame: frames.Eof) -> None:
        stream = self._streams.get(frame.stream)
        if stream is not None:
            stream.on_eof()
        else:
            self._check_known(frame.stream)

    def _on_reset(self, frame: frames.Reset) -> None:
        stream = self._streams.get(frame.stream)
        if stream is not None:
            stream.on_reset(frame.errno)
        else:
            self._check_known(frame.stream)

    # What an answer opens exists from here on, because its first data may be in the same read as the answer.

    def _on_connected(self, frame: frames.Connected) -> None:
        request = self._requests.pending(frame.stream)
        if request is not None:
            request.finish(self._add_stream(frame.stream, frame.local, frame.peer))

    def _on_datagrams_opened(self, frame: frames.DatagramsOpened) -> None:
        request = self._requests.pending(frame.stream)
        if request is not None:
            flow = RemoteDatagrams(self._link, frame.stream, frame.local, frame.peer, self._forget)
            self._flows[frame.stream] = flow
            request.finish(flow)

    def _add_stream(self, number: int, local: Endpoint, peer: Endpoint) -> RemoteStream:
        stream = self._streams[number] = RemoteStream(self._link, self._pool, number, local, peer, self._forget)
        return stream

    def _check_known(self, stream: int) -> None:
        """Raises ProtocolError for a stream that nobody has opened; frames of one that is over are to be ignored."""
        if stream % 2:
            self._requests.check_known(stream)
        else:
            self.incoming.check_known(stream)

    def _forget(self, stream: int) -> None:
        """The stream, flow or listener is over: later frames of it are ignored."""
        self._streams.pop(stream, None)
        self._flows.pop(stream, None)
        self.incoming.forget(stream)

    def _on_pong(self, _: frames.Pong) -> None:
        """A sign of life, as every frame is."""


@asynccontextmanager
async def open_session(stream: trio.SocketStream, secret: bytes) -> AsyncIterator[Session]:
    """Begins a session with the agent at the other end of `stream`, and ends it, and the stream, with the block.

    Raises AgentRefused when the agent says why it does not serve us, SessionLost when it goes before it has answered.
    There is no timeout: the agent may be waiting for someone to type a password.
    """
    async with stream:
        decoder = Decoder()
        welcomed, received = await _shake_hands(stream, decoder, secret)
        session = Session(stream, decoder, welcomed)
        try:
            async with serving_nursery() as nursery:
                session.keep(received, nursery)
                yield session
                await session.farewell()
        finally:
            session.end()


async def _shake_hands(
    stream: trio.SocketStream, decoder: Decoder, secret: bytes
) -> tuple[handshake.Welcomed, list[Frame]]:
    received: list[Frame] = []
    try:
        await stream.send_all(b"".join(encode(handshake.hello(secret))))
        while not received:
            data = await stream.receive_some(_READ_BYTES)
            if not data:
                raise SessionLost("the agent ended before it answered")
            received = decoder.feed(data)
        answer = handshake.read_answer(received.pop(0))
    except trio.BrokenResourceError as error:
        raise SessionLost("the agent ended before it answered") from error
    except ProtocolError as error:
        raise SessionLost(f"what answered is not an agent: {error}") from error
    if isinstance(answer, handshake.Refused):
        raise AgentRefused(answer.goodbye.kind, answer.goodbye.message)
    return answer, received
