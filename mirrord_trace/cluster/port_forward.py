"""A byte stream to a port of a pod, through the API server.

    GET …/pods/NAME/portforward?ports=N    Sec-WebSocket-Protocol: v4.channel.k8s.io

The API server passes the connection on to the kubelet and that to the container runtime, whose side this follows
(k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go, checked against Kubernetes 1.36). Each binary message begins
with a channel: 0 is data, 1, from the server only, is text for people about an error. The first message on either
repeats the port, two bytes, little-endian. Only then the port is connected to: a refusal comes on the error channel.
There is no half-close: when we close, or the pod's end does, all ends, in the latter case up to a second later.

The stream is one end of a Unix socket pair, because the session reads and writes a descriptor. What both ends buffer
is bounded by the kernel; bytes are read from either side only when the other has taken those before.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import trio
from websockets.frames import Frame, Opcode

from mirrord_trace.cluster import unreachable
from mirrord_trace.cluster.api import ApiServer
from mirrord_trace.cluster.exchange import delay_s
from mirrord_trace.cluster.refusals import ApiRefusal, Request
from mirrord_trace.cluster.resources import POD_PORT_FORWARD
from mirrord_trace.cluster.web_socket import Rejected, WebSocket, open_web_socket
from mirrord_trace.nurseries import serving_nursery

SUBPROTOCOL = "v4.channel.k8s.io"
_DATA = 0
_ERROR = 1
#: Data in one message: as much as makes its frame, with 15 bytes before them, exactly six full TLS records. Fewer cost
#: more for each byte; for more, the C library maps fresh memory each time (mallopt(3), M_MMAP_THRESHOLD).
_MESSAGE_BYTES = (96 << 10) - 15
#: What is kept of an error's text.
_TROUBLE_BYTES = 4 << 10
_SEND_BUFFER_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32  # socket(7), asm-generic/socket.h; the socket module has no name for it


class PortForward:
    """A connection to a pod's port."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        """Carries the bytes. Closing it ends the connection; data that is still on its way to the pod is then lost."""
        self.trouble: str | None = None
        """Once the stream has ended: what the node or the API server said, or what became of the connection; None when
        the pod's end was closed in good order."""


@asynccontextmanager
async def port_forward(api: ApiServer, namespace: str, pod: str, port: int) -> AsyncIterator[PortForward]:
    """Connects to a port on the pod's loopback; ends the connection with the block.

    Whether anything listens there shows only later, by an end of the stream and `trouble`. Raises ApiRefusal when the
    API server says no, `Failure` when it cannot be reached.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        _enlarge_send_buffer(ours)
        forward = PortForward(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        async with AsyncExitStack() as resources:
            request = Request("get", POD_PORT_FORWARD, namespace, pod)
            web_socket = await _connect(api, request, port, resources)
            pump = _Pump(web_socket, ours, forward, port)
            async with serving_nursery() as nursery:
                nursery.start_soon(pump.receive, nursery)
                nursery.start_soon(pump.send)
                yield forward


async def _connect(api: ApiServer, request: Request, port: int, resources: AsyncExitStack) -> WebSocket:
    """The WebSocket, asked for again where that may help, as other requests are."""
    assert request.namespace is not None
    repetitions = 0
    renewed = False
    while True:
        asked = await api.websocket(request.resource, request.namespace, request.name, {"ports": str(port)})
        api.count_request()
        try:
            return await resources.enter_async_context(open_web_socket(asked, SUBPROTOCOL))
        except Rejected as rejected:
            if rejected.status == 401 and not renewed:
                renewed = True
                await api.renew_credentials()
                continue
            pause_s = delay_s(repetitions, rejected.status, rejected.retry_after)
            if pause_s is None:
                raise ApiRefusal.from_answer(request, rejected.status, rejected.body) from rejected
        except OSError as error:
            pause_s = delay_s(repetitions) if unreachable.may_pass(error, reached=True) else None
            if pause_s is None:
                raise unreachable.failure(error, asked.server, asked.proxy) from error
        await trio.sleep(pause_s)
        repetitions += 1


class _Pump:
    """Moves bytes between the WebSocket and our end of the socket pair."""

    def __init__(self, web_socket: WebSocket, ours: socket.socket, forward: PortForward, port: int) -> None:
        self._web_socket = web_socket
        self._ours = ours
        self._forward = forward
        self._port = port.to_bytes(2, "little")
        self._channel = _DATA
        self._begun: set[int] = set()
        self._complaint = bytearray()

    async def receive(self, nursery: trio.Nursery) -> None:
        """Until the connection ends. Then the stream ends, too, and its trouble is known."""
        trouble: str | None = None
        try:
            while frames := await self._web_socket.receive():
                if self._web_socket.owes_reply:
                    nursery.start_soon(self._web_socket.reply)
                for frame in frames:
                    await self._take(frame)
            trouble = self._web_socket.trouble
        except ValueError as error:
            trouble = str(error)
        except OSError:  # nobody reads any more
            pass
        if self._complaint:
            trouble = self._complaint.decode(errors="replace").strip()
        self._forward.trouble = trouble
        with suppress(OSError):  # the other end may have gone first
            self._ours.shutdown(socket.SHUT_RDWR)
        nursery.start_soon(self._web_socket.reply)

    async def send(self) -> None:
        """Until the stream is closed, or the connection has ended."""
        with suppress(trio.BrokenResourceError):  # which `receive` learns, too
            while data := await self._read():
                await self._web_socket.send(b"\0" + data)
        await self._web_socket.close()

    async def _take(self, frame: Frame) -> None:
        payload = memoryview(frame.data)
        if frame.opcode is not Opcode.CONT:
            if not payload:
                return
            self._channel = payload[0]
            payload = payload[1:]
            if self._channel not in self._begun:
                self._begin(payload)
                return
        if self._channel == _DATA:
            await self._write(payload)
        elif len(self._complaint) < _TROUBLE_BYTES:
            self._complaint += payload

    def _begin(self, payload: memoryview) -> None:
        """The first message on a channel. Raises ValueError when it is not what it must be."""
        if self._channel not in (_DATA, _ERROR) or payload != self._port:
            raise ValueError(f"the API server's port-forward does not speak {SUBPROTOCOL}")
        self._begun.add(self._channel)

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._ours.fileno(), _MESSAGE_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._ours)
            except ConnectionResetError:  # closed without having read all
                return b""

    async def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._ours.fileno(), data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._ours)


def _enlarge_send_buffer(end: socket.socket) -> None:
    """As for the session's own end, and for the same reason (`mirrord_agent.link`)."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
    except PermissionError:  # needs CAP_NET_ADMIN; without it the system's maximum holds
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
