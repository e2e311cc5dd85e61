"""A client of HTTP/1.1 that sends exactly what it is given, and reads answers one after the other."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import attrs

from tests.mirrord_agent.incoming.networks import Network


@attrs.frozen
class Answer:
    """What came of a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def server(self) -> str:
        """Who gave it."""
        return self.headers.get("x-server", "")


class _Unclosed:
    """What http.client takes for a socket: a reader that outlives each answer."""

    def __init__(self, reader: IO[bytes]) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> IO[bytes]:
        outer = self

        class Once(io.BufferedIOBase):
            def read(self, size: int | None = -1) -> bytes:
                return outer._reader.read(-1 if size is None else size)

            def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
                data = outer._reader.read(len(buffer))
                buffer[: len(data)] = data
                return len(data)

            def readline(self, size: int | None = -1) -> bytes:
                return outer._reader.readline(-1 if size is None else size)

            def peek(self, size: int = 0) -> bytes:
                return b""

        return cast("IO[bytes]", Once())


@attrs.define
class Client:
    """One connection."""

    connection: socket.socket
    _reader: IO[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection.settimeout(20)
        self._reader = self.connection.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.sendall(piece)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises what http.client and sockets do."""
        response = http.client.HTTPResponse(cast("socket.socket", _Unclosed(self._reader)), method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def line(self) -> bytes:
        return self._reader.readline()

    def rest(self) -> bytes:
        """What comes until the end, be it a reset."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self._reader.read(1):
                received += chunk
        return received

    def ask(self, *pieces: bytes, method: str = "GET") -> Answer:
        self.send(*pieces)
        return self.answer(method)


@contextmanager
def connected(network: Network, host: str, port: int) -> Iterator[Client]:
    with network.connect(host, port) as connection, Client(connection) as client:
        yield client


def request(path: str = "/", *headers: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """A request's bytes; `body` goes with its length."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    lines = [f"{method} {path} HTTP/1.1", "Host: pod", *headers, *length]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
