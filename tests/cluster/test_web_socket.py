"""The WebSocket and the port-forward's messages, against a server that says what the test wants, without TLS."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from trio.testing import wait_all_tasks_blocked
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.speedups import apply_mask
from websockets.uri import parse_uri

from mirrord_trace.cluster.api import ApiServer, open_api
from mirrord_trace.cluster.port_forward import PortForward, _Pump, port_forward
from mirrord_trace.cluster.web_socket import WebSocket
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure
from tests.mirrord_agent.support import in_trio

PORT = 80
PREFIXES = b"\x82\x03\x00\x50\x00\x82\x03\x01\x50\x00"
"""The first message on either channel."""
CLOSE = b"\x88\x02\x03\xe8"


class Server:
    """One client's connection, from the server's side."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.request = b""

    async def read_request(self) -> None:
        while b"\r\n\r\n" not in self.request:
            self.request += await self.stream.receive_some()

    async def accept(self, subprotocol: str = "v4.channel.k8s.io") -> None:
        await self.read_request()
        key = self.request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
            *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
        ]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())

    async def read_frame(self) -> tuple[int, bytes]:
        """A short frame's opcode and data; the client masks them."""
        header = await self._read(6)
        return header[0] & 0xF, apply_mask(await self._read(header[1] & 0x7F), header[2:])

    async def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.stream.receive_some(size - len(data))
            assert piece
            data += piece
        return data


Script = Callable[[Server], Awaitable[object]]


@asynccontextmanager
async def serving(directory: Path, script: Script) -> AsyncIterator[ApiServer]:
    """The API server of a kubeconfig that names a server which does what the script says."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await script(Server(stream))

        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        kubeconfig = directory / "kubeconfig"
        server = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                    "clusters": [{"name": "here", "cluster": {"server": server}}],
                    "users": [{"name": "me", "user": {}}],
                }
            )
        )
        async with open_api(ClusterConfiguration(kubeconfig=str(kubeconfig))) as api:
            yield api
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def forwarding(directory: Path, script: Script) -> AsyncIterator[PortForward]:
    async with serving(directory, script) as api, port_forward(api, "shop", "web-1", PORT) as forward:
        yield forward


def saying(*pieces: bytes) -> Script:
    """A server that accepts, and says so much."""

    async def script(server: Server) -> None:
        await server.accept()
        for piece in pieces:
            await server.stream.send_all(piece)

    return script


async def outcome(directory: Path, script: Script) -> tuple[bytes, str | None]:
    """What comes from the stream until its end, and the trouble."""
    async with forwarding(directory, script) as forward:
        return b"".join([bytes(piece) async for piece in forward.stream]), forward.trouble


@in_trio
async def test_it_asks_as_the_api_wants_it(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def script(server: Server) -> None:
        await server.accept()
        asked.append(server.request)

    await outcome(tmp_path, script)
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /api/v1/namespaces/shop/pods/web-1/portforward?ports=80 HTTP/1.1"
    assert b"Sec-WebSocket-Protocol: v4.channel.k8s.io" in lines
    assert any(line.startswith(b"User-Agent: mirrord-trace/") for line in lines)
    assert not any(line.startswith(b"Sec-WebSocket-Extensions") for line in lines)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_may_be_cut_anywhere(tmp_path: Path, size: int) -> None:
    whole = PREFIXES + b"\x82\x04\x00abc" + b"\x82\x7e\x01\x00\x00" + b"d" * 255 + CLOSE
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert trio.run(outcome, tmp_path, saying(*pieces)) == (b"abc" + b"d" * 255, None)


def test_a_message_in_fragments_is_one_message(tmp_path: Path) -> None:
    """Go's servers send none, but what is between us and them might."""
    fragments = b"\x02\x03\x00ab" + b"\x00\x02cd" + b"\x80\x01e"
    assert trio.run(outcome, tmp_path, saying(PREFIXES, fragments, CLOSE)) == (b"abcde", None)


def test_empty_messages_are_nothing(tmp_path: Path) -> None:
    assert trio.run(outcome, tmp_path, saying(b"\x82\x00", PREFIXES, b"\x82\x00\x82\x01\x00", CLOSE)) == (b"", None)


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ([PREFIXES, CLOSE], None),
        ([PREFIXES, b"\x88\x00"], None),
        ([PREFIXES, b"\x82\x05\x01oh, \x82\x03\x01no", CLOSE], "oh, no"),
        ([PREFIXES], "the connection to the API server ended without a word"),
        ([PREFIXES, b"\x82\x05\x00ab"], "the connection to the API server ended without a word"),
        (
            [PREFIXES, b"\x88\x07\x03\xf3going"],
            "the API server closed the connection: 1011 (internal error) going",
        ),
        ([PREFIXES, b"\xf2\x01\x00"], "the API server sent what is no WebSocket: reserved bits must be 0"),
        (
            [b"\x82\x03\x00\x51\x00"],
            "the API server's port-forward does not speak v4.channel.k8s.io",
        ),
        (
            [PREFIXES, b"\x82\x03\x02\x50\x00"],
            "the API server's port-forward does not speak v4.channel.k8s.io",
        ),
    ],
)
def test_each_end_has_its_words(tmp_path: Path, said: Sequence[bytes], trouble: str | None) -> None:
    assert trio.run(outcome, tmp_path, saying(*said))[1] == trouble


@in_trio
async def test_pings_are_answered_while_nothing_is_sent(tmp_path: Path) -> None:
    answers: list[tuple[int, bytes]] = []
    done = trio.Event()

    async def script(server: Server) -> None:
        await server.accept()
        await server.stream.send_all(PREFIXES + b"\x89\x02hi")
        answers.append(await server.read_frame())
        await server.stream.send_all(CLOSE)
        answers.append(await server.read_frame())
        done.set()

    async with forwarding(tmp_path, script):
        await done.wait()
    assert answers == [(0xA, b"hi"), (0x8, b"\x03\xe8")]


class Stuck:
    """A connection on which the server sends pings, each with data, and does not read before `reads` is set."""

    def __init__(self, pings: int) -> None:
        self.reads = trio.Event()
        self.sent: list[bytes] = []
        self._pings = pings

    async def receive(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        if not self._pings:
            await trio.sleep_forever()
        self._pings -= 1
        data = b"\0" + (80).to_bytes(2, "little")
        frames = Frame(Opcode.PING, b"%d" % self._pings), Frame(Opcode.BINARY, data)
        return [b"".join(frame.serialize(mask=False) for frame in frames)]

    async def send(self, data: bytes) -> None:
        await self.reads.wait()
        self.sent.append(data)


@in_trio
async def test_pings_pile_up_nothing_while_a_send_is_stuck() -> None:
    stream: Any = Stuck(pings=100)
    web_socket = WebSocket(stream, ClientProtocol(parse_uri("ws://api.example"), state=State.OPEN))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        forward: Any = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(web_socket.send, b"first")
            await wait_all_tasks_blocked()
            nursery.start_soon(_Pump(web_socket, ours, forward, 80).receive, nursery)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 3  # the send, what receives, one reply
            stream.reads.set()
            await wait_all_tasks_blocked()
            assert [data[0] & 0xF for data in stream.sent] == [Opcode.BINARY, Opcode.PONG]
            assert len(stream.sent[1]) == len(Frame(Opcode.PONG, b"0").serialize(mask=True))
            assert len(nursery.child_tasks) == 1
            nursery.cancel_scope.cancel()


@in_trio
async def test_what_is_sent_goes_out_as_whole_binary_messages_and_the_end_as_a_close(tmp_path: Path) -> None:
    frames: list[tuple[int, bytes]] = []
    done = trio.Event()

    async def script(server: Server) -> None:
        await server.accept()
        while not frames or frames[-1][0] != 0x8:
            frames.append(await server.read_frame())
        done.set()

    async with serving(tmp_path, script) as api, port_forward(api, "shop", "web-1", PORT) as forward:
        await forward.stream.send_all(b"abc")
        await forward.stream.aclose()
        await done.wait()
    assert frames == [(0x2, b"\x00abc"), (0x8, b"\x03\xe8")]


async def failure(directory: Path, script: Script) -> str:
    """What the user is told."""
    async with serving(directory, script) as api:
        with pytest.raises(Failure) as caught:
            async with port_forward(api, "shop", "web-1", PORT):
                pass
    return caught.value.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "does not answer as an API server would"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://login/\r\n\r\n", "redirects to https://login/"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer as an API server would"),
    ],
)
def test_what_is_no_api_server_is_a_failure(tmp_path: Path, answer: bytes, words: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        await server.stream.send_all(answer)

    assert words in trio.run(failure, tmp_path, script)


def test_a_server_without_the_subprotocol_is_a_failure(tmp_path: Path) -> None:
    async def script(server: Server) -> None:
        await server.accept(subprotocol="")

    assert "it does not know v4.channel.k8s.io" in trio.run(failure, tmp_path, script)


def test_a_server_that_never_answers_is_a_failure(tmp_path: Path) -> None:
    """After a few attempts."""

    async def script(server: Server) -> None:
        await server.read_request()

    assert "the connection ended before an answer" in trio.run(failure, tmp_path, script)
