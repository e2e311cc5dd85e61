"""Connections of a real kernel, captured on the loopback interface of a network namespace of the test's own."""

from __future__ import annotations

import fcntl
import functools
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

import attrs
import pytest

from mirrord_agent.addresses import from_sockaddr
from mirrord_agent.incoming.events import Data, Datagram, Eof, Event, Opened, Reset
from mirrord_agent.incoming.reassembly import Reassembler
from tests.children import CLONE_NEWNET, in_child, unshare

_Parameters = ParamSpec("_Parameters")

ETH_P_ALL = 3
SIOCSIFFLAGS, IFF_UP, IFF_LOOPBACK = 0x8914, 0x1, 0x8
TCP_FASTOPEN_ALWAYS = 0x603
"""For clients and all listeners, without cookies (net.ipv4.tcp_fastopen in the kernel's ip-sysctl.rst)."""
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def in_own_network(body: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Runs a test in a child process with a network of its own: `lo`, and no way out."""
    return in_child(body, _enter_own_network)


def _enter_own_network() -> None:
    unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | IFF_LOOPBACK))


@attrs.define
class Capture:
    """What went over `lo` since it was last asked, each packet once going out and once coming in."""

    socket: socket.socket
    reassembler: Reassembler
    buffer: bytearray = attrs.Factory(lambda: bytearray(1 << 18))

    def events(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                size = self.socket.recv_into(self.buffer)
            except BlockingIOError:
                return events
            events += self.reassembler.feed(memoryview(self.buffer)[:size], 0.0)


@contextmanager
def capture() -> Iterator[Capture]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)) as packets:
        packets.bind(("lo", ETH_P_ALL))
        yield Capture(packets, Reassembler())


@contextmanager
def connected(family: int, host: str, capturing: Capture) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and what its target has accepted, captured from the beginning on."""
    with socket.create_server((host, 0), family=family) as listener:
        capturing.reassembler.subscribe(listener.getsockname()[1])
        with socket.socket(family) as client:
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                local, peer = from_sockaddr(client.getpeername()), from_sockaddr(client.getsockname())
                assert capturing.events() == [Opened(1, peer, local)]
                yield client, accepted


def receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += connection.recv(size - len(data))
    return bytes(data)


@pytest.mark.parametrize(("family", "host"), FAMILIES)
@in_own_network
def test_every_byte_of_a_connection(family: int, host: str) -> None:
    source = random.Random(0)
    with capture() as capturing, connected(family, host, capturing) as (client, accepted):
        sent = bytearray()
        events: list[Event] = []
        for _ in range(200):
            piece = source.randbytes(source.choice([1, 100, 1448, source.randint(1, 40_000)]))
            client.sendall(piece)
            assert receive(accepted, len(piece)) == piece
            accepted.sendall(b"answer" * 10)
            receive(client, 60)
            sent += piece
            events += capturing.events()
        client.shutdown(socket.SHUT_WR)
        assert accepted.recv(1) == b""
        events += capturing.events()
        assert events.pop() == Eof(1)
        assert b"".join(event.payload for event in events if isinstance(event, Data)) == sent
        assert all(isinstance(event, Data) for event in events)
        accepted.close()
        assert client.recv(1) == b""
        assert capturing.events() == []
        assert capturing.reassembler.connections == 0


@pytest.mark.parametrize("by_target", [False, True])
@pytest.mark.parametrize(("family", "host"), FAMILIES)
@in_own_network
def test_a_reset(family: int, host: str, by_target: bool) -> None:
    with capture() as capturing, connected(family, host, capturing) as (client, accepted):
        client.sendall(b"hello")
        one, other = (accepted, client) if by_target else (client, accepted)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
        with pytest.raises(ConnectionResetError):
            receive(other, 6)
        assert capturing.events() == [Data(1, b"hello"), Reset(1, by_target)]


@in_own_network
def test_a_client_that_is_refused() -> None:
    with capture() as capturing, socket.socket() as closed, socket.socket() as client:
        closed.bind(("127.0.0.1", 0))
        capturing.reassembler.subscribe(closed.getsockname()[1])
        with pytest.raises(ConnectionRefusedError):
            client.connect(closed.getsockname())
        assert capturing.events() == []


@in_own_network
def test_data_in_a_syn() -> None:
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(TCP_FASTOPEN_ALWAYS))
    with capture() as capturing, socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        capturing.reassembler.subscribe(listener.getsockname()[1])
        client.sendto(b"hello", socket.MSG_FASTOPEN, listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert receive(accepted, 5) == b"hello"
            client.sendall(b" world")
            assert receive(accepted, 6) == b" world"
            opened, *rest = capturing.events()
            assert opened == Opened(1, from_sockaddr(client.getsockname()), from_sockaddr(listener.getsockname()))
            assert rest == [Data(1, b"hello"), Data(1, b" world")]


@pytest.mark.parametrize(("family", "host"), FAMILIES)
@in_own_network
def test_datagrams(family: int, host: str) -> None:
    with (
        capture() as capturing,
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((host, 0))
        client.connect(server.getsockname())
        capturing.reassembler.subscribe_datagrams(server.getsockname()[1])
        expected = functools.partial(Datagram, from_sockaddr(client.getsockname()), from_sockaddr(server.getsockname()))
        for payload in (b"", b"hello", bytes(60_000)):
            client.send(payload)
            assert server.recv(1 << 16) == payload
            assert capturing.events() == [expected(payload)] * 2
