"""Port-forward as the API server, the kubelet and containerd serve it together, over a WebSocket.

Each has its part in what a client sees, and its own manner of refusing:
- The API server reads `ports`, looks for the pod's node and passes the connection on as it is
  (pkg/registry/core/pod/rest/subresources.go, apimachinery's UpgradeAwareHandler). It refuses with Status objects.
- The kubelet checks the ports and that the pod has a sandbox (pkg/kubelet/server/server.go). It refuses with plain
  text, which the API server passes on; then the connection closes.
- containerd answers the handshake, for which Go's x/net/websocket is used, and copies
  (k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go, wsstream/conn.go; containerd's
  internal/cri/server/sandbox_portforward_linux.go). What it has to say of a port comes on that port's error channel.

That WebSocket takes each frame for a message, never fragments, answers pings, and does not read on while the pod does
not. Only the binary subprotocol is spoken here, neither base64 nor the tunnel for SPDY.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from uuid import NAMESPACE_OID, uuid5

import trio
from websockets.speedups import apply_mask

from .http import Connection, Request, Response
from .interfaces import Dial
from .status import bad_request
from .store import Object

#: What `io.Copy` reads and thus sends as one message.
_COPY_BYTES = 32 << 10
#: Bytes of the pod's that are turned into messages at once.
_READ_BYTES = 128 << 10
#: How long containerd lets the other direction end by itself, as socat would.
_GRACE_S = 1.0
#: x/net/websocket's DefaultMaxPayloadBytes.
_LARGEST_FRAME = 32 << 20
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_SUBPROTOCOLS = ("v4.channel.k8s.io", "")
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_NORMAL, _PROTOCOL_ERROR = 1000, 1002


async def port_forward(connection: Connection, request: Request, pod: Object, dial: Dial) -> Response | None:
    """Serves a request for `pods/portforward` that is authorized and whose pod exists. Raises `Refused`."""
    ports = _ports(request.query.get("ports", ()))
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    if "upgrade" not in request.headers.get("connection", "").lower():
        raise bad_request("Upgrade request required")
    refusal = _refusal_of_kubelet(ports, pod) or _refusal_of_runtime(request)
    if refusal is not None:
        await connection.stream.send_all(refusal)
        return None
    await connection.stream.send_all(_acceptance(request))
    web_socket = _WebSocket(connection)
    forwards = [_Forward(web_socket, number, port, pod) for number, port in enumerate(ports)]
    for forward in forwards:
        await forward.announce()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, web_socket, forwards)
        async with trio.open_nursery() as forwarding:
            for forward in forwards:
                forwarding.start_soon(forward.run, dial)
        await web_socket.close(_NORMAL)
        nursery.cancel_scope.cancel()
    return None


def _ports(values: Sequence[str]) -> list[int]:
    """Convert_Slice_string_To_Slice_int32 of k8s.io/apimachinery."""
    ports = []
    for text in (part for value in values for part in value.split(",")):
        problem = "invalid syntax" if not (text.isascii() and text.isdigit()) else "value out of range"
        if problem == "invalid syntax" or int(text) > 0xFFFF:
            raise bad_request(f'cannot convert to []int32: strconv.ParseUint: parsing "{text}": {problem}')
        ports.append(int(text))
    return ports


def _refusal_of_kubelet(ports: list[int], pod: Object) -> bytes | None:
    if not ports:
        return _plain(400, 'query parameter "port" is required')
    if 0 in ports:
        return _plain(400, f'port "{",".join(map(str, ports))}" must be > 0')
    status = pod.get("status", {})
    if status.get("phase") != "Running" and not (status.get("phase") == "Pending" and status.get("podIP")):
        metadata = pod["metadata"]
        return _plain(500, f'pod not found ("{metadata["name"]}_{metadata["namespace"]}")')
    return None


def _plain(status: int, text: str) -> bytes:
    lines = ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(text)}"]
    return _answer(status, lines, text)


def _refusal_of_runtime(request: Request) -> bytes | None:
    """What x/net/websocket's handshake says; without lengths, so the end of the connection is the end of the body."""
    headers = request.headers
    if request.method != "GET":
        return _answer(405, ["Connection: close"], "bad method")
    if headers.get("upgrade", "").lower() != "websocket":
        return _answer(400, ["Connection: close"], "not websocket protocol")
    if not headers.get("sec-websocket-key"):
        return _answer(400, ["Connection: close"], "mismatch challenge/response")
    if headers.get("sec-websocket-version") != "13":
        return _answer(400, ["Connection: close", "Sec-Websocket-Version: 13"], "missing or bad WebSocket Version")
    if _subprotocol(request) is None:
        return _answer(403, ["Connection: close"])
    return None


def _subprotocol(request: Request) -> str | None:
    offered = (one.strip() for one in request.headers.get("sec-websocket-protocol", "").split(","))
    return next((one for one in offered if one in _SUBPROTOCOLS), None)


def _acceptance(request: Request) -> bytes:
    digest = hashlib.sha1((request.headers["sec-websocket-key"] + _GUID).encode()).digest()
    accept = base64.b64encode(digest).decode()
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    return _answer(101, [*lines, f"Sec-WebSocket-Protocol: {_subprotocol(request)}"])


def _answer(status: int, headers: Sequence[str], body: str = "") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *headers, "", body]).encode()


class _WebSocket:
    """The server's end, as x/net/websocket behaves."""

    def __init__(self, connection: Connection) -> None:
        self._stream = connection.stream
        self._received = bytearray(connection.trailing)
        self._sending = trio.Lock()
        self._open = True

    async def receive(self) -> memoryview | None:
        """The next message; None at the end, whatever its cause."""
        while True:
            header = await self._read(2)
            if header is None:
                return None
            opcode, length = header[0] & 0xF, header[1] & 0x7F
            if length > 125:
                extended = await self._read(2 if length == 126 else 8)
                length = int.from_bytes(extended or b"")
            mask = await self._read(4) if header[1] & 0x80 else None
            if mask is None:
                await self.close(_PROTOCOL_ERROR)
                return None
            data = await self._read(length) if length <= _LARGEST_FRAME else None
            if data is None or opcode == _CLOSE:
                return None
            payload = apply_mask(data, mask)
            if opcode == _PING:
                await self._send(_frame(_PONG, payload[:125]))
            elif opcode != _PONG:
                return memoryview(payload)

    async def send(self, channel: int, data: bytes) -> None:
        """Sends data as the messages that `io.Copy` makes of it. Raises BrokenResourceError once it is closed."""
        head = bytes([channel])
        await self._send(b"".join(_frame(_BINARY, head, piece) for piece in _pieces(data)))

    async def close(self, status: int) -> None:
        """Says so and closes the connection, without waiting for an answer."""
        if self._open:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._send(_frame(_CLOSE, status.to_bytes(2)))
            self._open = False
            await self._stream.aclose()

    async def _send(self, frames: bytes) -> None:
        async with self._sending:
            if not self._open:
                raise trio.BrokenResourceError("use of closed network connection")
            await self._stream.send_all(frames)

    async def _read(self, size: int) -> bytes | None:
        try:
            while len(self._received) < size:
                data = await self._stream.receive_some()
                if not data:
                    return None
                self._received += data
                self._take_records()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        data = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return data

    def _take_records(self) -> None:
        """What else has come: Trio hands out one TLS record for each call, which would make this the bottleneck."""
        with suppress(ssl.SSLWantReadError, ssl.SSLEOFError):
            while data := self._stream._ssl_object.read(16 << 10):
                self._received += data


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + _COPY_BYTES] for start in range(0, len(view), _COPY_BYTES))


def _frame(opcode: int, *parts: bytes | memoryview) -> bytes:
    length = sum(map(len, parts))
    if length < 126:
        header = struct.pack("!BB", 0x80 | opcode, length)
    elif length < 1 << 16:
        header = struct.pack("!BBH", 0x80 | opcode, 126, length)
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, 127, length)
    return b"".join((header, *parts))


async def _receive(web_socket: _WebSocket, forwards: Sequence[_Forward]) -> None:
    """Hands the client's data to the ports until the client's end; then closes the connection at once."""
    while (message := await web_socket.receive()) is not None:
        if message:
            number, is_error = divmod(message[0], 2)
            if number < len(forwards) and not is_error:
                await forwards[number].take(message[1:])
    await web_socket.close(_NORMAL)
    for forward in forwards:
        forward.end()


class _Forward:
    """One port: containerd's copying between the pod and two channels."""

    def __init__(self, web_socket: _WebSocket, number: int, port: int, pod: Object) -> None:
        self._web_socket = web_socket
        self._data, self._error = 2 * number, 2 * number + 1
        self._port = port
        self._sandbox = hashlib.sha256(pod["metadata"]["uid"].encode()).hexdigest()
        self._namespace = f"/var/run/netns/cni-{uuid5(NAMESPACE_OID, self._sandbox)}"
        self._pod: trio.SocketStream | None = None
        self._connected = trio.Event()
        self._report, self._ends = trio.open_memory_channel[str](2)

    async def announce(self) -> None:
        """The first message on each of its channels."""
        with suppress(trio.BrokenResourceError):
            for channel in (self._data, self._error):
                await self._web_socket.send(channel, self._port.to_bytes(2, "little"))

    async def run(self, dial: Dial) -> None:
        """Copies until an end; says what went wrong."""
        try:
            self._pod = await dial(self._port)
        except OSError as error:
            why = (os.strerror(error.errno) if error.errno else str(error)).lower()
            problem = (
                f'failed to connect to localhost:{self._port} inside namespace "{self._sandbox}", '
                f"IPv4: dial tcp4 127.0.0.1:{self._port}: connect: {why} "
                f"IPv6 dial tcp6 [::1]:{self._port}: connect: {why} "
            )
        else:
            problem = await self._copy(self._pod)
        self._connected.set()
        if problem:
            text = (
                f"error forwarding port {self._port} to pod {self._sandbox}, uid : "
                f'failed to execute portforward in network namespace "{self._namespace}": {problem}'
            )
            with suppress(trio.BrokenResourceError):
                await self._web_socket.send(self._error, text.encode())

    async def take(self, data: memoryview) -> None:
        """Writes the client's data to the pod; returns when it has taken them, or no more are wanted."""
        if not self._connected.is_set():
            await self._connected.wait()
        if self._pod is not None:
            try:
                await self._pod.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.end(f"readfrom {self._path}: write {self._path}: write: {_words(error)}")

    def end(self, problem: str = "") -> None:
        """One direction has ended."""
        with suppress(trio.WouldBlock):
            self._report.send_nowait(problem)

    async def _copy(self, pod: trio.SocketStream) -> str:
        """Until one direction has ended, and the other too or not within a second. What went wrong, if anything."""
        async with pod, trio.open_nursery() as nursery:
            self._connected.set()
            nursery.start_soon(self._copy_from, pod)
            problem = await self._ends.receive()
            with trio.move_on_after(_GRACE_S):
                problem = problem or await self._ends.receive()
            nursery.cancel_scope.cancel()
        self._pod = None
        return problem

    async def _copy_from(self, pod: trio.SocketStream) -> None:
        try:
            while data := await pod.receive_some(_READ_BYTES):
                await self._web_socket.send(self._data, bytes(data))
        except trio.BrokenResourceError as error:
            self.end(f"read {self._path}: read: {_words(error)}")
        else:
            self.end()

    @property
    def _path(self) -> str:
        return f"tcp4 127.0.0.1:38268->127.0.0.1:{self._port}"


def _words(error: Exception) -> str:
    cause = error.__cause__
    return cause.strerror.lower() if isinstance(cause, OSError) and cause.strerror else "broken pipe"
