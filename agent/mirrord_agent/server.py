"""One session: a client says hello, and is served until it goes.

One task reads frames and dispatches each without ever blocking; one writes; each request and each stream has its
own. All are cancelled as soon as the client is gone, whatever they are doing. Frames that name a stream that is over
are ignored, because they may have been under way when it ended; those that name a stream that never was are a fault of
the client.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mirrord_agent import datagrams, outgoing
from mirrord_agent.datagrams import DatagramFlow
from mirrord_agent.environment import read_environment
from mirrord_agent.files.service import FileService
from mirrord_agent.incoming.service import IncomingService
from mirrord_agent.link import ClientGone, Link
from mirrord_agent.outgoing import Connection
from mirrord_agent.streams import ByteStream, DatagramStream
from mirrord_agent.target import Target
from mirrord_agent.wire import ProtocolError, WindowPool, frames, handshake
from mirrord_agent.wire.fields import MAX_TEXT
from mirrord_agent.wire.file_frames import FileRequest
from mirrord_agent.wire.frames import Facts, Failed, Frame, Goodbye, GoodbyeKind

#: How long a client may take to say hello.
HELLO_TIMEOUT_S = 10.0
#: How long a goodbye may take to be written.
GOODBYE_TIMEOUT_S = 1.0
#: How long data may take to reach the pod's kernel after the client has said goodbye.
FLUSH_TIMEOUT_S = 5.0
#: Most requests and streams at a time; beyond, a request fails with EMFILE.
MAX_STREAMS = 32768
#: Silence is counted by this share of the communication timeout: three silent thirds end the session. So a process that
#: was itself stopped for long counts one at most, and not the time it could not listen.
SILENT_SHARES = 3
#: Bytes of one piece of a long answer.
_PART_BYTES = 256 << 10


async def serve(
    stream: trio.SocketStream,
    target: Target | Goodbye,
    secret_hash: str,
    communication_timeout_s: float = 0,
    claim: Callable[[], bool] = lambda: True,
    owner: str = "",
) -> Goodbye:
    """Serves one client on `stream` and closes it. Returns the goodbye with which the session ended.

    `target` may be the reason why there is none: it is told to a client that proves the secret. A
    `communication_timeout_s` of 0 waits for the end of the stream only. `claim` is asked when the secret is proved;
    False means that another client has the session. `owner` says for people whose session it is.
    """
    ending = Goodbye(GoodbyeKind.SHUTDOWN, "the agent was told to stop")
    async with stream:
        link = Link(stream)
        try:
            ending = await _serve(link, target, secret_hash, communication_timeout_s, claim, owner)
        except ClientGone as gone:
            ending = Goodbye(GoodbyeKind.SHUTDOWN, str(gone))
        except ProtocolError as error:
            ending = Goodbye(GoodbyeKind.PROTOCOL, str(error))
        except Exception as error:
            ending = Goodbye(GoodbyeKind.FAILURE, f"the agent failed: {error!r}")
            raise
        finally:
            with trio.move_on_after(GOODBYE_TIMEOUT_S, shield=True):
                await link.say_goodbye(ending)
            link.end()
    return ending


async def _serve(
    link: Link,
    target: Target | Goodbye,
    secret_hash: str,
    communication_timeout_s: float,
    claim: Callable[[], bool],
    owner: str,
) -> Goodbye:
    received: list[Frame] = []
    with trio.move_on_after(HELLO_TIMEOUT_S):
        while not received:
            received = await link.receive()
    if not received:
        return Goodbye(GoodbyeKind.TIMEOUT, f"no hello within {HELLO_TIMEOUT_S:.0f} s")
    accepted = handshake.answer_hello(received.pop(0), secret_hash)
    if isinstance(accepted, handshake.Refused):
        return accepted.goodbye
    if not claim():
        return Goodbye(GoodbyeKind.SHUTDOWN, "the agent serves another client already")
    if isinstance(target, Goodbye):
        return target
    link.put(accepted.welcome(_facts(target, communication_timeout_s)))
    return await _Session(link, target, communication_timeout_s, owner).run(received)


def _facts(target: Target, communication_timeout_s: float) -> Facts:
    domain_name = Path("/proc/sys/kernel/domainname")
    return Facts(
        hostname=os.uname().nodename,
        domain_name=domain_name.read_text().strip() if domain_name.exists() else "(none)",
        pid=target.pid,
        communication_timeout_s=communication_timeout_s,
    )


class _Session:
    """A session whose client has proved the secret."""

    def __init__(self, link: Link, target: Target, communication_timeout_s: float, owner: str) -> None:
        self._link = link
        self._target = target
        self._owner = owner
        self._communication_timeout_s = communication_timeout_s
        self._pool = WindowPool()
        self._last_stream = 0
        self._requests: dict[int, trio.CancelScope] = {}
        """What is being answered or opened."""
        self._connections: dict[int, ByteStream] = {}
        self._flows: dict[int, DatagramStream] = {}
        self._heard = True
        self._client_left = False
        self._ending: Goodbye | None = None
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            frames.Data: self._on_data,
            frames.Credit: self._on_credit,
            frames.Datagram: self._on_datagram,
            frames.Eof: self._on_eof,
            frames.Reset: self._on_reset,
            frames.Close: self._on_close,
            frames.Connect: partial(self._begin, self._connect),
            frames.OpenDatagrams: partial(self._begin, self._open_datagrams),
            frames.GetEnvironment: partial(self._begin, self._get_environment),
            frames.Subscribe: partial(self._begin, self._subscribe),
            frames.Ping: self._on_ping,
        }

    async def run(self, received: list[Frame]) -> Goodbye:
        """Serves until the session ends; returns how. `received` came together with the hello."""
        try:
            files = FileService(self._link, self._target, self._start_task)
        except OSError as error:
            return Goodbye(GoodbyeKind.TARGET_GONE, f"process {self._target.pid} has ended ({error.strerror})")
        self._files = files
        self._handlers.update(dict.fromkeys(files.requests, self._on_file_request))
        incoming = IncomingService(
            self._link,
            self._pool,
            self._owner,
            self._connections,
            self._flows,
            self._start_task,
            self._start_keeper,
        )
        self._incoming = incoming
        try:
            async with trio.open_nursery() as self._streams:
                try:
                    async with trio.open_nursery() as self._keepers:
                        self._keepers.start_soon(self._link.write)
                        self._keepers.start_soon(self._watch_target)
                        self._keepers.start_soon(self._watch_silence)
                        self._keepers.start_soon(files.run)
                        self._keepers.start_soon(self._read_until_end, received)
                finally:
                    files.close()
                    incoming.stop()
                if self._client_left:
                    self._let_streams_finish()
                else:
                    self._streams.cancel_scope.cancel()
            await incoming.drain()
        finally:
            incoming.close()
        assert self._ending is not None
        return self._ending

    def _start_task(self, *task: Any) -> None:
        self._streams.start_soon(*task)

    def _start_keeper(self, *task: Any) -> None:
        """Starts what ends with the session, if that goes on."""
        if self._ending is None:
            self._keepers.start_soon(*task)

    def _end(self, kind: GoodbyeKind, message: str) -> None:
        """Ends the session; the first reason counts."""
        if self._ending is None:
            self._ending = Goodbye(kind, message)
            self._keepers.cancel_scope.cancel()

    async def _read_until_end(self, received: list[Frame]) -> None:
        try:
            await self._read(received)
        except ClientGone as gone:
            self._end(GoodbyeKind.SHUTDOWN, str(gone))
        except ProtocolError as error:
            self._end(GoodbyeKind.PROTOCOL, str(error))

    async def _read(self, received: list[Frame]) -> None:
        while True:
            for frame in received:
                if isinstance(frame, Goodbye):
                    self._client_left = True
                    self._end(GoodbyeKind.SHUTDOWN, "the client said goodbye")
                    return
                handler = self._handlers.get(type(frame))
                if handler is None:
                    raise ProtocolError(f"a {type(frame).__name__} from a client")
                handler(frame)
            received = await self._link.receive()
            self._heard = True

    async def _watch_target(self) -> None:
        await trio.lowlevel.wait_readable(self._target.pidfd)
        self._end(GoodbyeKind.TARGET_GONE, f"process {self._target.pid} has ended")

    async def _watch_silence(self) -> None:
        silent = 0
        while self._communication_timeout_s and silent < SILENT_SHARES:
            self._heard = False
            await trio.sleep(self._communication_timeout_s / SILENT_SHARES)
            silent = 0 if self._heard else silent + 1
        if self._communication_timeout_s:
            self._end(
                GoodbyeKind.TIMEOUT, f"nothing was heard from the client for {self._communication_timeout_s:.0f} s"
            )

    def _let_streams_finish(self) -> None:
        """The client has left in good order: what it sent goes out to the pod, as after exit(2)."""
        for scope in self._requests.values():
            scope.cancel()
        for connection in list(self._connections.values()):
            connection.on_close()
        for flow in self._flows.values():
            flow.on_close()
        self._incoming.let_go()
        self._streams.cancel_scope.deadline = trio.current_time() + FLUSH_TIMEOUT_S

    # Requests.

    def _begin(self, serve_request: Callable[[Any, trio.CancelScope], Awaitable[None]], request: Any) -> None:
        if self._accept(request):
            self._requests[request.stream] = scope = trio.CancelScope()
            self._streams.start_soon(serve_request, request, scope)

    def _on_file_request(self, request: FileRequest) -> None:
        if self._accept(request):
            self._files.serve(request)

    def _accept(self, request: Any) -> bool:
        """Whether there is room for one more; if not, the client is told. Raises ProtocolError for a wrong number."""
        stream: int = request.stream
        if stream <= self._last_stream or stream % 2 == 0:
            raise ProtocolError(f"a {type(request).__name__} on stream {stream} after stream {self._last_stream}")
        self._last_stream = stream
        services = self._files.count + self._incoming.count
        if len(self._requests) + len(self._connections) + len(self._flows) + services < MAX_STREAMS:
            return True
        self._fail(stream, OSError(errno.EMFILE, os.strerror(errno.EMFILE)), f"stream {stream}")
        return False

    def _fail(self, stream: int, error: OSError, what: str) -> None:
        number = error.errno or errno.EIO
        reason = error.strerror or os.strerror(number)
        self._link.put_at_once(Failed(stream, number, f"{what}: {reason}"[:MAX_TEXT]))

    async def _connect(self, request: frames.Connect, scope: trio.CancelScope) -> None:
        connected = None
        try:
            with scope:
                connected = await outgoing.open_socket(request, self._target)
        except OSError as error:
            self._fail(request.stream, error, f"connecting to {_name(request.remote)}")
        finally:
            del self._requests[request.stream]
        if connected is None:
            return
        connection = Connection(self._link, self._pool, request.stream, connected)
        if scope.cancel_called:
            # It was no longer wanted at the very moment at which it stood.
            connection.abort()
            return
        local, peer = outgoing.endpoints(connected, request.remote)
        self._connections[request.stream] = connection
        try:
            self._link.put_at_once(frames.Connected(request.stream, local, peer))
            await connection.run()
        finally:
            del self._connections[request.stream]

    async def _open_datagrams(self, request: frames.OpenDatagrams, scope: trio.CancelScope) -> None:
        del self._requests[request.stream]
        if scope.cancel_called:
            return
        try:
            opened = datagrams.open_socket(request)
        except OSError as error:
            self._fail(request.stream, error, f"opening a UDP socket to {_name(request.peer)}")
            return
        flow = DatagramFlow(self._link, request.stream, opened, connected=request.peer is not None)
        self._flows[request.stream] = flow
        try:
            self._link.put_at_once(datagrams.opened_frame(request, opened))
            await flow.run()
        finally:
            del self._flows[request.stream]

    async def _get_environment(self, request: frames.GetEnvironment, scope: trio.CancelScope) -> None:
        try:
            with scope:
                variables = await trio.to_thread.run_sync(read_environment, self._target, abandon_on_cancel=True)
                await self._put_parts(request.stream, variables)
                self._link.put_ordered(frames.Done(request.stream))
        except OSError as error:
            self._fail(request.stream, error, f"reading the environment of process {self._target.pid}")
        finally:
            del self._requests[request.stream]

    async def _subscribe(self, request: frames.Subscribe, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._incoming.subscribe(request)
            if scope.cancel_called:
                self._incoming.on_close(request.stream)
        except OSError as error:
            what = "mirroring" if request.mode == "mirror" else "stealing"
            self._fail(request.stream, error, f"{what} {request.protocol.upper()} port {request.port}")
        finally:
            del self._requests[request.stream]

    async def _put_parts(self, stream: int, data: bytes) -> None:
        for start in range(0, len(data), _PART_BYTES):
            await self._link.room()
            self._link.put_ordered(frames.Part(stream, data[start : start + _PART_BYTES]))

    # Streams.

    def _check_known(self, stream: int) -> None:
        """Raises ProtocolError for a stream that never was; frames of one that is over are to be ignored."""
        if stream > (self._last_stream if stream % 2 else self._incoming.last_stream):
            raise ProtocolError(f"a frame of stream {stream}, which was never opened")

    def _on_data(self, frame: frames.Data) -> None:
        connection = self._connections.get(frame.stream)
        if connection is not None:
            connection.on_data(frame.payload)
        else:
            self._check_known(frame.stream)

    def _on_credit(self, frame: frames.Credit) -> None:
        stream = self._connections.get(frame.stream) or self._flows.get(frame.stream)
        if stream is not None:
            stream.on_credit(frame.amount_bytes)
        else:
            self._check_known(frame.stream)

    def _on_datagram(self, frame: frames.Datagram) -> None:
        flow = self._flows.get(frame.stream)
        if flow is not None:
            flow.on_datagram(frame)
        else:
            self._check_known(frame.stream)

    def _on_eof(self, frame: frames.Eof) -> None:
        connection = self._connections.get(frame.stream)
        if connection is not None:
            connection.on_eof()
        else:
            self._check_known(frame.stream)

    def _on_reset(self, frame: frames.Reset) -> None:
        self._check_known(frame.stream)
        if (request := self._requests.get(frame.stream)) is not None:
            request.cancel()
            self._link.discard(frame.stream)
        elif (connection := self._connections.get(frame.stream)) is not None:
            connection.on_reset(frame.errno)
        elif self._incoming.on_close(frame.stream):
            pass
        elif (flow := self._flows.get(frame.stream)) is not None:
            flow.on_close()
        else:
            self._files.on_reset(frame.stream)

    def _on_close(self, frame: frames.Close) -> None:
        self._check_known(frame.stream)
        if self._incoming.on_close(frame.stream):
            return
        stream = self._connections.get(frame.stream) or self._flows.get(frame.stream)
        if stream is not None:
            stream.on_close()
        else:
            self._files.on_close(frame.stream)

    def _on_ping(self, frame: frames.Ping) -> None:
        self._link.put(frames.Pong(frame.number))


def _name(endpoint: frames.Endpoint | None) -> str:
    match endpoint:
        case None:
            return "anywhere"
        case frames.InetEndpoint(host=host, port=port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case frames.UnixEndpoint(path=path):
            return os.fsdecode(path.replace(b"\0", b"@", 1))
