"""A WebSocket to the API server.

The protocol is `websockets`' own, without its I/O: handshake, masking, closing. Its connection on Trio needs twice the
processor's time for what comes (docs/benchmarks.md). Messages go out whole, because Go's server takes each frame for a
message (x/net/websocket). No pings are sent: a server does not read them while the pod does not read, and nothing else
may follow from that. The session's own signs of life keep the connection from looking idle; the kernel's find out when
the network is gone.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidProxy, InvalidStatus, ProxyError
from websockets.frames import DATA_OPCODES, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.trio.client import connect
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from mirrord_trace.cluster import unreachable
from mirrord_trace.cluster.api import WebSocketRequest
from mirrord_trace.cluster.tls import TlsStream
from mirrord_trace.errors import Failure

#: How long reaching the server and its answer may take: the API server gives a kubelet 30 s.
_ANSWER_S = 35.0
#: Silence after which the kernel looks whether the connection still stands, as client-go has it.
_KEEPALIVE_S = 30
#: How long saying goodbye may hold up the end.
_GOODBYE_S = 0.25
_PLAIN_READ_BYTES = 128 << 10
_NORMAL_CLOSURE = 1000  # RFC 6455, 7.4.1
_NO_STATUS = 1005
_PONG = b"\x8a"  # how the frame begins: RFC 6455, 5.2


class Rejected(Exception):
    """The server answered the handshake with something else: an HTTP status of 400 or more."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.status = response.status_code
        self.body = bytes(response.body or b"")
        self.retry_after = response.headers.get("Retry-After")


class WebSocket:
    """An open WebSocket. One task receives, others may send."""

    def __init__(self, stream: TlsStream | _PlainStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = trio.Lock()
        self._torn = False
        """Whether a send was cancelled on the way: what would follow its half makes no sense."""
        self._replying = False
        self._breakage: str | None = None

    async def receive(self) -> list[Frame]:
        """The next frames of data; [] at the end, when `trouble` says why."""
        while True:
            events = self._protocol.events_received()
            frames = [event for event in events if isinstance(event, Frame) and event.opcode in DATA_OPCODES]
            if frames or self._protocol.state is not State.OPEN:
                return frames
            try:
                pieces = await self._stream.receive()
            except (OSError, trio.BrokenResourceError) as error:
                self._breakage = _words(error)
                pieces = []
            for piece in pieces:
                self._protocol.receive_data(piece)
                self._forget_older_pongs()
            if not pieces:
                self._protocol.receive_eof()

    def _forget_older_pongs(self) -> None:
        """Of several pings only the last need be answered (RFC 6455, 5.5.3), however long nothing can be sent."""
        writes = self._protocol.writes
        pongs = [index for index, frame in enumerate(writes) if frame.startswith(_PONG)] if len(writes) > 1 else []
        for index in reversed(pongs[:-1]):
            del writes[index]

    @property
    def owes_reply(self) -> bool:
        """Whether `receive` has read something, such as a ping, that the server wants answered, and no `reply` runs."""
        return bool(self._protocol.writes) and not self._replying

    async def reply(self) -> None:
        """Sends what is owed. Not to be waited for while receiving: the server may be waiting to be read, too."""
        if self._replying:
            return
        self._replying = True
        try:
            with suppress(trio.BrokenResourceError):  # then the server no longer wants it
                while self._protocol.writes:
                    await self._send_written()
        finally:
            self._replying = False

    async def send(self, message: bytes) -> None:
        """Sends a binary message. Raises BrokenResourceError when the connection has ended, or breaks."""
        if self._protocol.state is not State.OPEN:
            raise trio.BrokenResourceError("the WebSocket is closed")
        self._protocol.send_binary(message)
        await self._send_written()

    async def close(self) -> None:
        """Tells the server that we are done, unless the connection has ended."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(_NORMAL_CLOSURE)
            with suppress(trio.BrokenResourceError):  # then it knows
                await self._send_written()

    @property
    def trouble(self) -> str | None:
        """Why it has ended, in words; None when it was closed in good order, without a reason."""
        if self._breakage is not None:
            return f"the connection to the API server broke: {self._breakage}"
        closing = self._protocol.close_rcvd
        if closing is not None:
            in_order = closing.code in (_NORMAL_CLOSURE, _NO_STATUS) and not closing.reason
            return None if in_order else f"the API server closed the connection: {closing}"
        if self._protocol.parser_exc is None or isinstance(self._protocol.parser_exc, EOFError):
            return "the connection to the API server ended without a word"
        return f"the API server sent what is no WebSocket: {self._protocol.parser_exc}"

    async def _send_written(self) -> None:
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._torn:
                raise trio.BrokenResourceError("an earlier message was cut off")
            self._torn = True
            await self._stream.send(b"".join(self._protocol.data_to_send()))
            self._torn = False
        except OSError as error:
            raise trio.BrokenResourceError(_words(error)) from error
        finally:
            self._sending.release()


class _PlainStream:
    """As `TlsStream`, without TLS: for what `kubectl proxy` offers, for example."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self.send = transport.send_all

    async def receive(self) -> list[bytes]:
        data = bytes(await self._transport.receive_some(_PLAIN_READ_BYTES))
        return [data] if data else []


@asynccontextmanager
async def open_web_socket(request: WebSocketRequest, subprotocol: str) -> AsyncIterator[WebSocket]:
    """Opens a WebSocket; ends it with the block.

    Raises Rejected, OSError when the server cannot be reached or the connection breaks before it has answered,
    `Failure` when what answers does not speak WebSocket.
    """
    async with AsyncExitStack() as resources:
        try:
            with trio.fail_after(_ANSWER_S):
                transport = await _reach(request)
                resources.push_async_callback(trio.aclose_forcefully, transport)
                stream = await _secured(transport, request)
                protocol = await _shake_hands(stream, request, subprotocol)
        except trio.TooSlowError as error:
            raise TimeoutError(errno.ETIMEDOUT, "it does not answer in time") from error
        except trio.BrokenResourceError as error:
            raise ConnectionError(errno.ECONNRESET, _words(error)) from error
        web_socket = WebSocket(stream, protocol)
        try:
            yield web_socket
        finally:
            with trio.move_on_after(_GOODBYE_S, shield=True):
                await web_socket.close()


async def _reach(request: WebSocketRequest) -> trio.abc.Stream:
    """A connection to the server, through the proxy if there is one."""
    try:
        transport = await connect(request.uri, proxy=request.proxy).open_tcp_stream()
    except (InvalidProxy, ProxyError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise Failure(
            f"the proxy for the API server {request.server} does not pass us on: {error}{cause}",
            "Check the proxy: proxy-url in the kubeconfig, or $HTTPS_PROXY and $NO_PROXY.",
        ) from error
    except ImportError as error:
        raise Failure(
            "a SOCKS proxy needs the package python-socks, which is not installed", "pip install 'python-socks[trio]'"
        ) from error
    except OSError as error:
        causes = error.__cause__  # one for each of the server's addresses
        if isinstance(causes, ExceptionGroup) and isinstance(first := causes.exceptions[0], OSError) and first.errno:
            raise OSError(first.errno, os.strerror(first.errno)) from error
        raise
    if isinstance(transport, trio.SocketStream):
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
        transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
    return transport


async def _secured(transport: trio.abc.Stream, request: WebSocketRequest) -> TlsStream | _PlainStream:
    if request.tls is None:
        return _PlainStream(transport)
    stream = TlsStream(transport, request.tls, request.server_hostname or parse_uri(request.uri).host)
    await stream.handshake()
    return stream


async def _shake_hands(stream: TlsStream | _PlainStream, request: WebSocketRequest, subprotocol: str) -> ClientProtocol:
    protocol = ClientProtocol(parse_uri(request.uri), subprotocols=[Subprotocol(subprotocol)])
    opening = protocol.connect()
    opening.headers.update(request.headers)
    protocol.send_request(opening)
    await stream.send(b"".join(protocol.data_to_send()))
    while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
        pieces = await stream.receive()
        for piece in pieces:
            protocol.receive_data(piece)
        if not pieces:
            protocol.receive_eof()
    failure = protocol.handshake_exc
    if isinstance(failure, InvalidStatus):
        if failure.response.status_code >= 400:
            raise Rejected(failure.response)
        if failure.response.status_code >= 300:
            raise unreachable.redirected(request.server, failure.response.headers.get("Location"))
    if failure is not None and isinstance(failure.__cause__, EOFError):
        raise ConnectionError(errno.ECONNRESET, "the connection ended before an answer")
    if failure is not None or protocol.subprotocol is None:
        raise Failure(
            f"{request.server} does not answer as an API server would: {failure or 'it does not know ' + subprotocol}",
            "A proxy or balancer on the way to the API server may not let WebSockets pass.",
        )
    return protocol


def _words(error: BaseException) -> str:
    """The cause of an error of a socket or of TLS."""
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.replace("_", " ").lower()
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
