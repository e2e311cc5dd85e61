"""HTTP/2 to a target's port, stolen and mirrored by a filter: client, target and process speak it by h2."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from mirrord_agent.wire.frames import Credit, Data, IncomingMode
from tests.mirrord_agent.incoming.agents import IncomingClient, Pod, agent_for
from tests.mirrord_agent.incoming.http.http2_peers import MINE, Peer, get
from tests.mirrord_agent.incoming.networks import POD
from tests.mirrord_agent.incoming.sessions import PORT
from tests.mirrord_agent.support import in_trio

BODY = bytes(range(256)) * 1000
"""More than an HTTP/2 connection may send ahead before it hears from the other end."""


class Client(Peer):
    """Asks with a long body, as fast as it may, on one stream after the other."""

    def __init__(self) -> None:
        super().__init__(is_client=True)
        self._left: dict[int, bytes] = {}
        self.on_end = lambda number: self.answered[number].set()
        self.answered: dict[int, trio.Event] = {}

    def ask(self, *headers: tuple[bytes, bytes]) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, get(b"/", *headers, method=b"POST"))
        self._left[number] = BODY
        self.answered[number] = trio.Event()
        return int(number)

    def sent(self) -> bytes:
        for number, left in self._left.items():
            while left and (room := self.h2.local_flow_control_window(number)):
                piece = left[: min(room, self.h2.max_outbound_frame_size)]
                left = left[len(piece) :]
                self.h2.send_data(number, piece, end_stream=not left)
            self._left[number] = left
        return super().sent()


class Server(Peer):
    """Answers with its name."""

    def __init__(self, name: bytes) -> None:
        super().__init__(is_client=False)
        self._name = name
        self.on_end = self._answer
        self.has_been_asked = trio.Event()

    def _answer(self, number: int) -> None:
        self.has_been_asked.set()
        self.h2.send_headers(number, [(b":status", b"200")])
        self.h2.send_data(number, self._name, end_stream=True)


async def speak(peer: Peer, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]) -> None:
    await send(peer.sent())
    while data := await receive():
        peer.receive(data)
        if said := peer.sent():
            await send(said)


async def speak_as_process(peer: Peer, agent: IncomingClient) -> None:
    stream = (await agent.arrived()).stream

    async def receive() -> bytes:
        data = await agent.receive_kind(Data)
        await agent.send(Credit(stream, len(data.payload)))
        return data.payload

    async def send(said: bytes) -> None:
        await agent.send(Data(stream, said))

    await speak(peer, receive, send)


def trio_stream(connection: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(connection))


@pytest.mark.parametrize("mode", ["steal", "mirror"])
@in_trio
async def test_streams_of_one_connection_are_told_apart(pod: Pod, mode: IncomingMode) -> None:
    client, target, process = Client(), Server(b"target"), Server(b"process")
    mine, theirs = client.ask(MINE), client.ask()
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as listener:
            await agent.subscribe(mode=mode, accepts='{"header": "^x-mine: 1$"}')
            with pod.outside.connect(POD[4], PORT) as connection:
                accepted, _ = listener.accept()
                async with trio_stream(connection) as here, trio_stream(accepted) as there, trio.open_nursery() as all_:
                    for peer, end in ((client, here), (target, there)):
                        all_.start_soon(speak, peer, partial(end.receive_some, 1 << 16), end.send_all)
                    all_.start_soon(speak_as_process, process, agent)
                    for event in (*client.answered.values(), target.has_been_asked, process.has_been_asked):
                        await event.wait()
                    all_.cancel_scope.cancel()
    assert client.messages[theirs].body == b"target"
    assert client.messages[mine].body == (b"process" if mode == "steal" else b"target")
    (asked,) = (message for message in process.messages.values() if message.headers)
    assert asked.body == BODY
    assert MINE in asked.headers
