"""The stand-in's port-forward refuses and behaves as API server, kubelet and containerd do; no client of ours here."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedReader
from pathlib import Path

import pytest
import yaml
from websockets.speedups import apply_mask

from mirrord_trace.cluster.resources import PODS
from tests.cluster.loopback_node import cluster_with_pod
from tests.cluster.standin.cluster import Cluster

PATH = "/api/v1/namespaces/shop/pods/web-1/portforward"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
}
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455, 1.3, answers to that key."""
MASK = b"\1\2\3\4"
TIMEOUT_S = 10.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with a pod, web-1 in the namespace shop, that runs."""
    with cluster_with_pod(tmp_path) as cluster:
        yield cluster


@contextmanager
def asking(
    cluster: Cluster, query: str, headers: dict[str, str], method: str = "GET"
) -> Iterator[tuple[http.client.HTTPResponse, Client]]:
    """Sends a request. Yields the answer, and what the client has if it was accepted."""
    context = ssl.create_default_context(cafile=str(cluster.directory / "ca.crt"))
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    with closing(
        http.client.HTTPSConnection("127.0.0.1", cluster.port, context=context, timeout=TIMEOUT_S)
    ) as connection:
        connection.request(method, PATH + query, headers={"Authorization": f"Bearer {token}", **headers})
        with connection.getresponse() as answer:
            yield answer, Client(connection.sock, answer.fp)


class Client:
    """A client's end of a WebSocket."""

    def __init__(self, connection: socket.socket, received: BufferedReader) -> None:
        self._connection = connection
        self._received = received

    def send(self, opcode: int, data: bytes, *, final: bool = True, masked: bool = True) -> None:
        header = bytes([opcode | (0x80 if final else 0), len(data) | (0x80 if masked else 0)])
        self._connection.sendall(header + (MASK + apply_mask(data, MASK) if masked else data))

    def receive(self) -> tuple[int, bytes]:
        """A frame's opcode and data."""
        header = self._received.read(2)
        length = header[1] & 0x7F
        assert header[0] & 0x80, "the server never fragments"
        assert not header[1] & 0x80, "the server does not mask"
        if length == 126:
            length = int.from_bytes(self._received.read(2))
        return header[0] & 0xF, self._received.read(length)

    def is_at_end(self) -> bool:
        return self._received.read(1) == b""


@contextmanager
def opened(cluster: Cluster, port: int) -> Iterator[Client]:
    """A client that was accepted and has read the first message on either channel."""
    with asking(cluster, f"?ports={port}", UPGRADE) as (answer, client):
        assert answer.status == 101
        prefix = port.to_bytes(2, "little")
        assert [client.receive(), client.receive()] == [(2, b"\0" + prefix), (2, b"\1" + prefix)]
        yield client


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


@contextmanager
def echoing() -> Iterator[int]:
    """The port of a service for one client."""
    with listening() as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_an_upgrade_is_answered_as_containerd_does(cluster: Cluster) -> None:
    with echoing() as port, asking(cluster, f"?ports={port}", UPGRADE) as (answer, _):
        assert answer.status == 101
        assert {name.lower(): value for name, value in answer.getheaders()} == {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": ACCEPT,
            "sec-websocket-protocol": "v4.channel.k8s.io",
        }


@pytest.mark.parametrize(
    ("query", "headers", "message"),
    [
        ("?ports=80", {}, "Upgrade request required"),
        ("?ports=x", UPGRADE, 'cannot convert to []int32: strconv.ParseUint: parsing "x": invalid syntax'),
        ("?ports=65536", UPGRADE, 'cannot convert to []int32: strconv.ParseUint: parsing "65536": value out of range'),
    ],
)
def test_the_api_server_refuses_with_a_status(
    cluster: Cluster, query: str, headers: dict[str, str], message: str
) -> None:
    with asking(cluster, query, headers) as (answer, _):
        status = json.loads(answer.read())
        assert (answer.status, status["kind"], status["reason"]) == (400, "Status", "BadRequest")
        assert status["message"] == message


@pytest.mark.parametrize(
    ("query", "text"), [("", 'query parameter "port" is required'), ("?ports=0", 'port "0" must be > 0')]
)
def test_the_kubelet_refuses_in_plain_text(cluster: Cluster, query: str, text: str) -> None:
    with asking(cluster, query, UPGRADE) as (answer, _):
        assert (answer.status, answer.read().decode()) == (400, text)


def test_a_pod_without_a_sandbox_is_not_found_by_the_kubelet(cluster: Cluster) -> None:
    cluster.patch(PODS, "shop", "web-1", {"status": {"phase": "Failed"}})
    with asking(cluster, "?ports=80", UPGRADE) as (answer, _):
        assert (answer.status, answer.read()) == (500, b'pod not found ("web-1_shop")')


@pytest.mark.parametrize(
    ("method", "changed", "status", "body"),
    [
        ("POST", {}, 405, b"bad method"),
        ("GET", {"Upgrade": "SPDY/3.1"}, 400, b"not websocket protocol"),
        ("GET", {"Sec-WebSocket-Key": ""}, 400, b"mismatch challenge/response"),
        ("GET", {"Sec-WebSocket-Version": "8"}, 400, b"missing or bad WebSocket Version"),
        ("GET", {"Sec-WebSocket-Protocol": "v5.channel.k8s.io"}, 403, b""),
    ],
)
def test_a_handshake_that_is_none_is_refused_as_by_go(
    cluster: Cluster, method: str, changed: dict[str, str], status: int, body: bytes
) -> None:
    with asking(cluster, "?ports=80", UPGRADE | changed, method) as (answer, _):
        assert (answer.status, answer.read()) == (status, body)


def test_several_ports_have_two_channels_each(cluster: Cluster) -> None:
    with (
        echoing() as first,
        echoing() as second,
        asking(cluster, f"?ports={first},{second}", UPGRADE) as (_, client),
    ):
        prefixes = [client.receive()[1] for _ in range(4)]
        assert [prefix[0] for prefix in prefixes] == [0, 1, 2, 3]
        client.send(0x2, b"\2there")
        assert client.receive() == (2, b"\2there")
        client.send(0x2, b"\0here")
        assert client.receive() == (2, b"\0here")


def test_each_frame_is_a_message(cluster: Cluster) -> None:
    """x/net/websocket does not put fragments together: a fragment's first byte is taken for a channel, too."""
    with echoing() as port, opened(cluster, port) as client:
        client.send(0x2, b"\0ab", final=False)
        assert client.receive() == (2, b"\0ab")
        client.send(0x0, b"\0cd")
        assert client.receive() == (2, b"\0cd")


def test_data_on_other_channels_is_ignored(cluster: Cluster) -> None:
    with echoing() as port, opened(cluster, port) as client:
        client.send(0x2, b"\1error?")
        client.send(0x2, b"\7what?")
        client.send(0x2, b"")
        client.send(0x2, b"\0data")
        assert client.receive() == (2, b"\0data")


def test_pings_are_answered(cluster: Cluster) -> None:
    with echoing() as port, opened(cluster, port) as client:
        client.send(0x9, b"hi")
        assert client.receive() == (0xA, b"hi")


def test_a_frame_that_is_not_masked_ends_the_connection(cluster: Cluster) -> None:
    with echoing() as port, opened(cluster, port) as client:
        client.send(0x2, b"\0data", masked=False)
        assert client.receive() == (8, (1002).to_bytes(2))
        assert client.is_at_end()


def test_a_close_is_answered_at_once_and_the_pod_hears_of_it(cluster: Cluster) -> None:
    with listening() as listener, opened(cluster, listener.getsockname()[1]) as client:
        connection, _ = listener.accept()
        with connection:
            client.send(0x8, (1000).to_bytes(2))
            assert client.receive() == (8, (1000).to_bytes(2))
            assert client.is_at_end()
            connection.settimeout(TIMEOUT_S)
            assert connection.recv(1) == b""


def test_what_cannot_be_connected_to_is_told_on_the_error_channel(cluster: Cluster) -> None:
    with listening() as listener:
        port = listener.getsockname()[1]
    with opened(cluster, port) as client:
        opcode, message = client.receive()
        assert (opcode, message[0]) == (2, 1)
        assert message[1:].startswith(b"error forwarding port %d to pod " % port)
        assert b"uid : failed to execute portforward in network namespace " in message
        assert b"IPv4: dial tcp4 127.0.0.1:%d: connect: connection refused" % port in message
        assert client.receive() == (8, (1000).to_bytes(2))
        assert client.is_at_end()


def test_long_data_come_in_messages_of_32_kib(cluster: Cluster) -> None:
    with listening() as listener, opened(cluster, listener.getsockname()[1]) as client:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(bytes(1 << 20))
        sizes: list[int] = []
        while sum(sizes) < 1 << 20:
            opcode, message = client.receive()
            assert (opcode, message[0]) == (2, 0)
            sizes.append(len(message) - 1)
        assert max(sizes) == 32 << 10
        assert client.receive() == (8, (1000).to_bytes(2))
