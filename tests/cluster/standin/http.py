"""HTTP/1.1 over one TLS connection: h11 reads requests and frames answers; a handler says what to answer.

A connection serves one request after the other. An answer whose body is an iterator is sent chunked, piece by piece;
meanwhile the connection is read, so that a client that goes away ends the iterator at once, as it ends a watch of the
real server. A handler may take the connection over (an upgrade) or drop it (a fault).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11
import trio

if TYPE_CHECKING:
    from .requests import Attributes

HANDSHAKE_S = 10.0
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


class Handler(Protocol):
    """What answers requests."""

    async def __call__(self, request: Request, connection: Connection) -> Response | None:
        """Answers a request. None: it has taken the connection over and is done with it. Raises Dropped."""
        ...


@attrs.define(eq=False)
class Connection:
    """One client, as handlers see it."""

    stream: trio.SSLStream[trio.SocketStream]
    certificate: Mapping[str, Any] | None = None
    """The client's, verified, as SSLSocket.getpeercert() shows it; None without one."""
    trailing: bytes = b""
    """What was read beyond the request, for whoever takes the connection over."""
    serving: Attributes | None = None
    """What the request that is being served asks."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ending: trio.CancelScope | None = None
    """Around each wait for the next piece of an answer that is streamed: there it can end in good order."""

    def cut(self) -> None:
        """Ends the connection at once, whatever it is doing."""
        self._scope.cancel()

    def end_stream(self) -> None:
        """Ends the answer that is being streamed, in good order."""
        if self._ending is not None:
            self._ending.cancel()

    async def serve(self, handle: Handler) -> None:
        """Serves a client until either side ends the connection."""
        try:
            with self._scope:
                with trio.fail_after(HANDSHAKE_S):
                    await self.stream.do_handshake()
                self.certificate = self.stream.getpeercert() or None
                await self._serve_requests(handle)
                await self.stream.aclose()
        except (Dropped, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _serve_requests(self, handle: Handler) -> None:
        machine = h11.Connection(h11.SERVER)
        while (request := await _next_request(machine, self.stream)) is not None:
            self.trailing = machine.trailing_data[0]
            response = await handle(request, self)
            if response is None:
                return
            if isinstance(response.body, bytes):
                await self.stream.send_all(_whole(machine, response, response.body))
            else:
                await self._stream(machine, response, response.body)
            self.serving = None
            if machine.our_state is h11.MUST_CLOSE:
                return
            machine.start_next_cycle()

    async def _stream(self, machine: h11.Connection, response: Response, body: AsyncGenerator[bytes, None]) -> None:
        await self.stream.send_all(_head(machine, response, (b"transfer-encoding", b"chunked")))
        gone = False

        async def notice_end() -> None:
            """A client has nothing to say while it is answered: whatever it says, it is done with this."""
            nonlocal gone
            try:
                await self.stream.receive_some(1)
            except trio.BrokenResourceError:
                pass
            gone = True
            nursery.cancel_scope.cancel()

        self._ending = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notice_end)
            try:
                async with aclosing(body):
                    while (piece := await self._next_piece(body)) is not None:
                        await self.stream.send_all(machine.send(h11.Data(data=piece)) or b"")
            except trio.BrokenResourceError:
                gone = True
            nursery.cancel_scope.cancel()
        self._ending = None
        if gone:
            raise Dropped
        await self.stream.send_all(machine.send(h11.EndOfMessage()) or b"")

    async def _next_piece(self, body: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next piece of a streamed answer; None at its end, or when it shall end."""
        assert self._ending is not None
        piece = None
        with self._ending:
            piece = await anext(body, None)
        self._ending = trio.CancelScope() if not self._ending.cancel_called else self._ending
        return piece


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


def _head(machine: h11.Connection, response: Response, framing: tuple[bytes, bytes]) -> bytes:
    headers = [(name.encode(), value.encode()) for name, value in response.headers]
    return machine.send(h11.Response(status_code=response.status, headers=[*headers, framing])) or b""


def _whole(machine: h11.Connection, response: Response, body: bytes) -> bytes:
    head = _head(machine, response, (b"content-length", str(len(body)).encode()))
    return head + (machine.send(h11.Data(data=body)) or b"") + (machine.send(h11.EndOfMessage()) or b"")
