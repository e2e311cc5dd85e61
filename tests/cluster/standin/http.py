"""HTTP/1.1 over one TLS connection: h11 reads requests and frames answers; a handler says what to answer.

A connection serves one request after the other. An answer whose body is an iterator is sent chunked, piece by piece;
meanwhile the connection is read, so that a client that goes away ends the iterator at once, as it ends a watch of the
real server. A handler may take the connection over (an upgrade) or drop it (a fault).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11
import trio

LARGEST_BODY = 3 << 20
"""Bytes of a request's body, the real server's default limit (MaxRequestBodyBytes)."""
_PIECE = 64 << 10


@attrs.frozen
class Request:
    """A request, with its body."""

    method: str
    path: str
    """Unquoted, without the query."""
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    """By their names in lower case; of a repeated header the last."""
    body: bytes = b""

    def parameter(self, name: str) -> str:
        """A query parameter's first value; "" where it is not given."""
        return self.query.get(name, [""])[0]

    def flag(self, name: str) -> bool:
        """A query parameter as the API reads a boolean: absent, "0" and "false" are false, anything else is true."""
        return name in self.query and self.parameter(name).lower() not in ("0", "false")


@attrs.frozen
class Response:
    """An answer."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | AsyncGenerator[bytes, None] = b""

    @classmethod
    def of(cls, status: int, value: Any, headers: Sequence[tuple[str, str]] = ()) -> Response:
        """An answer in JSON."""
        return cls(status, [("content-type", "application/json"), *headers], json.dumps(value).encode() + b"\n")


class Dropped(Exception):
    """A fault: the connection ends here, without a word."""


@attrs.define
class Connection:
    """One client, as handlers see it."""

    stream: trio.SSLStream[trio.SocketStream]
    certificate: Mapping[str, Any] | None
    """The client's, verified, as SSLSocket.getpeercert() shows it; None without one."""
    trailing: bytes = b""
    """What was read beyond the request, for whoever takes the connection over."""


Handler = Callable[[Request, Connection], Awaitable[Response | None]]
"""Answers a request. None: it has taken the connection over and is done with it. Raises Dropped."""


async def serve_connection(socket: trio.SSLStream[trio.SocketStream], handle: Handler) -> None:
    """Serves a client until either side ends the connection."""
    try:
        with trio.fail_after(10):
            await socket.do_handshake()
        connection = Connection(socket, socket.getpeercert() or None)
        machine = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_BODY)
        while (request := await _next_request(machine, socket)) is not None:
            connection.trailing = machine.trailing_data[0]
            response = await handle(request, connection)
            if response is None:
                return
            await _answer(machine, socket, response)
            if machine.our_state is h11.MUST_CLOSE:
                break
            machine.start_next_cycle()
        await socket.aclose()
    except (Dropped, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.RemoteProtocolError):
        pass
    finally:
        await trio.aclose_forcefully(socket)


async def _next_request(machine: h11.Connection, socket: trio.SSLStream[trio.SocketStream]) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = machine.next_event()
        match event:
            case h11.NEED_DATA:
                if machine.they_are_waiting_for_100_continue:
                    await socket.send_all(machine.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                machine.receive_data(bytes(await socket.receive_some(_PIECE)))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage() | h11.PAUSED if head is not None:
                return _request(head, bytes(body))
            case h11.ConnectionClosed():
                return None


def _request(head: h11.Request, body: bytes) -> Request:
    target = urlsplit(head.target.decode())
    return Request(
        method=head.method.decode(),
        path=unquote(target.path),
        query=parse_qs(target.query, keep_blank_values=True),
        headers={name.decode().lower(): value.decode() for name, value in head.headers},
        body=body,
    )


async def _answer(machine: h11.Connection, socket: trio.SSLStream[trio.SocketStream], response: Response) -> None:
    headers = [(name.encode(), value.encode()) for name, value in response.headers]
    if isinstance(response.body, bytes):
        headers.append((b"content-length", str(len(response.body)).encode()))
        parts = [
            machine.send(h11.Response(status_code=response.status, headers=headers)),
            machine.send(h11.Data(data=response.body)),
            machine.send(h11.EndOfMessage()),
        ]
        await socket.send_all(b"".join(part or b"" for part in parts))
        return
    headers.append((b"transfer-encoding", b"chunked"))
    await socket.send_all(machine.send(h11.Response(status_code=response.status, headers=headers)) or b"")
    whole = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_end, socket, nursery.cancel_scope)
        async with aclosing(response.body) as pieces:
            async for piece in pieces:
                await socket.send_all(machine.send(h11.Data(data=piece)) or b"")
        whole = True
        nursery.cancel_scope.cancel()
    if not whole:
        raise Dropped
    await socket.send_all(machine.send(h11.EndOfMessage()) or b"")


async def _cancel_at_end(socket: trio.SSLStream[trio.SocketStream], scope: trio.CancelScope) -> None:
    """Notices that the client goes away. It has nothing to say while it is answered: whatever it says ends it too."""
    try:
        await socket.receive_some(1)
    except trio.BrokenResourceError:
        pass
    scope.cancel()
